//! Earliest departure times: when a packet may leave, so that every cap of its pod holds.
//!
//! Each cap has virtual clocks that tell when all it has been given will have left. A packet departs when the
//! latest of its caps is free; the `fq` qdisc behind the program holds it until then, and sends the packets of
//! different sockets in the order of these times. Two clocks for each cap keep sparse flows (pings, DNS, small
//! requests) out of the queue of the bulk: every packet advances `all`, and packets of sparse flows depart by
//! `sparse`, which only they advance. As their bytes are in `all` as well, the sum stays within the rate.

use core::sync::atomic::AtomicU64;

use crate::abi::{CAPS_PER_POD, Cap, CapClock, FlowClock};
use crate::learned::Atomics;

/// A flow is sparse while it sends less than one part in so many of the strictest rate.
pub const SPARSE_SHARE: u64 = 16;
/// Sparse flows together get one part in so many of a rate ahead of the bulk, so that they cannot starve it.
const SPARSE_TOTAL_SHARE: u64 = 2;
/// Attempts to advance a clock that other CPUs advance, too. After them the packet counts, and is given the
/// time that the clock showed last.
const ATTEMPTS: usize = 4;
/// A cost is never more than this, whatever the rate and the packet: 16 s.
const COST_MAX_NS: u64 = 16_000_000_000;

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

/// One level that a packet has to pass.
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
/// `levels` are the caps of the pod from the first on; the first `None` ends them.
#[inline(always)]
pub fn decide<A: Atomics>(
    packet: &Packet,
    levels: &[Option<Level<'_>>; CAPS_PER_POD],
    flow: &mut FlowClock,
) -> Decision {
    let now = packet.now_ns;
    let mut strictest_cost = 0;
    let mut sparse_burst_ns = 0;
    for level in levels {
        let Some(level) = level else { break };
        follow_rate::<A>(level, now);
        let cost = cost_ns(packet.bytes, level.cap.bytes_per_second);
        if cost > strictest_cost {
            strictest_cost = cost;
            sparse_burst_ns = level.cap.sparse_burst_ns;
        }
    }
    let sparse = is_sparse(flow, now, strictest_cost, sparse_burst_ns);
    for (index, level) in levels.iter().enumerate() {
        let Some(level) = level else { break };
        if free_at::<A>(level, sparse) > now + level.cap.horizon_ns {
            return Decision::Drop { level: index };
        }
    }
    let mut at_ns = now;
    let mut at_level = 0;
    let mut mark = false;
    for (index, level) in levels.iter().enumerate() {
        let Some(level) = level else { break };
        let start = depart_by::<A>(level, packet.bytes, now, sparse);
        if start > at_ns {
            at_ns = start;
            at_level = index;
        }
        mark |= start > now + level.cap.mark_ns;
    }
    flow.virtual_ns = max(flow.virtual_ns, now) + strictest_cost * SPARSE_SHARE;
    // Within one flow, and so within one connection, order is kept whatever class its packets had.
    at_ns = max(at_ns, flow.departure_ns);
    flow.departure_ns = at_ns;
    // A socket that paces itself. Other clocks' times (SO_TXTIME) are far from this one: not believed.
    if packet.earliest_ns > at_ns && packet.earliest_ns - now < COST_MAX_NS {
        at_ns = packet.earliest_ns;
    }
    Decision::Depart { at_ns, mark, level: at_level }
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
fn is_sparse(flow: &FlowClock, now: u64, cost: u64, burst_ns: u64) -> bool {
    flow.departure_ns <= now && max(flow.virtual_ns, now) + cost * SPARSE_SHARE <= now + burst_ns
}

/// When the next packet of the class could leave.
#[inline(always)]
fn free_at<A: Atomics>(level: &Level<'_>, sparse: bool) -> u64 {
    let all = A::load(&level.clock.all_ns);
    if sparse { min(all, A::load(&level.clock.sparse_ns)) } else { all }
}

/// Gives a packet its time at one level.
#[inline(always)]
fn depart_by<A: Atomics>(level: &Level<'_>, bytes: u32, now: u64, sparse: bool) -> u64 {
    let cost = cost_ns(bytes, level.cap.bytes_per_second);
    let all = advance::<A>(&level.clock.all_ns, cost, now, level.cap.burst_ns);
    if sparse {
        // As much at once as one flow may send.
        let burst_ns = level.cap.sparse_burst_ns * SPARSE_TOTAL_SHARE / SPARSE_SHARE;
        min(all, advance::<A>(&level.clock.sparse_ns, cost * SPARSE_TOTAL_SHARE, now, burst_ns))
    } else {
        all
    }
}

/// Moves a clock on by the cost of a packet; what it showed before. After a silence it lags behind by no more
/// than the burst.
#[inline(always)]
fn advance<A: Atomics>(clock: &AtomicU64, cost: u64, now: u64, burst_ns: u64) -> u64 {
    let oldest = now.saturating_sub(burst_ns);
    let mut start = now;
    for _ in 0..ATTEMPTS {
        let shown = A::load(clock);
        start = max(shown, oldest);
        if A::compare_and_swap(clock, shown, start + cost) {
            return start;
        }
    }
    A::store(clock, start + cost);
    start
}

/// After a change of the rate: what waits by a lower rate would hold up the rest, so the clocks come nearer
/// as the rate grows. They stay when it falls, because what waits has its times already.
#[inline(always)]
fn follow_rate<A: Atomics>(level: &Level<'_>, now: u64) {
    let (clock, new) = (level.clock, level.cap.bytes_per_second);
    let old = A::load(&clock.bytes_per_second);
    if old == new || !A::compare_and_swap(&clock.bytes_per_second, old, new) || old == 0 || new < old {
        return;
    }
    // In 1024ths; rates are below 2^40.
    let factor = max(new * 1024 / old, 1024);
    for cell in [&clock.all_ns, &clock.sparse_ns] {
        let shown = A::load(cell);
        if shown > now {
            let wait = min(shown - now, COST_MAX_NS);
            A::compare_and_swap(cell, shown, now + wait * 1024 / factor);
        }
    }
}

#[inline(always)]
fn max(a: u64, b: u64) -> u64 {
    if a > b { a } else { b }
}

#[inline(always)]
fn min(a: u64, b: u64) -> u64 {
    if a < b { a } else { b }
}

#[cfg(test)]
mod tests;
