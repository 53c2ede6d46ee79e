//! Whether the operator works, for Kubernetes' probes.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A control loop that has not turned for this long is stuck. It turns at least every [`Health::BEAT`].
const STUCK: Duration = Duration::from_secs(60);

/// Shared between the control loop, which tells, and the probes, which ask.
#[derive(Debug)]
pub struct Health {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    beat: Instant,
    waiting_for: Vec<&'static str>,
}

impl Health {
    /// Longest time between two turns of the control loop.
    pub const BEAT: Duration = Duration::from_secs(5);

    /// Alive, and not ready.
    pub fn new(waiting_for: Vec<&'static str>) -> Self {
        Health { state: Mutex::new(State { beat: Instant::now(), waiting_for }) }
    }

    /// The control loop turns, and still waits for the first lists of these kinds.
    pub fn beat(&self, waiting_for: Vec<&'static str>) {
        if let Ok(mut state) = self.state.lock() {
            *state = State { beat: Instant::now(), waiting_for };
        }
    }

    /// Nothing, or why the operator should be started again.
    ///
    /// # Errors
    /// The control loop is stuck.
    pub fn alive(&self) -> Result<(), String> {
        let Ok(state) = self.state.lock() else { return Err("the control loop has died".to_owned()) };
        let since = state.beat.elapsed();
        if since > STUCK {
            return Err(format!("the control loop has not turned for {} s", since.as_secs()));
        }
        Ok(())
    }

    /// Nothing, or what the operator waits for.
    ///
    /// # Errors
    /// Some first lists are not in.
    pub fn ready(&self) -> Result<(), String> {
        self.alive()?;
        let Ok(state) = self.state.lock() else { return Err("the control loop has died".to_owned()) };
        if state.waiting_for.is_empty() {
            return Ok(());
        }
        Err(format!("waiting for the API server's first list of {}", state.waiting_for.join(", ")))
    }
}
