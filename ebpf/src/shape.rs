//! The program that shapes what a pod sends: on egress of the pod's own interface, inside its network
//! namespace, before the `fq` qdisc. It gives each packet the time of its departure; the algorithm is
//! `l7egg_ebpf_common::shape`.
//!
//! Nothing on a packet tells here which pod it is of (a reset has no socket, and so no cgroup; interfaces of
//! different namespaces have equal numbers), so the agent loads the program once for each pod, with the pod's
//! slot as a constant. It is an object of its own for that.

#![no_std]
#![no_main]
// The target has the instructions, but no stable way to them.
#![allow(internal_features)]
#![feature(core_intrinsics)]

mod atomic;

use aya_ebpf::bindings::{__sk_buff, BPF_F_NO_PREALLOC, TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::helpers::{bpf_get_hash_recalc, bpf_ktime_get_ns, bpf_skb_ecn_set_ce};
use aya_ebpf::macros::{classifier, map};
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray};
use aya_ebpf::programs::TcContext;
use aya_ebpf::{EbpfContext, Global};
use l7egg_ebpf_common::abi::{
    CAPS_MAX, CAPS_PER_POD, Cap, CapClock, CapName, FlowClock, FlowClockKey, SHAPED_PODS_MAX, SavedInterface,
    SavedInterfaceKey, ShapeCounts, ShapedPod,
};
use l7egg_ebpf_common::shape::{Decision, Level, Packet, clock, decide};

use crate::atomic::Bpf;

/// The pod's slot. The agent sets it when it loads the program.
#[unsafe(no_mangle)]
static SLOT: Global<u32> = Global::new(0);

#[map]
static SHAPED_PODS: Array<ShapedPod> = Array::with_max_entries(SHAPED_PODS_MAX, 0);

#[map]
static CAPS: Array<Cap> = Array::with_max_entries(CAPS_MAX, 0);

#[map]
static CAP_CLOCKS: Array<CapClock> = Array::with_max_entries(CAPS_MAX, 0);

#[map]
static FLOW_CLOCKS: LruHashMap<FlowClockKey, FlowClock> = LruHashMap::with_max_entries(65_536, 0);

#[map]
static SHAPED_COUNTS: PerCpuArray<ShapeCounts> = PerCpuArray::with_max_entries(SHAPED_PODS_MAX, 0);

#[map]
static CAP_COUNTS: PerCpuArray<ShapeCounts> = PerCpuArray::with_max_entries(CAPS_MAX, 0);

// User space's own: which cap has which id, and what is to be put back.
#[map]
static CAP_IDS: HashMap<CapName, u32> = HashMap::with_max_entries(CAPS_MAX, BPF_F_NO_PREALLOC);

#[map]
static SAVED_INTERFACES: HashMap<SavedInterfaceKey, SavedInterface> =
    HashMap::with_max_entries(4 * SHAPED_PODS_MAX, BPF_F_NO_PREALLOC);

#[classifier]
pub fn shape(ctx: TcContext) -> i32 {
    let skb: *mut __sk_buff = ctx.as_ptr().cast();
    let slot = SLOT.load();
    let Some(pod) = SHAPED_PODS.get(slot) else { return TC_ACT_UNSPEC };
    let caps = pod.caps;
    if caps[0] == 0 {
        return TC_ACT_UNSPEC;
    }
    let [Some(first), Some(second), Some(third), Some(fourth)] = caps.map(level) else {
        return TC_ACT_UNSPEC;
    };
    let levels = [first, second, third, fourth];
    // SAFETY: the kernel hands a valid context to the program; the verifier checks the offsets. `wire_len`
    // has the headers of every segment of a GSO packet.
    let packet =
        unsafe { Packet { now_ns: bpf_ktime_get_ns(), bytes: (*skb).wire_len, earliest_ns: (*skb).tstamp } };
    // SAFETY: as above.
    let key = FlowClockKey { slot, hash: unsafe { bpf_get_hash_recalc(skb) } };
    // A copy, so that there is one call to verify. Packets of one flow on two CPUs at a time blur its clock.
    let known = FLOW_CLOCKS.get_ptr_mut(&key);
    // SAFETY: an entry lives until the program ends.
    let mut flow = known.map_or(FlowClock::default(), |known| unsafe { *known });
    let decision = decide::<Bpf>(&packet, &levels, &mut flow);
    match known {
        // SAFETY: as above.
        Some(known) => unsafe { *known = flow },
        None => {
            let _ = FLOW_CLOCKS.insert(&key, &flow, 0);
        }
    }
    match decision {
        Decision::Depart { at_ns, mark, level } => {
            // SAFETY: as above; the helper marks packets of ECN-capable transports only.
            let marked = mark && unsafe { bpf_skb_ecn_set_ce(skb) } == 1;
            let delay_ns = at_ns - packet.now_ns;
            count(SHAPED_COUNTS.get_ptr_mut(slot), &packet, delay_ns, marked);
            for (index, cap) in caps.into_iter().enumerate() {
                if cap == 0 {
                    break;
                }
                let decided = index == level;
                let (delay_ns, marked) = if decided { (delay_ns, marked) } else { (0, false) };
                count(CAP_COUNTS.get_ptr_mut(cap), &packet, delay_ns, marked);
            }
            // Also where it need not wait: the time that TCP gave it is a little earlier than now, and could be
            // before that of a packet of the same connection which is just about to leave.
            // SAFETY: as above.
            unsafe { (&raw mut (*skb).tstamp).write_volatile(at_ns) };
            TC_ACT_UNSPEC
        }
        Decision::Drop { level } => {
            let cap = if level < CAPS_PER_POD { caps[level] } else { 0 };
            for counts in [SHAPED_COUNTS.get_ptr_mut(slot), CAP_COUNTS.get_ptr_mut(cap)].into_iter().flatten()
            {
                // SAFETY: this CPU's element.
                unsafe { (*counts).dropped += 1 };
            }
            TC_ACT_SHOT
        }
    }
}

#[inline(always)]
fn level(cap: u32) -> Option<Level<'static>> {
    let times = CAP_CLOCKS.get_ptr_mut(cap)?;
    // SAFETY: elements of an array live as long as the map; clocks are only accessed atomically.
    Some(Level { cap: CAPS.get(cap)?, clock: unsafe { clock(times) } })
}

#[inline(always)]
fn count(counts: Option<*mut ShapeCounts>, packet: &Packet, delay_ns: u64, marked: bool) {
    let Some(counts) = counts else { return };
    // SAFETY: this CPU's element. A program that preempts this one may take one count with it.
    unsafe {
        (*counts).packets += 1;
        (*counts).bytes += u64::from(packet.bytes);
        (*counts).delayed += u64::from(delay_ns > 0);
        (*counts).delay_ns += delay_ns;
        (*counts).marked += u64::from(marked);
    }
}

/// The licence that the kernel asks for: some helpers are only for GPL-compatible programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    // SAFETY: the verifier refuses a program in which this can be reached, so it never is.
    unsafe { core::hint::unreachable_unchecked() }
}
