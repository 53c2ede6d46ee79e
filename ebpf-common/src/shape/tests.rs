use std::sync::atomic::Ordering;

use proptest::prelude::*;

use super::*;
use crate::atomics::Std;

const SECOND: u64 = 1_000_000_000;
/// 10 Mbit/s.
const RATE: u64 = 1_250_000;

static NO_CLOCK: Clock =
    Clock { all_ns: AtomicU64::new(0), sparse_ns: AtomicU64::new(0), bytes_per_second: AtomicU64::new(0) };
static NO_CAP: Cap = Cap { bytes_per_second: 0, burst_ns: 0, horizon_ns: 0, mark_ns: 0, sparse_burst_ns: 0 };
const NO_LEVEL: Level<'static> = Level { cap: &NO_CAP, clock: &NO_CLOCK };

fn cap(bytes_per_second: u64) -> Cap {
    Cap {
        bytes_per_second,
        burst_ns: 0,
        horizon_ns: SECOND,
        mark_ns: SECOND / 10,
        sparse_burst_ns: SPARSE_SHARE * cost_ns(2 * 1514, bytes_per_second),
    }
}

/// Caps with their clocks, and flows.
struct Shaper {
    caps: Vec<(Cap, Clock)>,
    flows: Vec<FlowClock>,
}

impl Shaper {
    fn new(rates: &[u64]) -> Self {
        Self {
            caps: rates.iter().map(|rate| (cap(*rate), Clock::default())).collect(),
            flows: vec![FlowClock::default(); 32],
        }
    }

    fn send(&mut self, now_ns: u64, bytes: u32, flow: usize) -> Decision {
        let mut levels = [NO_LEVEL; CAPS_PER_POD];
        for (level, (cap, clock)) in levels.iter_mut().zip(&self.caps) {
            *level = Level { cap, clock };
        }
        decide::<Std>(&Packet { now_ns, bytes, earliest_ns: 0 }, &levels, &mut self.flows[flow])
    }

    fn departure(&mut self, now_ns: u64, bytes: u32, flow: usize) -> u64 {
        match self.send(now_ns, bytes, flow) {
            Decision::Depart { at_ns, .. } => at_ns,
            Decision::Drop { .. } => panic!("dropped at {now_ns}"),
        }
    }
}

#[test]
fn bulk_leaves_at_the_rate() {
    let mut shaper = Shaper::new(&[RATE]);
    let departures: Vec<u64> = (0..500).map(|_| shaper.departure(SECOND, 1250, 0)).collect();
    assert_eq!(departures[499] - departures[99], 400 * SECOND / 1000);
}

#[test]
fn a_sparse_flow_does_not_wait_behind_bulk_and_its_bytes_count() {
    let mut shaper = Shaper::new(&[RATE]);
    for _ in 0..200 {
        shaper.departure(SECOND, 1250, 0);
    }
    let before = shaper.caps[0].1.all_ns.load(Ordering::Relaxed);
    assert_eq!(shaper.departure(SECOND, 100, 1), SECOND);
    assert_eq!(shaper.caps[0].1.all_ns.load(Ordering::Relaxed), before + cost_ns(100, RATE));
}

#[test]
fn a_flow_that_sends_more_than_its_share_is_bulk() {
    let mut shaper = Shaper::new(&[RATE]);
    for _ in 0..200 {
        shaper.departure(SECOND, 1250, 0);
    }
    // Two packets at once are a small request, the tenth is not.
    let now = SECOND + SECOND / 10;
    let departures: Vec<u64> = (0..10).map(|_| shaper.departure(now, 1250, 1)).collect();
    assert_eq!(departures[1], now);
    assert!(departures[9] > now + SECOND / 10);
    // Once it is silent for long enough it is sparse again.
    let later = 3 * SECOND;
    for _ in 0..200 {
        shaper.departure(later, 1250, 0);
    }
    let later = later + SECOND / 10;
    assert_eq!(shaper.departure(later, 1250, 1), later);
}

#[test]
fn many_new_connections_at_once_keep_to_the_rate_and_leave_pings_their_way() {
    // 1 Mbit/s, sixteen connections that begin with ten frames each: two seconds.
    let mut shaper = Shaper::new(&[RATE / 10]);
    shaper.caps[0].0.burst_ns = cost_ns(1514, RATE / 10);
    shaper.caps[0].0.horizon_ns = 8 * SECOND;
    let mut first_second = 0;
    for _ in 0..10 {
        for flow in 0..16 {
            first_second += u64::from(shaper.departure(SECOND, 1514, flow) < 2 * SECOND) * 1514;
        }
    }
    let mut late = 0;
    for n in 1..10 {
        let now = SECOND + n * SECOND / 10;
        late += u32::from(shaper.departure(now, 66, 16) > now);
    }
    assert!(first_second * 100 <= RATE / 10 * 105, "{first_second}");
    assert!(late <= 1, "{late}");
}

#[test]
fn the_strictest_of_several_caps_holds() {
    for rates in [[RATE, 4 * RATE, 9 * RATE], [9 * RATE, RATE, 4 * RATE], [4 * RATE, 9 * RATE, RATE]] {
        let mut shaper = Shaper::new(&rates);
        let departures: Vec<u64> = (0..500).map(|_| shaper.departure(SECOND, 1250, 0)).collect();
        assert_eq!(departures[499] - departures[99], 400 * SECOND / 1000);
        let strictest = rates.iter().position(|rate| *rate == RATE).unwrap();
        assert!(matches!(shaper.send(SECOND, 1250, 0), Decision::Depart { level, .. } if level == strictest));
    }
}

#[test]
fn pods_share_the_cap_above_them() {
    let shared = Clock::default();
    let own = [Clock::default(), Clock::default()];
    let (shared_cap, own_cap) = (cap(RATE), cap(3 * RATE));
    let mut flows = [FlowClock::default(); 2];
    let mut last = 0;
    for n in 0..600 {
        let levels = [
            Level { cap: &own_cap, clock: &own[n % 2] },
            Level { cap: &shared_cap, clock: &shared },
            NO_LEVEL,
            NO_LEVEL,
        ];
        let packet = Packet { now_ns: SECOND, bytes: 1250, earliest_ns: 0 };
        match decide::<Std>(&packet, &levels, &mut flows[n % 2]) {
            Decision::Depart { at_ns, .. } => last = at_ns,
            Decision::Drop { .. } => panic!("dropped"),
        }
    }
    let took = last - SECOND;
    assert!((595 * SECOND / 1000..600 * SECOND / 1000).contains(&took), "{took}");
}

#[test]
fn marks_come_before_drops_and_drops_cost_nothing() {
    let mut shaper = Shaper::new(&[RATE]);
    let mut first_mark = None;
    let mut dropped = 0;
    for n in 0..2000 {
        match shaper.send(SECOND, 1250, 0) {
            Decision::Depart { mark: true, .. } => {
                first_mark.get_or_insert(n);
            }
            Decision::Depart { .. } => {}
            Decision::Drop { .. } => dropped += 1,
        }
    }
    assert!((95..110).contains(&first_mark.unwrap()), "{first_mark:?}");
    assert!((990..1000).contains(&dropped), "{dropped}");
    let shown = shaper.caps[0].1.all_ns.load(Ordering::Relaxed);
    assert!(shown <= 2 * SECOND + SECOND / 500, "{shown}");
}

#[test]
fn a_silence_is_worth_the_burst_and_no_more() {
    let mut shaper = Shaper::new(&[RATE]);
    shaper.caps[0].0.burst_ns = SECOND / 100;
    shaper.departure(SECOND, 1250, 0);
    let now = 9 * SECOND;
    let at_once = (0..100).filter(|_| shaper.departure(now, 1250, 0) == now).count();
    // Ten, and the one for which the clock has just come to now; the first two are sparse as well.
    assert!((10..=13).contains(&at_once), "{at_once}");
}

#[test]
fn a_higher_rate_takes_effect_at_once_and_a_lower_one_without_a_pause() {
    let mut shaper = Shaper::new(&[RATE]);
    for _ in 0..400 {
        shaper.departure(SECOND, 1250, 0);
    }
    shaper.caps[0].0 = cap(10 * RATE);
    let next = shaper.departure(SECOND, 1250, 1);
    let next = next.max(shaper.departure(SECOND, 1250, 2)).max(shaper.departure(SECOND, 1250, 3));
    assert!(next <= SECOND + 45 * SECOND / 1000, "{}", next - SECOND);
    let all = || shaper.caps[0].1.all_ns.load(Ordering::Relaxed);
    assert!(all() <= SECOND + 45 * SECOND / 1000);
    let before = all();
    shaper.caps[0].0 = cap(RATE);
    shaper.departure(SECOND, 1250, 4);
    let after = shaper.caps[0].1.all_ns.load(Ordering::Relaxed);
    assert_eq!(after, before + cost_ns(1250, RATE));
}

#[test]
fn a_socket_that_paces_itself_is_heard_and_nonsense_is_not() {
    let shaper = Shaper::new(&[RATE]);
    let (cap, clock) = &shaper.caps[0];
    let levels = [Level { cap, clock }, NO_LEVEL, NO_LEVEL, NO_LEVEL];
    let at = |earliest_ns| {
        let packet = Packet { now_ns: SECOND, bytes: 100, earliest_ns };
        match decide::<Std>(&packet, &levels, &mut FlowClock::default()) {
            Decision::Depart { at_ns, .. } => at_ns,
            Decision::Drop { .. } => panic!("dropped"),
        }
    };
    assert_eq!(at(SECOND + 5_000_000), SECOND + 5_000_000);
    assert!(at(1_700_000_000 * SECOND) < SECOND + SECOND / 1000);
    assert!(at(u64::MAX) < SECOND + SECOND / 1000);
    assert!(at(1) < SECOND + SECOND / 1000);
}

proptest! {
    /// Whatever arrives: no flow is reordered, nothing leaves before now, and every cap counts every byte.
    #[test]
    fn caps_hold(
        packets in prop::collection::vec((0u64..3_000_000, 60u32..9_000, 0usize..8), 1..400),
        rates in prop::collection::vec(10_000u64..100_000_000, 1..4),
    ) {
        let mut shaper = Shaper::new(&rates);
        for (cap, _) in &mut shaper.caps {
            cap.horizon_ns = 8 * SECOND;
        }
        let mut now = SECOND;
        let mut last = [0; 8];
        let mut sent = 0;
        for (gap, bytes, flow) in packets {
            now += gap;
            if let Decision::Depart { at_ns, .. } = shaper.send(now, bytes, flow) {
                prop_assert!(at_ns >= now);
                prop_assert!(at_ns >= last[flow], "flow {flow} reordered");
                last[flow] = at_ns;
                sent += u64::from(bytes);
            }
        }
        // The clock of every cap has counted every byte: it shows at least the time that they take.
        for (cap, clock) in &shaper.caps {
            let took = clock.all_ns.load(Ordering::Relaxed).saturating_sub(SECOND);
            let least = sent * SECOND / cap.bytes_per_second;
            prop_assert!(took + 400 >= least, "{took} < {least}");
        }
    }

    /// Nothing overflows or divides by zero, whatever is in the maps.
    #[test]
    fn nonsense_is_survived(
        caps in prop::collection::vec(any::<(u64, u64, u64, u64, u64)>(), 0..=CAPS_PER_POD),
        packet in any::<(u32, u32, u64)>(),
        flow in any::<(u32, u32)>(),
    ) {
        let caps: Vec<(Cap, Clock)> = caps.into_iter().map(|(rate, burst, horizon, mark, sparse)| (Cap {
            bytes_per_second: rate >> 24,
            burst_ns: burst >> 24,
            horizon_ns: horizon >> 24,
            mark_ns: mark >> 24,
            sparse_burst_ns: sparse >> 24,
        }, Clock::default())).collect();
        let mut shaper = Shaper { caps, flows: vec![FlowClock {
            virtual_ns: flow.0.into(), departure_ns: flow.1.into(),
        }] };
        shaper.send(packet.0.into(), packet.1, 0);
        shaper.send(u64::from(packet.0) + SECOND, packet.1, 0);
    }
}
