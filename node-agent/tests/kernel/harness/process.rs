//! Processes that end with the test.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// A server in the pod.
pub struct Server(Child);

impl Server {
    pub(super) fn new(child: Child) -> Self {
        Self(child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process in a network of its own making.
pub struct Nested(Child);

impl Nested {
    pub(super) fn new(child: Child) -> Self {
        Self(child)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Nested {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process that prints lines, and hears when it is to go on.
pub struct Said {
    child: Child,
    lines: mpsc::Receiver<String>,
}

/// So long a program may be silent, on the slowest machine.
const SILENCE: Duration = Duration::from_secs(120);

impl Said {
    /// Starts it.
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a program");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let (said, lines) = mpsc::channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| said.send(line)));
        Self { child, lines }
    }

    /// The next line, when it comes.
    pub fn next(&mut self) -> String {
        self.lines.recv_timeout(SILENCE).expect("a line")
    }

    /// Tells it to go on.
    pub fn go_on(&mut self) {
        self.child.stdin.as_mut().expect("its input").write_all(b"\n").expect("to tell it");
    }

    /// Tells it to end, and waits for that; what it still says.
    pub fn end(mut self) -> Vec<String> {
        drop(self.child.stdin.take());
        std::iter::from_fn(|| self.lines.recv_timeout(SILENCE).ok()).collect()
    }
}

impl Drop for Said {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
