//! A refusal as it is kept: explained only when somebody asks.

use std::net::IpAddr;

use l7egg_ebpf_common::abi::{Direction, Event, EventKind};
use l7egg_policy::{DomainName, Flow, Judgement, ReadSpecs};

use super::DeniedVerdict;
use crate::explain::{Explainer, Whose};

/// A name by which the pod learned an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learned {
    /// The name.
    pub name: DomainName,
    /// Its TTL has run out: it opens nothing any more.
    pub is_over: bool,
}

/// One flow that was refused, or would have been.
#[derive(Clone, Debug)]
pub struct Record {
    /// The last event about it.
    pub event: Event,
    /// What became of it.
    pub verdict: DeniedVerdict,
    /// Whose it is, once that is known.
    pub whose: Option<Whose>,
    /// The names of its destination.
    pub names: Vec<Learned>,
    /// When the first event came, on the kernel's clock.
    pub first_ns: u64,
    /// How many came.
    pub count: u64,
}

impl Record {
    /// From an event; `None` for one that is about something else. `names` are those of its destination.
    #[must_use]
    pub fn new(event: Event, whose: Option<Whose>, names: impl FnOnce() -> Vec<Learned>) -> Option<Self> {
        let verdict = verdict(&event)?;
        Some(Record { verdict, first_ns: event.at_ns, count: 1, event, whose, names: names() })
    }

    /// What was to be sent.
    #[must_use]
    pub fn flow(&self) -> Flow {
        Flow {
            protocol: self.event.protocol,
            address: self.address(),
            port: self.event.remote_port,
            direction: Direction::Egress,
        }
    }

    /// Where to.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        IpAddr::from(self.event.remote)
    }

    /// What the Eggs of its pod say of it now.
    #[must_use]
    pub fn judgement<'a>(&self, pod: &'a Explainer, specs: &ReadSpecs<'a>) -> Judgement {
        let live: Vec<DomainName> = self
            .names
            .iter()
            .filter(|learned| !learned.is_over)
            .map(|learned| learned.name.clone())
            .collect();
        let container = self.whose.as_ref().and_then(|whose| whose.container.as_deref());
        pod.judge(specs, container, &live, self.flow())
    }

    /// Name of the thread that asked for it, where a call did.
    #[must_use]
    pub fn comm(&self) -> Option<String> {
        let end = self.event.comm.iter().position(|byte| *byte == 0).unwrap_or(self.event.comm.len());
        (self.event.process != 0).then(|| String::from_utf8_lossy(&self.event.comm[..end]).into_owned())
    }
}

/// What an event says became of a flow, if it is about one that was refused.
fn verdict(event: &Event) -> Option<DeniedVerdict> {
    const DENIED: u32 = EventKind::Denied as u32;
    const AUDIT_DENIED: u32 = EventKind::AuditDenied as u32;
    match event.kind {
        DENIED => Some(DeniedVerdict::Denied),
        AUDIT_DENIED => Some(DeniedVerdict::Audit),
        _ => None,
    }
}
