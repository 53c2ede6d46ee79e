//! What user space is told.

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::helpers::generated::{bpf_get_current_comm, bpf_ktime_get_coarse_ns};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_boot_ns};
use l7egg_ebpf_common::abi::{Address, Counter, Event, EventKind};
use l7egg_ebpf_common::packet::Packet;

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

/// Reports a packet that is denied, or would be; the caller counts. A function of its own, so that the event
/// leaves the stack when it is done.
#[inline(never)]
pub fn refused(kind: EventKind, subject: &Current, packet: &Packet) -> i32 {
    // SAFETY: `write` fills in everything.
    send(|event| unsafe { write(event, kind, subject, packet) });
    1
}

/// The same for what the present process asked for by a system call.
#[inline(never)]
pub fn refused_call(kind: EventKind, subject: &Current, packet: &Packet) -> i32 {
    send(|event| {
        // SAFETY: as above; the helpers have no preconditions but the length of the name.
        unsafe {
            write(event, kind, subject, packet);
            (*event).process = (bpf_get_current_pid_tgid() >> 32) as u32;
            bpf_get_current_comm((&raw mut (*event).comm).cast(), 16);
        }
    });
    1
}

/// 1 if user space wants to hear of every address that is learned. Set when the programs are loaded.
#[unsafe(no_mangle)]
static TELL_LEARNED: u32 = 0;

/// Reports that an address was learned for a name, where that is wanted, or could not be.
#[inline(always)]
pub fn learned(subject: u32, policy: u32, name: u64, address: &Address, kind: EventKind) {
    // SAFETY: a constant to the compiler, but not to who loads the program.
    let is_wanted = unsafe { (&raw const TELL_LEARNED).read_volatile() } != 0;
    if matches!(kind, EventKind::Learned) && !is_wanted {
        return;
    }
    send(|event| {
        // SAFETY: an entry of the ring buffer that is ours.
        unsafe {
            *event = Event {
                at_ns: now_ns(),
                name,
                remote: *address,
                subject,
                kind: kind as u32,
                policy,
                ..EMPTY
            };
        }
    });
}

/// The clock of every map: nanoseconds since boot, suspended time included.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Nanoseconds since boot, to the tick and without the time asleep: to tell what was first, never for an expiry.
#[inline(always)]
pub fn about_now_ns() -> u64 {
    // SAFETY: no preconditions.
    unsafe { bpf_ktime_get_coarse_ns() }
}

const EMPTY: Event = Event {
    at_ns: 0,
    name: 0,
    remote: Address::UNSPECIFIED,
    subject: 0,
    kind: 0,
    policy: 0,
    remote_port: 0,
    protocol: 0,
    reserved: 0,
    process: 0,
    local_port: 0,
    reserved2: 0,
    comm: [0; 16],
};

/// # Safety
/// `event` is valid for writes.
#[inline(always)]
unsafe fn write(event: *mut Event, kind: EventKind, subject: &Current, packet: &Packet) {
    // SAFETY: see above.
    unsafe {
        *event = Event {
            at_ns: now_ns(),
            remote: packet.destination,
            subject: subject.id,
            kind: kind as u32,
            policy: subject.policy,
            remote_port: packet.destination_port,
            protocol: packet.protocol,
            local_port: packet.source_port,
            ..EMPTY
        };
    }
}

/// Written in place: the stack has no room for an event.
#[inline(always)]
fn send(write: impl FnOnce(*mut Event)) {
    match EVENTS.reserve::<Event>(0) {
        Some(mut entry) => {
            write(entry.as_mut_ptr());
            // The agent looks by itself. Waking it would cost the packet more than all the rest.
            entry.submit(u64::from(BPF_RB_NO_WAKEUP));
        }
        None => count(Counter::EventsLost),
    }
}
