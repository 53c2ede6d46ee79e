//! A live connection: a message and its echo every so often, and what gaps there were.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::exchange::exchange;
use super::{Outcome, Target, micros, resolve};

/// What became of a connection that was held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldReport {
    /// The target.
    pub target: Target,
    /// `Ok` if the one connection lasted until the end, when it still carried a message; otherwise what ended it.
    pub outcome: Outcome,
    /// How many messages came back.
    pub exchanges: u64,
    /// The longest time that an echo took, in microseconds.
    pub longest: u64,
    /// The longest of those whose message this host kept at first, in microseconds.
    pub longest_kept: u64,
    /// How many segments were sent again for one message, at most.
    pub sent_again: u32,
    /// How long the connection lasted, in microseconds.
    pub lasted: u64,
}

/// Opens one TCP connection and exchanges a message every `interval` for as long as `go_on` says, and a last one then: a connection
/// that broke since the one before is not taken for whole. An echo that takes longer than `patience` counts as a break. Calls
/// `connected` once it is open.
pub fn hold(
    target: &Target,
    interval: Duration,
    patience: Duration,
    connected: impl FnOnce(),
    mut go_on: impl FnMut() -> bool,
) -> HoldReport {
    let mut report = HoldReport {
        target: target.clone(),
        outcome: Outcome::Ok,
        exchanges: 0,
        longest: 0,
        longest_kept: 0,
        sent_again: 0,
        lasted: 0,
    };
    let start = Instant::now();
    report.outcome = match resolve(target) {
        Err(outcome) => outcome,
        Ok(address) => {
            let result = TcpStream::connect_timeout(&address, patience).and_then(|stream| {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(patience))?;
                connected();
                loop {
                    let is_last = !go_on();
                    let exchanged = exchange(&stream, &report.exchanges.to_be_bytes())?;
                    report.exchanges += 1;
                    report.longest = report.longest.max(micros(exchanged.took));
                    report.sent_again = report.sent_again.max(exchanged.sent_again);
                    if exchanged.was_kept {
                        report.longest_kept = report.longest_kept.max(micros(exchanged.took));
                    }
                    if is_last {
                        return Ok(());
                    }
                    std::thread::sleep(interval);
                }
            });
            result.err().map_or(Outcome::Ok, Outcome::from)
        }
    };
    report.lasted = micros(start.elapsed());
    report
}
