//! What one sees while the table is being filled.

use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How often it says something.
const PAUSE: Duration = Duration::from_secs(5);

/// A count of cells, said now and then.
pub struct Progress {
    cells: usize,
    begun: AtomicUsize,
    said: Mutex<Instant>,
}

impl Progress {
    /// None of so many cells has begun.
    pub fn new(cells: usize) -> Self {
        Self { cells, begun: AtomicUsize::new(0), said: Mutex::new(Instant::now()) }
    }

    /// One more has begun.
    pub fn cell(&self) {
        let begun = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
        let mut said = self.said.lock().expect("no one panics while saying it");
        if said.elapsed() > PAUSE {
            *said = Instant::now();
            // Not by eprintln, whose output libtest keeps until the end.
            let _ = writeln!(std::io::stderr(), "conformance: {begun} of {} cells", self.cells);
        }
    }
}
