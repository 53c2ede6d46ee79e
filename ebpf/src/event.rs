//! What user space is told.

use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use l7egg_ebpf_common::abi::{Address, Counter, Event, EventKind};

use crate::maps::{COUNTS, EVENTS};
use crate::subject::Current;

/// Adds one to a counter.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(count) = COUNTS.get_ptr_mut(counter as u32) {
        // SAFETY: this CPU's element. A program that preempts this one may take one count with it.
        unsafe { *count += 1 };
    }
}

/// Reports that a destination was denied; the caller counts.
#[inline(always)]
pub fn denied(subject: &Current, remote: &Address, protocol: u8, port: u16) {
    send(Event {
        at_ns: now_ns(),
        name: 0,
        remote: *remote,
        subject: subject.id,
        kind: EventKind::Denied as u32,
        policy: subject.policy,
        remote_port: port,
        protocol,
        reserved: 0,
    });
}

/// Reports that an address was learned for a name, or could not be.
#[inline(always)]
pub fn learned(subject: u32, policy: u32, name: u64, address: &Address, kind: EventKind) {
    send(Event {
        at_ns: now_ns(),
        name,
        remote: *address,
        subject,
        kind: kind as u32,
        policy,
        remote_port: 0,
        protocol: 0,
        reserved: 0,
    });
}

/// The clock of every map: nanoseconds since boot, suspended time included.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_boot_ns() }
}

#[inline(always)]
fn send(event: Event) {
    match EVENTS.reserve::<Event>(0) {
        Some(mut entry) => {
            entry.write(event);
            entry.submit(0);
        }
        None => count(Counter::EventsLost),
    }
}
