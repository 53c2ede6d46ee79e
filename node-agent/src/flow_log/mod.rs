//! What was denied, and what would have been: the last few thousand flows, each once, with their count.
//!
//! ```text
//! kernel event ─► record ─► FlowLog ◄─ GET /denied ◄─ l7egg-node-agent denied
//! ```

mod denied;
mod record;
pub mod show;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub use denied::{DeniedFlow, DeniedVerdict, Process};
use l7egg_ebpf_common::abi::Address;
use l7egg_policy::ReadSpecs;
pub use record::{Learned, Record};

use crate::explain::Explainer;

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
    /// Those of which it is not known whose they are.
    unnamed: BTreeSet<u64>,
}

/// Who can explain what the kernel reports, by the id that it knows pods and containers by.
pub type Explainers = BTreeMap<u32, Arc<Explainer>>;

/// What makes two refusals one flow.
type Key = (u32, DeniedVerdict, Address, u16, u8, [u8; 16]);

impl FlowLog {
    /// Takes a refusal in. One like it before makes the two one, with the newer's details.
    pub fn add(&self, mut record: Record) {
        let mut flows = self.flows();
        if let Some(before) = flows.by_key.get(&key(&record)).copied().and_then(|number| flows.take(number)) {
            record.first_ns = before.first_ns;
            record.count += before.count;
            record.whose = record.whose.or(before.whose);
        }
        flows.put(record);
        if flows.records.len() > FLOWS_MAX
            && let Some(oldest) = flows.records.keys().next().copied()
        {
            flows.take(oldest);
        }
    }

    /// Says whose flows are of which that was not known when they came: the kernel enforces for a pod before the pass ends that tells
    /// of it. They count as changed.
    pub fn name(&self, pods: &Explainers) {
        let mut flows = self.flows();
        for number in std::mem::take(&mut flows.unnamed) {
            match flows.records.get(&number).and_then(|record| pods.get(&record.event.subject)) {
                Some(pod) => {
                    let Some(record) = flows.take(number) else { continue };
                    flows.put(Record { whose: Some(pod.whose()), ..record });
                }
                None => _ = flows.unnamed.insert(number),
            }
        }
    }

    /// The flows that were seen after the change of this number, oldest first, of one pod if it is given; explained by what `pods` say
    /// now.
    #[must_use]
    pub fn since(&self, number: u64, pod: Option<&str>, pods: &Explainers) -> Vec<DeniedFlow> {
        self.name(pods);
        // Explained outside the lock: that reads patterns.
        let records: Vec<(u64, Record)> = {
            let flows = self.flows();
            let newer = flows.records.range(number.saturating_add(1)..);
            let is_wanted = |record: &Record| {
                pod.is_none_or(|pod| record.whose.as_ref().is_some_and(|whose| whose.pod == pod))
            };
            let wanted = newer.filter(|(_, record)| is_wanted(record));
            wanted.map(|(number, record)| (*number, record.clone())).collect()
        };
        // Not by the kernel's id: a container that has begun anew has another.
        let by_uid: HashMap<&str, &Explainer> =
            pods.values().map(|pod| (pod.uid.as_str(), pod.as_ref())).collect();
        let specs = ReadSpecs::default();
        let explained = records.iter().map(|(number, record)| {
            let pod = record.whose.as_ref().and_then(|whose| by_uid.get(whose.uid.as_str()).copied());
            denied::of(*number, record, pod, &specs)
        });
        explained.collect()
    }

    /// A panic elsewhere leaves whole records behind.
    fn flows(&self) -> MutexGuard<'_, Flows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flows {
    /// As the newest.
    fn put(&mut self, record: Record) {
        self.last += 1;
        self.by_key.insert(key(&record), self.last);
        if record.whose.is_none() {
            self.unnamed.insert(self.last);
        }
        self.records.insert(self.last, record);
    }

    fn take(&mut self, number: u64) -> Option<Record> {
        let record = self.records.remove(&number)?;
        self.by_key.remove(&key(&record));
        self.unnamed.remove(&number);
        Some(record)
    }
}

fn key(record: &Record) -> Key {
    let event = &record.event;
    (event.subject, record.verdict, event.remote, event.remote_port, event.protocol, event.comm)
}

#[cfg(test)]
mod tests;
