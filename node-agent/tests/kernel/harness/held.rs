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

/// Whether a connection that was held was never without an echo for a second. An emulated machine itself stands still for as long.
pub fn is_without_a_pause(held: &Value) -> bool {
    is_emulated() || held["longest"].as_u64().expect("microseconds") < 1_000_000
}
