//! A refused flow as people and programs read it.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use l7egg_ebpf_common::abi::protocol;
use l7egg_policy::{Judgement, ReadSpecs, Verdict, Why};
use serde::{Deserialize, Serialize};

use super::Record;
use crate::{clock, explain::Explainer};

/// One flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeniedFlow {
    /// Grows with every change: give the greatest one back as `after` to get what is newer.
    pub number: u64,
    /// Whether it was denied or would have been.
    pub verdict: DeniedVerdict,
    /// Namespace and name of the pod; empty while it is not known, as of one that has just begun.
    pub pod: String,
    /// Uid of the pod, if that is known.
    pub uid: String,
    /// The address.
    pub destination: String,
    /// The port, 0 for protocols without.
    pub port: u16,
    /// `TCP`, `UDP`, `SCTP`, `ICMP`, or a number.
    pub protocol: String,
    /// Names by which the pod learned the address; `(expired)` behind those whose TTL has run out.
    pub names: Vec<String>,
    /// The rule that denies it, or the first that allows the destination on other ports: `Egg shop/a spec.egress[0]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Why, in words.
    pub why: String,
    /// Who asked for it, where a system call did; packets do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// When it was first seen (RFC 3339).
    pub first: String,
    /// When it was last seen.
    pub last: String,
    /// How often it was seen.
    pub count: u64,
}

/// What became of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DeniedVerdict {
    /// It was denied.
    Denied,
    /// It passed, and would be denied if all Eggs were enforced.
    Audit,
}

/// A process of the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its id, as the node sees it.
    pub pid: u32,
    /// The name of the thread.
    pub comm: String,
}

/// A record, explained by what its pod's Eggs say now, if there is such a pod.
pub fn of<'a>(number: u64, record: &Record, pod: Option<&'a Explainer>, specs: &ReadSpecs<'a>) -> DeniedFlow {
    let (rule, why) = explain(record, pod, specs);
    let names = record.names.iter().map(|learned| {
        if learned.is_over { format!("{} (expired)", learned.name) } else { learned.name.to_string() }
    });
    DeniedFlow {
        number,
        verdict: record.verdict,
        pod: record.whose.as_ref().map(|whose| whose.pod.clone()).unwrap_or_default(),
        uid: record.whose.as_ref().map(|whose| whose.uid.clone()).unwrap_or_default(),
        destination: record.address().to_string(),
        port: record.event.remote_port,
        protocol: protocol_name(record.event.protocol),
        names: names.collect(),
        rule,
        why,
        process: record.comm().map(|comm| Process { pid: record.event.process, comm }),
        first: wall_clock(record.first_ns),
        last: wall_clock(record.event.at_ns),
        count: record.count,
    }
}

/// The rule and the reason.
fn explain<'a>(
    record: &Record,
    pod: Option<&'a Explainer>,
    specs: &ReadSpecs<'a>,
) -> (Option<String>, String) {
    let Some(pod) = pod else {
        let why = match record.whose {
            Some(_) => "the pod is gone, or no Egg is for it any more",
            None => "it is not known of which pod: of one that has just begun, or is gone",
        };
        return (None, why.to_owned());
    };
    let Judgement { verdict, why } = record.judgement(pod, specs);
    if verdict == Verdict::Allow {
        return (None, format!("its Eggs have changed since, or a name was learned; now allowed: {why}"));
    }
    let rule = match &why {
        Why::Rule(rule, _) => Some(rule),
        Why::NoRule(others) => others.first(),
        _ => None,
    };
    (rule.map(ToString::to_string), why.to_string())
}

fn protocol_name(number: u8) -> String {
    match number {
        protocol::TCP => "TCP".to_owned(),
        protocol::UDP => "UDP".to_owned(),
        protocol::SCTP => "SCTP".to_owned(),
        protocol::ICMP => "ICMP".to_owned(),
        number => number.to_string(),
    }
}

/// RFC 3339, in milliseconds, of a time of the maps' clock.
fn wall_clock(at_ns: u64) -> String {
    let ago = Duration::from_nanos(clock::boot_ns().saturating_sub(at_ns));
    let at: DateTime<Utc> = (std::time::SystemTime::now() - ago).into();
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}
