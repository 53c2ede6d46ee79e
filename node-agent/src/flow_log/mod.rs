//! What was denied, and what would have been: the last few thousand flows, each once, with their count.
//!
//! ```text
//! kernel event ─► record ─► FlowLog ◄─ GET /denied ◄─ l7egg-node-agent denied
//! ```

mod denied;
mod record;
pub mod show;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

pub use denied::{DeniedFlow, DeniedVerdict, Process};
use l7egg_ebpf_common::abi::Address;
pub use record::{Learned, Record};

/// Flows that are kept. The one that was seen longest ago gives way.
pub const FLOWS_MAX: usize = 4096;

/// The flows.
#[derive(Debug, Default)]
pub struct FlowLog(Mutex<Flows>);

#[derive(Debug, Default)]
struct Flows {
    /// Number of the last change.
    last: u64,
    by_key: HashMap<Key, u64>,
    /// By the number of their last change.
    records: BTreeMap<u64, Record>,
}

/// What makes two refusals one flow.
type Key = (u32, DeniedVerdict, Address, u16, u8, [u8; 16]);

impl FlowLog {
    /// Takes a refusal in. One like it before makes the two one, with the newer's details.
    pub fn add(&self, mut record: Record) {
        let mut flows = self.flows();
        flows.last += 1;
        let number = flows.last;
        let key = key(&record);
        if let Some(before) =
            flows.by_key.insert(key, number).and_then(|before| flows.records.remove(&before))
        {
            record.first_ns = before.first_ns;
            record.count += before.count;
        }
        flows.records.insert(number, record);
        if flows.records.len() > FLOWS_MAX
            && let Some((_, oldest)) = flows.records.pop_first()
        {
            flows.by_key.remove(&self::key(&oldest));
        }
    }

    /// The flows that were seen after the change of this number, oldest first.
    #[must_use]
    pub fn since(&self, number: u64) -> Vec<DeniedFlow> {
        // Explained outside the lock: that reads patterns.
        let records: Vec<(u64, Record)> = {
            let flows = self.flows();
            let newer = flows.records.range(number.saturating_add(1)..);
            newer.map(|(number, record)| (*number, record.clone())).collect()
        };
        records.iter().map(|(number, record)| denied::of(*number, record)).collect()
    }

    /// A panic elsewhere leaves whole records behind.
    fn flows(&self) -> MutexGuard<'_, Flows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(record: &Record) -> Key {
    let event = &record.event;
    (event.subject, record.verdict, event.remote, event.remote_port, event.protocol, event.comm)
}

#[cfg(test)]
mod tests {
    use l7egg_ebpf_common::abi::{Event, EventKind, protocol};

    use super::*;

    fn record(last: u8, at_ms: u64) -> Record {
        let event = Event {
            at_ns: at_ms * 1_000_000,
            remote: Address::mapped([192, 0, 2, last]),
            remote_port: 443,
            protocol: protocol::TCP,
            kind: EventKind::Denied as u32,
            ..Event::default()
        };
        Record::new(event, None, Vec::new).unwrap()
    }

    #[test]
    fn the_same_again_is_one_flow() {
        let log = FlowLog::default();
        log.add(record(1, 10));
        log.add(record(2, 20));
        log.add(record(1, 30));
        let flows = log.since(0);
        let summary: Vec<_> = flows.iter().map(|flow| (flow.destination.as_str(), flow.count)).collect();
        assert_eq!(summary, [("192.0.2.2", 1), ("192.0.2.1", 2)]);
        assert!(flows[1].first < flows[1].last);
        assert_eq!(log.since(flows[0].number).len(), 1);
        assert!(log.since(flows[1].number).is_empty());
    }

    #[test]
    fn the_oldest_gives_way() {
        let log = FlowLog::default();
        for port in 0..=FLOWS_MAX as u16 {
            let mut one = record(1, u64::from(port));
            one.event.remote_port = port;
            log.add(one);
        }
        let flows = log.since(0);
        assert_eq!(flows.len(), FLOWS_MAX);
        assert_eq!(flows[0].port, 1);
        assert_eq!(log.flows().by_key.len(), FLOWS_MAX);
    }
}
