//! Atomic access to map memory, by instructions that Rust's atomics do not offer on this target (compare and
//! swap: Linux 5.12 and later). Aligned loads and stores of eight bytes are single instructions.

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd, atomic_xchg};
use core::sync::atomic::AtomicU64;

use l7egg_ebpf_common::atomics::Atomics;

/// The kernel's.
pub struct Bpf;

impl Atomics for Bpf {
    #[inline(always)]
    fn load(cell: &AtomicU64) -> u64 {
        // SAFETY: a valid, aligned cell; volatile, so that it is read once and whole.
        unsafe { cell.as_ptr().read_volatile() }
    }

    #[inline(always)]
    fn store(cell: &AtomicU64, value: u64) {
        // SAFETY: as above.
        unsafe { cell.as_ptr().write_volatile(value) }
    }

    #[inline(always)]
    fn add(cell: &AtomicU64, value: u64) {
        // SAFETY: as above; the sum wraps round.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(cell.as_ptr(), value) };
    }

    #[inline(always)]
    fn compare_and_swap(cell: &AtomicU64, from: u64, to: u64) -> bool {
        const SEQ: AtomicOrdering = AtomicOrdering::SeqCst;
        // SAFETY: as above.
        unsafe { atomic_cxchg::<u64, SEQ, SEQ>(cell.as_ptr(), from, to).1 }
    }
}

/// Stores `to`; what was there before.
#[allow(dead_code, reason = "the shaping object has no use for it")]
#[inline(always)]
pub fn swap(cell: &AtomicU64, to: u64) -> u64 {
    // SAFETY: as above.
    unsafe { atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(cell.as_ptr(), to) }
}

/// Adds one.
#[allow(dead_code, reason = "the shaping object has no use for it")]
#[inline(always)]
pub fn increment(cell: &AtomicU64) {
    // SAFETY: as above.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(cell.as_ptr(), 1) };
}

/// Takes one away.
#[allow(dead_code, reason = "the shaping object has no use for it")]
#[inline(always)]
pub fn decrement(cell: &AtomicU64) {
    // SAFETY: as above; what is added wraps round.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(cell.as_ptr(), u64::MAX) };
}
