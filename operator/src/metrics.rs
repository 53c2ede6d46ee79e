//! What the operator counts.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::index::Sizes;

/// The operator's metrics. Clones count into the same numbers.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    writes: Family<WriteLabels, Counter>,
    write_seconds: WriteSeconds,
    watch_errors: Family<WhatLabel, Counter>,
    eggs: Gauge,
    rejected: Gauge,
    pods: Gauge,
    assignments: Gauge,
    queued: Gauge,
    leader: Gauge,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct WriteLabels {
    what: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct WhatLabel {
    what: &'static str,
}

impl Metrics {
    /// A request that writes has ended.
    pub fn wrote(&self, what: &'static str, ok: bool, took: Duration) {
        let result = if ok { "ok" } else { "error" };
        self.writes.get_or_create(&WriteLabels { what, result }).inc();
        self.write_seconds.0.get_or_create(&WhatLabel { what }).observe(took.as_secs_f64());
    }

    /// A watch has failed.
    pub fn watch_failed(&self, what: &'static str) {
        self.watch_errors.get_or_create(&WhatLabel { what }).inc();
    }

    /// How much there is, and how much of it is still to be looked at.
    pub fn sizes(&self, sizes: Sizes, queued: usize) {
        let set = |gauge: &Gauge, value: usize| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        set(&self.eggs, sizes.eggs);
        set(&self.rejected, sizes.rejected);
        set(&self.pods, sizes.pods);
        set(&self.assignments, sizes.assignments);
        set(&self.queued, queued);
    }

    /// Whether this operator is the one that writes.
    pub fn leader(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// All of it in the text format of OpenMetrics.
    pub fn encode(&self) -> String {
        let mut registry = Registry::with_prefix("l7egg_operator");
        registry.register("writes", "Requests that write", self.writes.clone());
        registry.register_with_unit(
            "write",
            "Time of requests that write",
            Unit::Seconds,
            self.write_seconds.0.clone(),
        );
        registry.register("watch_errors", "Errors of watches", self.watch_errors.clone());
        registry.register("eggs", "Eggs and ClusterEggs", self.eggs.clone());
        registry.register("eggs_rejected", "Eggs and ClusterEggs not accepted", self.rejected.clone());
        registry.register("pods", "Pods bound to a node and not finished", self.pods.clone());
        registry.register("assignments", "EggAssignments that exist", self.assignments.clone());
        registry.register("queued", "EggAssignments and statuses to be looked at", self.queued.clone());
        registry.register("leader", "1 if this operator writes", self.leader.clone());
        let mut out = String::new();
        // Writing into a String cannot fail.
        let _ = text::encode(&mut out, &registry);
        out
    }
}

#[derive(Clone, Debug)]
struct WriteSeconds(Family<WhatLabel, Histogram, fn() -> Histogram>);

impl Default for WriteSeconds {
    /// From 1 ms to 8 s.
    fn default() -> Self {
        WriteSeconds(Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 2.0, 14))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels() {
        let metrics = Metrics::default();
        metrics.wrote("assignment", true, Duration::from_millis(3));
        metrics.watch_failed("pods");
        metrics.sizes(Sizes { eggs: 2, rejected: 1, pods: 7, assignments: 3 }, 4);
        metrics.leader(true);
        let text = metrics.encode();
        for line in [
            "l7egg_operator_writes_total{what=\"assignment\",result=\"ok\"} 1",
            "l7egg_operator_write_seconds_count{what=\"assignment\"} 1",
            "l7egg_operator_watch_errors_total{what=\"pods\"} 1",
            "l7egg_operator_eggs 2",
            "l7egg_operator_queued 4",
            "l7egg_operator_leader 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
