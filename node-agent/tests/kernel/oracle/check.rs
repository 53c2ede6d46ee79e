//! One case, through the programs and through the oracle.

use std::fmt;
use std::ops::AddAssign;
use std::time::{Duration, Instant};

use l7egg_ebpf_common::abi::protocol;
use l7egg_policy::Verdict;

use super::calls::Calls;
use super::case::{Case, Packet};
use super::meaning::{CONTAINERS, Meaning};
use super::runner::Runner;

/// Who makes calls.
pub struct Callers {
    /// In a pod that has one policy.
    pub pod: Calls,
    /// In a container of one that is divided.
    pub container: Calls,
}

impl Callers {
    /// Starts both.
    pub fn new() -> Self {
        Self { pod: Calls::new(""), container: Calls::new(CONTAINERS[0]) }
    }
}

/// What was judged alike.
#[derive(Clone, Copy, Debug, Default)]
pub struct Judged {
    /// Policies.
    pub policies: usize,
    /// Those that are a container's, in a pod that is divided.
    pub divided: usize,
    /// Packets, as the pod's program saw them.
    pub packets: usize,
    /// Queries, as it saw them.
    pub queries: usize,
    /// Of both, what it let pass.
    pub allowed: usize,
    /// The same once more as frames, as the backstop saw them.
    pub frames: usize,
    /// What the hooks for connect and sendmsg were asked.
    pub calls: usize,
}

impl Judged {
    /// Packets and queries.
    pub fn of_egress(&self) -> usize {
        self.packets + self.queries
    }
}

impl AddAssign for Judged {
    fn add_assign(&mut self, more: Self) {
        self.policies += more.policies;
        self.divided += more.divided;
        self.packets += more.packets;
        self.queries += more.queries;
        self.allowed += more.allowed;
        self.frames += more.frames;
        self.calls += more.calls;
    }
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { policies, divided, packets, queries, allowed, frames, calls } = self;
        write!(
            f,
            "{policies} policies, {divided} of them of one container of several; {packets} packets and {queries} queries at egress, {allowed} of them allowed, \
             {frames} frames at the backstop, {calls} calls of connect and sendmsg"
        )
    }
}

/// What was judged, or the first difference.
pub fn check(runner: &mut Runner, callers: &mut Callers, case: &Case) -> Result<Judged, String> {
    let meaning = Meaning::new(case);
    let begun = Instant::now();
    check_all(runner, callers, case, &meaning).or_else(|difference| {
        let is_short = case.history.iter().any(|answer| meaning.is_short(answer));
        if is_short && begun.elapsed() > SHORT { Ok(Judged::default()) } else { Err(difference) }
    })
}

/// A little less than what is believed for a second only.
const SHORT: Duration = Duration::from_millis(900);

fn check_all(
    runner: &mut Runner,
    callers: &mut Callers,
    case: &Case,
    meaning: &Meaning<'_>,
) -> Result<Judged, String> {
    let mut judged = Judged { policies: 1, ..Judged::default() };
    // Who is free has no program that could be run.
    if let Some(policy) = meaning.policy() {
        runner.enforce(&policy);
        at_egress(runner, case, meaning, &mut judged)?;
        judged.frames = frames(runner, case, meaning)?;
    }
    let division = meaning.division();
    judged.divided = usize::from(division.is_some());
    let calls = if division.is_some() { &mut callers.container } else { &mut callers.pod };
    match &division {
        Some(division) => runner.divide(calls, division),
        None => runner.enforce_for(calls, &meaning.policy().expect("some Egg is for the pod")),
    }
    let history = if meaning.policy().is_some() { case.history.as_slice() } else { &[] };
    runner.teach(calls, history);
    let called = called(runner, calls, case, meaning);
    runner.forget(calls, history);
    judged.calls = called?;
    Ok(judged)
}

/// What leaves, as the pod's program sees it.
fn at_egress(
    runner: &mut Runner,
    case: &Case,
    meaning: &Meaning<'_>,
    judged: &mut Judged,
) -> Result<(), String> {
    for answer in &case.history {
        runner.resolve(answer);
    }
    let mut same = |what: &dyn fmt::Display, meant: &dyn fmt::Display, is: Verdict, happened: Verdict| {
        judged.allowed += usize::from(happened == Verdict::Allow);
        if is == happened {
            return Ok(());
        }
        Err(format!("{what}: the oracle says {meant}, the kernel {happened:?}"))
    };
    for query in &case.queries {
        let meant = meaning.query(query);
        let what = format!("query for {} to {}", query.name, query.resolver);
        same(&what, &format!("{meant:?}"), meant, runner.query(query))?;
    }
    for packet in &case.flows {
        let meant = meaning.packet(*packet);
        same(&packet.flow(), &meant, meant.verdict, runner.send(*packet))?;
    }
    (judged.packets, judged.queries) = (case.flows.len(), case.queries.len());
    Ok(())
}

/// The backstop judges by itself, whatever the pod's program has let pass.
fn frames(runner: &mut Runner, case: &Case, meaning: &Meaning<'_>) -> Result<usize, String> {
    for query in &case.queries {
        let (meant, happened) = (meaning.query(query), runner.query_leaves(query));
        if meant != happened {
            return Err(format!(
                "query for {} to {} at the backstop: the oracle says {meant:?}, the kernel {happened:?}",
                query.name, query.resolver
            ));
        }
    }
    for packet in &case.flows {
        let (meant, happened) = (meaning.packet(*packet), runner.leaves(*packet));
        if meant.verdict != happened {
            return Err(format!(
                "{} at the backstop: the oracle says {meant}, the kernel {happened:?}",
                packet.flow()
            ));
        }
    }
    Ok(case.queries.len() + case.flows.len())
}

/// The hooks see no packets, so what is said to a name server is not theirs to judge.
fn called(
    runner: &mut Runner,
    calls: &mut Calls,
    case: &Case,
    meaning: &Meaning<'_>,
) -> Result<usize, String> {
    let is_called =
        |packet: &&Packet| matches!(packet.protocol, protocol::TCP | protocol::UDP) && packet.port != 0;
    let asked: Vec<Packet> = case.flows.iter().filter(is_called).copied().collect();
    let audited_before = runner.audited();
    let happened = calls.make(&asked);
    let mut audited = 0;
    for (packet, is_refused) in asked.iter().zip(happened) {
        let meant = meaning.flow(*packet);
        audited += u64::from(meant.verdict == Verdict::Audit);
        if is_refused != (meant.verdict == Verdict::Deny) {
            let done = if is_refused { "refuses" } else { "does not refuse" };
            return Err(format!("a call for {}: the oracle says {meant}, the hook {done}", packet.flow()));
        }
    }
    let recorded = runner.audited() - audited_before;
    if recorded != audited {
        return Err(format!(
            "calls: by the oracle {audited} would have been refused, the hooks recorded {recorded}"
        ));
    }
    Ok(asked.len())
}
