//! A steady load of lookups and connections, some of which must succeed and some of which must not.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Later, Outcome, Target, connect};

const MAX_SAMPLES: usize = 10;
const TIMEOUT: Duration = Duration::from_secs(4);
/// How long the C library waits for an answer before it asks again (`timeout` in resolv.conf(5)).
const SECOND_QUERY_US: u64 = 5_000_000;
/// Each waits for one connection at a time; those that are denied by their packets only take the whole timeout.
const THREADS: u32 = 64;

/// What to do.
#[derive(Clone, Debug)]
pub struct Load {
    /// Targets with `{}` for an index, that must be reached.
    pub allowed: Vec<String>,
    /// The same, that must not.
    pub denied: Vec<String>,
    /// Connections a second, by turns to the ones and the others. A target by name is looked up first.
    pub rate: u32,
    /// For so long.
    pub time: Duration,
}

/// What became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadReport {
    /// Connections to allowed targets.
    pub allowed: u32,
    /// Those of them that failed, their lookup or they.
    pub allowed_failures: u32,
    /// Connections to denied targets.
    pub denied: u32,
    /// Those of them that succeeded.
    pub denied_successes: u32,
    /// Those of them of which the SYN or the message was sent again: see [`Later`].
    pub later: u32,
    /// Those of them whose lookup took so long that the resolver asked again.
    pub second_queries: u32,
    /// Longest time that an allowed one took, in microseconds.
    pub longest_allowed: u64,
    /// The first that were wrong.
    pub samples: Vec<String>,
}

/// Keeps the rate, however long single connections take, as far as there are threads.
pub fn load(load: &Load) -> LoadReport {
    let (start, next) = (Instant::now(), AtomicU32::new(0));
    let reports = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| run(load, start, &next))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect::<Vec<_>>()
    });
    let mut sum = LoadReport::default();
    for report in reports {
        sum.allowed += report.allowed;
        sum.allowed_failures += report.allowed_failures;
        sum.denied += report.denied;
        sum.denied_successes += report.denied_successes;
        sum.later += report.later;
        sum.second_queries += report.second_queries;
        sum.longest_allowed = sum.longest_allowed.max(report.longest_allowed);
        sum.samples.extend(report.samples);
    }
    sum.samples.truncate(MAX_SAMPLES);
    sum
}

fn run(load: &Load, start: Instant, next: &AtomicU32) -> LoadReport {
    let mut report = LoadReport::default();
    loop {
        let turn = next.fetch_add(1, Ordering::Relaxed);
        let due = Duration::from_secs(1) / load.rate.max(1) * turn;
        if due >= load.time {
            return report;
        }
        std::thread::sleep(due.saturating_sub(start.elapsed()));
        let (is_allowed, index) = (turn.is_multiple_of(2), turn as usize / 2);
        let patterns = if is_allowed { &load.allowed } else { &load.denied };
        let Some(pattern) = patterns.get(index % patterns.len().max(1)) else { continue };
        one(&mut report, &pattern.replace("{}", &index.to_string()), is_allowed, start);
    }
}

fn one(report: &mut LoadReport, target: &str, is_allowed: bool, start: Instant) {
    let got = match target.parse::<Target>() {
        Ok(target) => connect(&target, TIMEOUT),
        Err(error) => return count(report, is_allowed, true, Some(format!("{target}: {error}"))),
    };
    let is_wrong = if is_allowed { got.outcome != Outcome::Ok } else { got.outcome.is_reached() };
    let mut what = format!("after {} ms: {target}: {}", start.elapsed().as_millis(), got.outcome);
    if is_allowed {
        report.longest_allowed = report.longest_allowed.max(got.micros);
    }
    if is_allowed && let Some(later) = got.later {
        report.later += 1;
        what += match later {
            Later::Syn => " by a second SYN",
            Later::Message => " by a message that was sent again",
        };
    }
    if is_allowed && got.lookup_micros >= SECOND_QUERY_US {
        report.second_queries += 1;
        what += " by a second query";
    }
    let is_late = is_allowed && (got.later.is_some() || got.lookup_micros >= SECOND_QUERY_US);
    count(report, is_allowed, is_wrong, (is_wrong || is_late).then_some(what));
}

fn count(report: &mut LoadReport, is_allowed: bool, is_wrong: bool, sample: Option<String>) {
    let (all, wrong) = if is_allowed {
        (&mut report.allowed, &mut report.allowed_failures)
    } else {
        (&mut report.denied, &mut report.denied_successes)
    };
    *all += 1;
    *wrong += u32::from(is_wrong);
    let room = MAX_SAMPLES.saturating_sub(report.samples.len());
    report.samples.extend(sample.into_iter().take(room));
}
