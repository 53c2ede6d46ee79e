//! What the agent counts, in the OpenMetrics text format.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use l7egg_crds::PodState;
use l7egg_ebpf_common::abi::{COUNTERS, Event, EventKind};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{
        MetricType,
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::ConstGauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use tokio::sync::watch;

use crate::{
    datapath::Counters,
    hold::HELD,
    kinds::Kind,
    limits::Limit,
    reconcile::Outcome,
    shaping_metrics::{NamedCounts, ShapingCounters},
};

/// Names of [`l7egg_ebpf_common::abi::Counter`], by index.
const COUNTER_NAMES: [&str; COUNTERS as usize] = [
    "allowed",
    "denied",
    "malformed",
    "queries_noted",
    "queries_unreadable",
    "addresses_learned",
    "learned_full",
    "answers_unreadable",
    "answers_unasked",
    "events_lost",
    "scratch_busy",
    "unconfigured",
    "queries_refused",
    "answers_dropped",
    "audit_denied",
    "spoofed",
    "share_reached",
];

/// Metrics that the agent's parts write to.
#[derive(Debug)]
pub struct Metrics {
    waited: Histogram,
    enforce: Histogram,
    turn: Histogram,
    failures: Counter,
    resets: Counter,
    held: Counter,
    let_go: Counter,
    events: Family<EventLabels, Counter>,
    datapath: Arc<DatapathCounters>,
    shaping: Arc<ShapingCounters>,
    started: Instant,
    alive_ms: AtomicU64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    kind: &'static str,
}

impl Metrics {
    /// Metrics in a registry.
    pub fn new(registry: &mut Registry) -> Self {
        let times = || Histogram::new(exponential_buckets(0.000_1, 2.0, 16));
        let metrics = Metrics {
            waited: times(),
            enforce: times(),
            turn: times(),
            failures: Counter::default(),
            resets: Counter::default(),
            held: Counter::default(),
            let_go: Counter::default(),
            events: Family::default(),
            datapath: Arc::default(),
            shaping: Arc::default(),
            started: Instant::now(),
            alive_ms: AtomicU64::new(0),
        };
        registry.register(
            "l7egg_agent_wait_seconds",
            "From when a pod's cgroup and assignment were both known to its policy being in force",
            metrics.waited.clone(),
        );
        registry.register(
            "l7egg_agent_enforce_seconds",
            "Time that the kernel took to put one policy in force for one pod",
            metrics.enforce.clone(),
        );
        registry.register(
            "l7egg_agent_turn_seconds",
            "Time that one turn of the loop that enforces took; new pods and containers wait for it",
            metrics.turn.clone(),
        );
        registry.register(
            "l7egg_agent_failures",
            "Attempts to enforce or release a pod that the kernel refused",
            metrics.failures.clone(),
        );
        registry.register(
            "l7egg_agent_connections_reset",
            "TCP connections that were reset: a changed policy does not allow them, or they lead to a resolver and could not be read",
            metrics.resets.clone(),
        );
        registry.register(
            "l7egg_agent_pods_held",
            "Pods that were held because their policy was not there yet when their cgroup appeared",
            metrics.held.clone(),
        );
        registry.register(
            "l7egg_agent_pods_let_go",
            "Pods that were held for as long as --hold-for allows and let go without a policy",
            metrics.let_go.clone(),
        );
        registry.register("l7egg_datapath_events", "Events read from the kernel", metrics.events.clone());
        registry.register_collector(Box::new(Arc::clone(&metrics.datapath)));
        registry.register_collector(Box::new(Arc::clone(&metrics.shaping)));
        metrics
    }

    /// A pod waited this long although everything was there.
    pub fn waited(&self, time: Duration) {
        self.waited.observe(time.as_secs_f64());
    }

    /// A pod is held.
    pub fn held(&self) {
        self.held.inc();
    }

    /// A pod was let go without a policy.
    pub fn let_go(&self) {
        self.let_go.inc();
    }

    /// A policy was put in force within this time.
    pub fn enforced(&self, time: Duration) {
        self.enforce.observe(time.as_secs_f64());
    }

    /// A turn of the loop took this time.
    pub fn turned(&self, time: Duration) {
        self.turn.observe(time.as_secs_f64());
    }

    /// The kernel refused something.
    pub fn failed(&self) {
        self.failures.inc();
    }

    /// So many connections were reset.
    pub fn reset(&self, connections: usize) {
        self.resets.inc_by(connections as u64);
    }

    /// An event came from the kernel.
    pub fn event(&self, event: &Event) {
        self.events.get_or_create(&EventLabels { kind: kind(event) }).inc();
    }

    /// What the programs have counted.
    pub fn datapath(&self, counters: Counters) {
        for (total, now) in self.datapath.0.iter().zip(counters) {
            total.store(now, Ordering::Relaxed);
        }
    }

    /// What the shaping programs have counted.
    pub fn shaping(&self, counts: NamedCounts) {
        self.shaping.set(counts);
    }

    /// The reconciler has made its round.
    pub fn alive(&self) {
        self.alive_ms.store(self.started.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// How long ago that was.
    pub fn since_alive(&self) -> Duration {
        self.started.elapsed().saturating_sub(Duration::from_millis(self.alive_ms.load(Ordering::Relaxed)))
    }
}

/// Name of an event's kind.
#[must_use]
pub fn kind(event: &Event) -> &'static str {
    const DENIED: u32 = EventKind::Denied as u32;
    const LEARNED: u32 = EventKind::Learned as u32;
    const LEARNED_FULL: u32 = EventKind::LearnedFull as u32;
    const AUDIT_DENIED: u32 = EventKind::AuditDenied as u32;
    match event.kind {
        DENIED => "denied",
        LEARNED => "learned",
        LEARNED_FULL => "learned_full",
        AUDIT_DENIED => "audit_denied",
        _ => "unknown",
    }
}

#[derive(Debug, Default)]
struct DatapathCounters([AtomicU64; COUNTERS as usize]);

impl Collector for DatapathCounters {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let mut family = encoder.encode_descriptor(
            "l7egg_datapath",
            "What the kernel programs of this node counted",
            None,
            MetricType::Counter,
        )?;
        for (name, total) in COUNTER_NAMES.iter().zip(&self.0) {
            ConstCounter::new(total.load(Ordering::Relaxed))
                .encode(family.encode_family(&[("counter", *name)])?)?;
        }
        Ok(())
    }
}

/// Counts what the last pass found.
#[derive(Debug)]
pub struct OutcomeCollector(pub watch::Receiver<Arc<Outcome>>);

impl Collector for OutcomeCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let outcome = Arc::clone(&self.0.borrow());
        let state = &outcome.state;
        let mut pods =
            encoder.encode_descriptor("l7egg_agent_pods", "Pods by state", None, MetricType::Gauge)?;
        for (name, wanted) in [
            ("enforced", PodState::Enforced),
            ("audited", PodState::Audited),
            ("pending", PodState::Pending),
            ("failed", PodState::Failed),
        ] {
            let count = state.pods.iter().filter(|pod| pod.state == wanted && pod.reason != HELD).count();
            ConstGauge::new(count as i64).encode(pods.encode_family(&[("state", name)])?)?;
        }
        let held = state.pods.iter().filter(|pod| pod.reason == HELD).count();
        ConstGauge::new(held as i64).encode(pods.encode_family(&[("state", "held")])?)?;
        let mut limits = encoder.encode_descriptor(
            "l7egg_agent_limit_reached",
            "1 while something new is turned away because this is full, and a minute longer, or more if it comes again and again",
            None,
            MetricType::Gauge,
        )?;
        for limit in Limit::ALL {
            let reached = state.limits.contains(&limit);
            ConstGauge::new(i64::from(reached)).encode(limits.encode_family(&[("limit", limit.name())])?)?;
        }
        let mut unwatched = encoder.encode_descriptor(
            "l7egg_agent_unwatched",
            "1 while the API server cannot be asked for changes of these objects, and up to two minutes longer",
            None,
            MetricType::Gauge,
        )?;
        for kind in Kind::ALL.map(|kind| kind.to_string()) {
            let is_lost = state.unwatched.iter().any(|lost| lost.kind == kind);
            let labels = [("kind", kind.as_str())];
            ConstGauge::new(i64::from(is_lost)).encode(unwatched.encode_family(&labels)?)?;
        }
        for (name, help, value) in [
            ("l7egg_agent_assignments", "Assignments of this node", state.assignments.len()),
            (
                "l7egg_agent_assignments_unreadable",
                "Assignments that cannot be read",
                state.assignments.iter().filter(|assignment| assignment.unreadable.is_some()).count(),
            ),
            ("l7egg_agent_policies", "Different policies of this node's pods", state.policies.len()),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value as i64).encode(metric)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{AgentState, Unwatched};

    #[test]
    fn everything_is_in_the_text() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let lost = Unwatched { kind: "pods".into(), since: String::new(), error: "gone".into() };
        let state = AgentState { unwatched: vec![lost], ..AgentState::default() };
        let (_sender, outcome) = watch::channel(Arc::new(Outcome { state, ..Outcome::default() }));
        registry.register_collector(Box::new(OutcomeCollector(outcome)));
        let mut counters = [0; COUNTERS as usize];
        counters[l7egg_ebpf_common::abi::Counter::Denied as usize] = 5;
        metrics.datapath(counters);
        metrics.event(&Event { kind: EventKind::Denied as u32, ..Event::default() });
        metrics.failed();
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "l7egg_datapath_total{counter=\"denied\"} 5",
            "l7egg_datapath_events_total{kind=\"denied\"} 1",
            "l7egg_agent_failures_total 1",
            "l7egg_agent_pods{state=\"failed\"} 0",
            "l7egg_agent_policies 0",
            "l7egg_agent_unwatched{kind=\"pods\"} 1",
            "l7egg_agent_unwatched{kind=\"eggassignments\"} 0",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn counters_have_their_names() {
        use l7egg_ebpf_common::abi::Counter as C;
        assert_eq!(COUNTER_NAMES[C::Allowed as usize], "allowed");
        assert_eq!(COUNTER_NAMES[C::LearnedFull as usize], "learned_full");
        assert_eq!(COUNTER_NAMES[C::Unconfigured as usize], "unconfigured");
        assert_eq!(COUNTER_NAMES[C::AnswersDropped as usize], "answers_dropped");
        assert_eq!(COUNTER_NAMES[C::AuditDenied as usize], "audit_denied");
    }
}
