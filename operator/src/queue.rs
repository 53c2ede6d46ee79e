//! What is to be looked at: each thing once, fairly by namespace and Egg, and after a failure later and later.
//!
//! Without a clock of its own: whoever asks says what time it is.

mod lines;

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::index::{EggKey, ObjectKey};
use lines::Lines;

/// The pause after a first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// One thing that may have to be written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Task {
    /// An EggAssignment.
    Assignment(ObjectKey),
    /// The status of an Egg.
    Status(EggKey),
}

/// Tasks of one Egg wait in one line, and the lines of a namespace take turns. Assignments that belong to no Egg have a line too.
pub type Line = Option<EggKey>;

/// Why a task waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The API server refused what it was sent: news may make that another matter.
    Refused,
    /// The API server is away, or has too much to do: news are the last that it needs.
    Busy,
    /// It was done too often of late.
    Pace,
    /// It may turn out to be unnecessary, or has time; news may be of something that has not.
    HasTime,
}

/// The tasks.
#[derive(Debug, Default)]
pub struct Queue {
    tasks: HashMap<Task, State>,
    ready: Lines,
    timers: BTreeSet<(Instant, Task)>,
}

#[derive(Debug)]
struct State {
    line: Line,
    place: Place,
    failures: u32,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Ready,
    Waiting(Instant, Why),
    /// Being done; `again`: there was news meanwhile, and whether they are urgent.
    Running {
        again: Option<bool>,
    },
}

impl Queue {
    /// Adds a task. One that waits goes on waiting, unless this is `urgent` and what it waits for is another matter now.
    pub fn push(&mut self, task: Task, line: Line, urgent: bool) {
        match self.tasks.get_mut(&task) {
            None => {
                self.tasks
                    .insert(task.clone(), State { line: line.clone(), place: Place::Ready, failures: 0 });
                self.ready.push(task, line);
            }
            Some(state) => match &mut state.place {
                Place::Ready => {}
                Place::Running { again } => *again = Some(urgent || again.unwrap_or(false)),
                Place::Waiting(due, why) => {
                    if urgent && matches!(why, Why::Refused | Why::HasTime) {
                        self.timers.remove(&(*due, task.clone()));
                        state.place = Place::Ready;
                        state.failures = 0;
                        self.ready.push(task, line);
                    }
                }
            },
        }
    }

    /// The next task to do now. It must be given back by [`Queue::done`], [`Queue::failed`] or
    /// [`Queue::postpone`].
    pub fn pop(&mut self, now: Instant) -> Option<Task> {
        while let Some((due, _)) = self.timers.first()
            && *due <= now
            && let Some((_, task)) = self.timers.pop_first()
        {
            if let Some(state) = self.tasks.get_mut(&task) {
                state.place = Place::Ready;
                let line = state.line.clone();
                self.ready.push(task, line);
            }
        }
        let task = self.ready.pop()?;
        self.tasks.get_mut(&task)?.place = Place::Running { again: None };
        Some(task)
    }

    /// The task is done, or there was nothing to do.
    pub fn done(&mut self, task: &Task) {
        let Some(state) = self.tasks.remove(task) else { return };
        if let Place::Running { again: Some(urgent) } = state.place {
            self.push(task.clone(), state.line, urgent);
        }
    }

    /// The task failed: it is tried again after a pause, of `longest` at most. How often it has failed in a
    /// row, this time included.
    pub fn failed(&mut self, task: &Task, now: Instant, longest: Duration, why: Why) -> u32 {
        let Some(state) = self.tasks.get_mut(task) else { return 0 };
        let is_urgent = matches!(state.place, Place::Running { again: Some(true) });
        let at_once = is_urgent && why == Why::Refused;
        let pause = if at_once { Duration::ZERO } else { pause(state.failures).min(longest) };
        state.failures = if at_once { 0 } else { state.failures + 1 };
        let failures = state.failures;
        self.postpone(task, now + pause, why);
        failures
    }

    /// The task is to be done then; news that come before do not hasten it, unless they are urgent and `why` can change.
    pub fn postpone(&mut self, task: &Task, due: Instant, why: Why) {
        if let Some(state) = self.tasks.get_mut(task) {
            state.place = Place::Waiting(due, why);
            self.timers.insert((due, task.clone()));
        }
    }

    /// When the first of the waiting tasks is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// Number of tasks that are ready, waiting or being done.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }
}

fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures.min(20)))
}

#[cfg(test)]
mod tests;
