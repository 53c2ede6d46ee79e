//! The clocks of the maps.

/// Nanoseconds since boot, suspended time included, as `bpf_ktime_get_boot_ns` counts them.
#[must_use]
pub fn boot_ns() -> u64 {
    now_ns(libc::CLOCK_BOOTTIME)
}

/// Nanoseconds since boot without suspended time, as `bpf_ktime_get_coarse_ns` counts them: when names were asked for.
#[must_use]
pub fn awake_ns() -> u64 {
    now_ns(libc::CLOCK_MONOTONIC)
}

fn now_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid place for the result.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
