//! What bandwidth limits did to packets, by pod and by cap, in the OpenMetrics text format.

use std::sync::{Mutex, PoisonError};

use l7egg_ebpf_common::abi::ShapeCounts;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter},
};

/// Counts by what they are of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedCounts {
    /// `namespace/name` of the pod, and its counts.
    pub pods: Vec<(String, ShapeCounts)>,
    /// What the cap is for (`Egg shop/checkout`), and its counts.
    pub caps: Vec<(String, ShapeCounts)>,
}

/// The newest counts.
#[derive(Debug, Default)]
pub struct ShapingCounters(Mutex<NamedCounts>);

impl ShapingCounters {
    /// Takes them.
    pub fn set(&self, counts: NamedCounts) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = counts;
    }
}

/// A family of counters: end of its name, help, and which count it is.
type Figure = (&'static str, &'static str, fn(&ShapeCounts) -> f64);

const FIGURES: [Figure; 6] = [
    ("bytes", "Bytes on the wire", |counts| counts.bytes as f64),
    ("packets", "Packets", |counts| counts.packets as f64),
    ("delayed_packets", "Packets that had to wait", |counts| counts.delayed as f64),
    ("delay_seconds", "Time that packets waited, together", |counts| counts.delay_ns as f64 / 1e9),
    ("marked_packets", "Packets marked (ECN)", |counts| counts.marked as f64),
    ("dropped_packets", "Packets that would have had to wait too long", |counts| counts.dropped as f64),
];

impl Collector for ShapingCounters {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (prefix, label, of, all) in [
            ("l7egg_shaped_pod", "pod", "of pods with bandwidth limits", &counts.pods),
            ("l7egg_cap", "cap", "under a bandwidth limit that pods share", &counts.caps),
        ] {
            for (name, help, figure) in FIGURES {
                let (name, help) = (format!("{prefix}_{name}"), format!("{help}, {of}"));
                let mut family = encoder.encode_descriptor(&name, &help, None, MetricType::Counter)?;
                for (value, counts) in all {
                    ConstCounter::new(figure(counts))
                        .encode(family.encode_family(&[(label, value.as_str())])?)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn by_pod_and_by_cap() {
        let counters = Arc::new(ShapingCounters::default());
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Arc::clone(&counters)));
        let counts =
            ShapeCounts { bytes: 9, packets: 3, delayed: 2, delay_ns: 1_500_000_000, ..Default::default() };
        counters.set(NamedCounts {
            pods: vec![("shop/a".into(), counts)],
            caps: vec![("Egg shop/checkout".into(), counts)],
        });
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "l7egg_shaped_pod_bytes_total{pod=\"shop/a\"} 9",
            "l7egg_shaped_pod_delay_seconds_total{pod=\"shop/a\"} 1.5",
            "l7egg_cap_delayed_packets_total{cap=\"Egg shop/checkout\"} 2",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
