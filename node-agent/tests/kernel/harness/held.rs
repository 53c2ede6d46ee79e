//! Connections that the probe holds, with a message there and back now and then.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;

use super::is_emulated;

/// A connection that is being held.
pub struct Held {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Held {
    pub(super) fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the probe");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let first = lines.next().expect("a line").expect("a line");
        assert!(first.contains("connected"), "the connection to be held was not made: {first}");
        Self { child, lines }
    }

    /// Closes it, if it is still open; what became of it.
    pub fn end(mut self) -> Value {
        drop(self.child.stdin.take());
        let last = self.lines.next().expect("a report").expect("a line");
        let _ = self.child.wait();
        serde_json::from_str(&last).expect("JSON")
    }
}

/// Whether nothing kept a connection that was held from its echoes for a second: TCP sends a segment again after 0.2, 0.6 and 1.4 s, and
/// each message is one. What does not leave the host is another case. Not by the clock alone: a machine stands still for as long by
/// itself, and TCP with it. Where the processor is emulated timers run out while what they wait for is under way.
pub fn is_without_a_pause(held: &Value) -> bool {
    let number = |name| held[name].as_u64().expect("a number");
    is_emulated() || number("sent_again") < 3 && number("longest_kept") < 1_000_000
}
