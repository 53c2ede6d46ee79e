//! Earliest departure times: when a packet may leave, so that every cap of its pod holds.
//!
//! Each cap has a virtual clock, `all`, that tells when all it has been given will have left. A packet departs
//! when the latest of its caps is free; the `fq` qdisc behind the program holds it until then, and sends the
//! packets of different sockets in the order of these times.
//!
//! Packets of sparse flows (pings, DNS, small requests) leave at once, past the queue of the bulk. Their bytes
//! advance `all` like others', so that the rate holds; but what waits already has its times, and until it has
//! left, such packets come on top. So they need credit: a cap has little of it, which comes back the slower the
//! longer the queue is. One packet takes no more than half of what is left, so that the first full frames of
//! new connections leave something for pings.

use core::hint::black_box;
use core::sync::atomic::AtomicU64;

use crate::abi::{CAPS_PER_POD, Cap, CapClock, FlowClock};
use crate::atomics::Atomics;

/// A flow is sparse while it sends less than one part in so many of the strictest rate.
pub const SPARSE_SHARE: u64 = 16;
/// Credit, in 32nds of [`Cap::sparse_burst_ns`] (which has two frames, at the share of a flow): three frames.
const CREDIT_32NDS: u64 = 3;
/// Credit, in ns of the rate, where three frames take less: 5 ms.
const CREDIT_MIN_NS: u64 = 5_000_000;
/// Credit comes back at one part in so many of the rate: between these, such that while one queue leaves, no
/// more than the whole of it does.
const CREDIT_SHARE: (u64, u64) = (2, 64);
/// Attempts to change a clock that other CPUs change, too. After them a packet's cost is added to whatever it shows.
const ATTEMPTS: usize = 4;
/// A cost is never more than this, whatever the rate and the packet: 16 s.
const COST_MAX_NS: u64 = 16_000_000_000;
/// The longest that a sender may postpone a packet beyond its turn.
const POSTPONED_MAX_NS: u64 = 100_000_000;

/// A [`CapClock`] in map memory, which all CPUs advance.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Clock {
    /// [`CapClock::all_ns`].
    pub all_ns: AtomicU64,
    /// [`CapClock::sparse_ns`].
    pub sparse_ns: AtomicU64,
    /// [`CapClock::bytes_per_second`].
    pub bytes_per_second: AtomicU64,
}

/// A packet about to leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// The time, in ns of CLOCK_MONOTONIC.
    pub now_ns: u64,
    /// Bytes on the wire, with the headers of every segment.
    pub bytes: u32,
    /// When its sender wants it to leave (a socket that paces itself), or 0.
    pub earliest_ns: u64,
}

/// One level that a packet has to pass. A cap without a rate limits nothing: caps of all pods are as many, so that
/// the verifier has one case to look at.
#[derive(Clone, Copy)]
pub struct Level<'a> {
    /// The cap.
    pub cap: &'a Cap,
    /// Its clock.
    pub clock: &'a Clock,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It leaves at `at_ns`.
    Depart {
        /// When, never before now.
        at_ns: u64,
        /// Whether it is to be marked, if its transport can be (RFC 3168).
        mark: bool,
        /// Which level made it wait, or 0 if none did.
        level: usize,
    },
    /// It would have to wait longer than this level's horizon.
    Drop {
        /// Which level.
        level: usize,
    },
}

/// Decides on a packet of a flow. Clocks advance only if it departs.
///
/// `levels` are the caps of the pod.
#[inline(always)]
pub fn decide<A: Atomics>(
    packet: &Packet,
    levels: &[Level<'_>; CAPS_PER_POD],
    flow: &mut FlowClock,
) -> Decision {
    let now = packet.now_ns;
    let mut strictest_cost = 0;
    let mut sparse_burst_ns = 0;
    let mut late = 0;
    let mut poor = NO;
    for (index, level) in levels.iter().enumerate() {
        if level.cap.bytes_per_second == 0 {
            continue;
        }
        follow_rate::<A>(level, now);
        let cost = cost_ns(packet.bytes, level.cap.bytes_per_second);
        let stricter = less(strictest_cost, cost);
        strictest_cost = select(stricter, cost, strictest_cost);
        sparse_burst_ns = select(stricter, level.cap.sparse_burst_ns, sparse_burst_ns);
        let queue_ns = beyond(A::load(&level.clock.all_ns), now);
        late |= one(less(level.cap.horizon_ns, queue_ns)) << index;
        poor |= has_no_credit::<A>(level, cost, now, queue_ns);
    }
    let sparse = is_sparse(flow, now, strictest_cost, sparse_burst_ns) & !poor;
    if late & !sparse != 0 {
        return Decision::Drop { level: late.trailing_zeros() as usize };
    }
    let mut at_ns = now;
    let mut at_level = 0;
    let mut mark = NO;
    for (index, level) in levels.iter().enumerate() {
        if level.cap.bytes_per_second == 0 {
            continue;
        }
        let start = depart_by::<A>(level, packet.bytes, now, sparse);
        let later = less(at_ns, start);
        at_ns = select(later, start, at_ns);
        at_level = (at_level & !later) + one(later) * index as u64;
        mark |= less(now + level.cap.mark_ns, start);
    }
    flow.virtual_ns = max(flow.virtual_ns, now) + strictest_cost * SPARSE_SHARE;
    // Within one flow, and so within one connection, order is kept whatever class its packets had.
    at_ns = max(at_ns, flow.departure_ns);
    flow.departure_ns = at_ns;
    // A socket that paces itself. Other clocks' times (SO_TXTIME) are far from this one: not believed. Nor is any for long: what
    // many packets have saved up would leave at once.
    if packet.earliest_ns > at_ns && packet.earliest_ns - now < COST_MAX_NS {
        at_ns = min(packet.earliest_ns, at_ns + POSTPONED_MAX_NS);
    }
    Decision::Depart { at_ns, mark: mark != NO, level: at_level as usize }
}

/// How long a rate takes for some bytes.
#[inline(always)]
pub fn cost_ns(bytes: u32, bytes_per_second: u64) -> u64 {
    if bytes_per_second == 0 {
        return COST_MAX_NS;
    }
    min(u64::from(bytes) * 1_000_000_000 / bytes_per_second, COST_MAX_NS)
}

/// The clock of a cap, as atomics.
///
/// # Safety
/// `clock` points to a value that lives as long as `'a` and that is only accessed atomically meanwhile.
#[inline(always)]
pub unsafe fn clock<'a>(clock: *mut CapClock) -> &'a Clock {
    // SAFETY: both are repr(C), of three u64; an atomic has the layout of its integer.
    unsafe { &*clock.cast() }
}

/// A flow with a packet under way waits behind that; one that sends more than its share is not sparse.
#[inline(always)]
fn is_sparse(flow: &FlowClock, now: u64, cost: u64, burst_ns: u64) -> Mask {
    let next = max(flow.virtual_ns, now) + cost * SPARSE_SHARE;
    !less(now, flow.departure_ns) & !less(now + burst_ns, next)
}

/// Whether a packet of this cost may not leave past the queue. Where there is none it needs no credit.
#[inline(always)]
fn has_no_credit<A: Atomics>(level: &Level<'_>, cost: u64, now: u64, queue_ns: u64) -> Mask {
    let (credit_ns, share) = credit(level.cap, queue_ns);
    let used_until = max(A::load(&level.clock.sparse_ns), beyond(now, credit_ns * share));
    less(beyond(now, used_until), 2 * cost * share) & less(0, queue_ns)
}

/// The whole credit, in ns of the rate, and the share at which it comes back beside a queue.
#[inline(always)]
fn credit(cap: &Cap, queue_ns: u64) -> (u64, u64) {
    let credit_ns = max(cap.sparse_burst_ns / 32 * CREDIT_32NDS, CREDIT_MIN_NS) | 1;
    (credit_ns, min(max(queue_ns / credit_ns, CREDIT_SHARE.0), CREDIT_SHARE.1))
}

/// Gives a packet its time at one level.
#[inline(always)]
fn depart_by<A: Atomics>(level: &Level<'_>, bytes: u32, now: u64, sparse: Mask) -> u64 {
    let cost = cost_ns(bytes, level.cap.bytes_per_second);
    let start = advance::<A>(&level.clock.all_ns, cost, now, level.cap.burst_ns);
    if sparse & less(now, start) != NO {
        let (credit_ns, share) = credit(level.cap, start - now);
        advance::<A>(&level.clock.sparse_ns, cost * share, now, credit_ns * share);
    }
    select(sparse, now, start)
}

/// Moves a clock on by the cost of a packet; what it showed before. After a silence it lags behind by no more
/// than the burst.
#[inline(always)]
fn advance<A: Atomics>(clock: &AtomicU64, cost: u64, now: u64, burst_ns: u64) -> u64 {
    let oldest = beyond(now, burst_ns);
    for _ in 0..ATTEMPTS {
        let shown = A::load(clock);
        let start = max(shown, oldest);
        if A::compare_and_swap(clock, shown, start + cost) {
            return start;
        }
    }
    // Added, not set: what the others have added stays.
    let shown = A::load(clock);
    A::add(clock, cost);
    max(shown, oldest)
}

/// After a change of the rate: what waits by a lower rate would hold up the rest, so the clock comes nearer
/// as the rate grows. It stays when it falls, because what waits has its times already.
#[inline(always)]
fn follow_rate<A: Atomics>(level: &Level<'_>, now: u64) {
    let (clock, new) = (level.clock, level.cap.bytes_per_second);
    let old = A::load(&clock.bytes_per_second);
    if old == new || !A::compare_and_swap(&clock.bytes_per_second, old, new) || old == 0 || new < old {
        return;
    }
    // In 1024ths; rates are below 2^40.
    let factor = max(new * 1024 / old, 1024);
    for _ in 0..ATTEMPTS {
        let shown = A::load(&clock.all_ns);
        let wait = min(beyond(shown, now), COST_MAX_NS);
        if wait == 0 || A::compare_and_swap(&clock.all_ns, shown, now + wait * 1024 / factor) {
            return;
        }
    }
}

// Without branches: each that leaves its mark in a variable doubles what the verifier has to follow. Times and
// costs are below 2^63.

/// All bits set for yes, none for no.
type Mask = u64;

const NO: Mask = 0;

/// Whether `a` is less than `b`. The compiler is not to know what this is: it would make branches of it.
#[inline(always)]
fn less(a: u64, b: u64) -> Mask {
    black_box((a.wrapping_sub(b) as i64 >> 63) as u64)
}

#[inline(always)]
fn select(mask: Mask, yes: u64, no: u64) -> u64 {
    no ^ ((yes ^ no) & mask)
}

/// 1 for yes, 0 for no. Since Linux 7.0 the verifier follows both cases of a mask where one keeps some bits of it by a
/// constant (`maybe_fork_scalars` in kernel/bpf/verifier.c).
#[inline(always)]
fn one(mask: Mask) -> u64 {
    mask >> 63
}

/// How much more `a` is than `b`, or nothing.
#[inline(always)]
fn beyond(a: u64, b: u64) -> u64 {
    a.wrapping_sub(b) & less(b, a)
}

#[inline(always)]
fn max(a: u64, b: u64) -> u64 {
    select(less(a, b), b, a)
}

#[inline(always)]
fn min(a: u64, b: u64) -> u64 {
    select(less(a, b), a, b)
}

#[cfg(test)]
mod tests;
