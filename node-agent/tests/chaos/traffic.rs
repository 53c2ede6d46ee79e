//! What the pod does all the while, and what may become of it.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use libtest_mimic::Failed;
use serde_json::Value;

use crate::harness::{Held, Setup, binary, is_without_a_pause};

/// Seconds of traffic.
pub const SECONDS: u64 = 60;
/// Connections a second. Half of them are to names, so that there are as many lookups (A and AAAA have a query each).
const RATE: u32 = 400;
/// However slow the machine is, none is left out: those that are late are made afterwards. Half of them are allowed.
const EACH: u64 = RATE as u64 * SECONDS / 2;

/// Connections that begin, and one that goes on.
pub struct Traffic {
    load: Child,
    held: Held,
}

impl Traffic {
    /// From the pod's network and this cgroup.
    pub fn start(setup: &Setup, cgroup: &Path) -> Result<Self, Failed> {
        let allowed = [
            "tcp4://n{}.fresh.test:80",
            "tcp://198.18.1.7:80",
            "tcp6://n{}.fresh.test:443",
            "tcp://[2001:db8:18:7::7]:80",
        ];
        let denied = [
            "tcp4://n{}.denied.test:80",
            "tcp://198.18.1.200:80",
            "tcp6://n{}.denied.test:443",
            "udp://198.18.9.1:123",
        ];
        let mut arguments = vec!["load".to_owned(), format!("--rate={RATE}"), format!("--seconds={SECONDS}")];
        arguments.extend(allowed.map(|target| format!("--allowed={target}")));
        arguments.extend(denied.map(|target| format!("--denied={target}")));
        let held = setup.pod.hold_in(cgroup, "tcp://198.18.1.1:80");
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let mut load = setup.pod.command_in(cgroup, &binary("probe"), &arguments);
        Ok(Self { load: load.stdout(Stdio::piped()).spawn()?, held })
    }

    /// Makes turns until it ends, each with its number. Says what came of it.
    pub fn until_end(
        mut self,
        what: &str,
        mut turn: impl FnMut(u32) -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        let mut turns = 0;
        while matches!(self.load.try_wait(), Ok(None)) {
            turn(turns)?;
            turns += 1;
        }
        let output = self.load.wait_with_output()?;
        let report: Value = serde_json::from_slice(&output.stdout)?;
        let held = self.held.end();
        let longest = Duration::from_micros(report["longest_allowed"].as_u64().unwrap_or(u64::MAX));
        println!(
            "chaos: {what}{} allowed, {} of them failed; {} denied, {} of them succeeded; {turns} agents killed; longest allowed {} ms",
            report["allowed"],
            report["allowed_failures"],
            report["denied"],
            report["denied_successes"],
            longest.as_millis(),
        );
        println!(
            "chaos: {what}a connection that was open all the while: {}, longest echo {} ms",
            held["outcome"],
            held["longest"].as_u64().unwrap_or(0) / 1000,
        );
        let wrong = [
            (report["allowed_failures"] != 0, "what is allowed failed"),
            (report["denied_successes"] != 0, "what is denied succeeded"),
            (report["allowed"] != EACH || report["denied"] != EACH, "some were not tried"),
            // Not by the time that it took: a busy machine stands still for as long.
            (report["later"] != 0, "a SYN or a message was lost on the way"),
            (report["second_queries"] != 0, "a query or its answer was lost on the way"),
            (held["outcome"] != "ok", "the open connection broke"),
            (!is_without_a_pause(&held), "the open connection stood still"),
        ];
        let wrong: Vec<_> = wrong.into_iter().filter_map(|(is_so, what)| is_so.then_some(what)).collect();
        if wrong.is_empty() { Ok(()) } else { Err(format!("{wrong:?}: {:#}", report["samples"]).into()) }
    }
}
