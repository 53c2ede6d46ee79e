//! A live connection: a message and its echo every so often, and what gaps there were.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Outcome, Target, micros, resolve};

/// How long an echo may take before it counts as a break.
const PATIENCE: Duration = Duration::from_secs(2);

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
    /// How long the connection lasted, in microseconds.
    pub lasted: u64,
}

/// Opens one TCP connection and exchanges a message every `interval` for as long as `go_on` says, and a last one then: a connection
/// that broke since the one before is not taken for whole. Calls `connected` once it is open.
pub fn hold(
    target: &Target,
    interval: Duration,
    connected: impl FnOnce(),
    mut go_on: impl FnMut() -> bool,
) -> HoldReport {
    let mut report =
        HoldReport { target: target.clone(), outcome: Outcome::Ok, exchanges: 0, longest: 0, lasted: 0 };
    let start = Instant::now();
    report.outcome = match resolve(target) {
        Err(outcome) => outcome,
        Ok(address) => {
            let result = TcpStream::connect_timeout(&address, PATIENCE).and_then(|mut stream| {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                connected();
                loop {
                    let is_last = !go_on();
                    let sent = Instant::now();
                    exchange(&mut stream, report.exchanges)?;
                    report.exchanges += 1;
                    report.longest = report.longest.max(micros(sent.elapsed()));
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

fn exchange(stream: &mut TcpStream, number: u64) -> io::Result<()> {
    let message = number.to_be_bytes();
    stream.write_all(&message)?;
    let mut answer = [0; 8];
    stream.read_exact(&mut answer)?;
    if answer == message {
        Ok(())
    } else {
        Err(io::Error::other("another echo than the message that was sent"))
    }
}
