//! As much as a TCP connection can carry, for a while.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Outcome, Target, micros, resolve};

const PATIENCE: Duration = Duration::from_secs(5);
const PIECE: usize = 16 * 1024;

/// What a bulk transfer reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkReport {
    /// The target.
    pub target: Target,
    /// `Ok` if all that was sent came back.
    pub outcome: Outcome,
    /// Bytes that the echo brought back, without headers.
    pub bytes: u64,
    /// From the first byte that was sent to the last that came back, in microseconds. Not from the first that came back: what waited
    /// for a reader that had no processor then would have come in no time.
    pub lasted: u64,
}

impl BulkReport {
    /// Payload bits per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.bytes as f64 * 8e6 / self.lasted.max(1) as f64
    }
}

/// Sends to an echo server for so long, and waits until everything has come back.
pub fn bulk(target: &Target, time: Duration) -> BulkReport {
    let mut report = BulkReport { target: target.clone(), outcome: Outcome::Ok, bytes: 0, lasted: 0 };
    report.outcome = match resolve(target) {
        Err(outcome) => outcome,
        Ok(address) => TcpStream::connect_timeout(&address, PATIENCE)
            .and_then(|stream| transfer(&stream, time, &mut report))
            .err()
            .map_or(Outcome::Ok, Outcome::from),
    };
    report
}

fn transfer(stream: &TcpStream, time: Duration, report: &mut BulkReport) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    std::thread::scope(|scope| {
        let start = Instant::now();
        let sender = scope.spawn(|| send(stream, time));
        let mut buffer = vec![0; PIECE];
        let mut stream = stream;
        loop {
            let length = stream.read(&mut buffer)?;
            if length == 0 {
                break;
            }
            report.bytes += length as u64;
            report.lasted = micros(start.elapsed());
        }
        sender.join().unwrap_or_else(|_| Err(io::Error::other("the sender ended early")))
    })
}

fn send(mut stream: &TcpStream, time: Duration) -> io::Result<()> {
    let (start, piece) = (Instant::now(), vec![0x5a; PIECE]);
    while start.elapsed() < time {
        stream.write_all(&piece)?;
    }
    stream.shutdown(Shutdown::Write)
}
