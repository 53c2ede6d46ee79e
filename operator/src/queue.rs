//! What is to be looked at: each thing once, fairly by Egg, and after a failure later and later.
//!
//! Without a clock of its own: whoever asks says what time it is.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::index::{EggKey, ObjectKey};

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

/// Tasks of one Egg wait in one line, and the lines take turns: an Egg of a thousand nodes does not hold up
/// the others. Assignments that belong to no Egg have a line too.
pub type Line = Option<EggKey>;

/// The tasks.
#[derive(Debug, Default)]
pub struct Queue {
    tasks: HashMap<Task, State>,
    lines: HashMap<Line, VecDeque<Task>>,
    turns: VecDeque<Line>,
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
    Waiting(Instant),
    /// Being done; `again`: there was news meanwhile, and whether they are urgent.
    Running {
        again: Option<bool>,
    },
}

impl Queue {
    /// Adds a task. One that waits goes on waiting, unless this is `urgent`: then what failed before is
    /// another matter now.
    pub fn push(&mut self, task: Task, line: Line, urgent: bool) {
        match self.tasks.get_mut(&task) {
            None => {
                self.tasks
                    .insert(task.clone(), State { line: line.clone(), place: Place::Ready, failures: 0 });
                self.line_up(task, line);
            }
            Some(state) => match &mut state.place {
                Place::Ready => {}
                Place::Running { again } => *again = Some(urgent || again.unwrap_or(false)),
                Place::Waiting(due) => {
                    if urgent {
                        self.timers.remove(&(*due, task.clone()));
                        state.place = Place::Ready;
                        state.failures = 0;
                        self.line_up(task, line);
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
                self.line_up(task, line);
            }
        }
        let line = self.turns.pop_front()?;
        let waiting = self.lines.get_mut(&line)?;
        let task = waiting.pop_front()?;
        if waiting.is_empty() {
            self.lines.remove(&line);
        } else {
            self.turns.push_back(line);
        }
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
    pub fn failed(&mut self, task: &Task, now: Instant, longest: Duration) -> u32 {
        let Some(state) = self.tasks.get_mut(task) else { return 0 };
        let urgent = matches!(state.place, Place::Running { again: Some(true) });
        let pause = if urgent { Duration::ZERO } else { pause(state.failures).min(longest) };
        state.failures = if urgent { 0 } else { state.failures + 1 };
        let failures = state.failures;
        self.postpone(task, now + pause);
        failures
    }

    /// The task is to be done then; news that come before do not hasten it, unless they are urgent.
    pub fn postpone(&mut self, task: &Task, due: Instant) {
        if let Some(state) = self.tasks.get_mut(task) {
            state.place = Place::Waiting(due);
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

    fn line_up(&mut self, task: Task, line: Line) {
        let waiting = self.lines.entry(line.clone()).or_default();
        if waiting.is_empty() {
            self.turns.push_back(line);
        }
        match task {
            // What people look at goes before a thousand nodes.
            Task::Status(_) => waiting.push_front(task),
            Task::Assignment(_) => waiting.push_back(task),
        }
    }
}

fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures.min(20)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(5);

    fn task(egg: &str, node: usize) -> (Task, Line) {
        (Task::Assignment(ObjectKey::new("shop", format!("{egg}.n{node}"))), Some(EggKey::egg("shop", egg)))
    }

    fn push(queue: &mut Queue, (task, line): (Task, Line)) {
        queue.push(task, line, false);
    }

    #[test]
    fn eggs_take_turns() {
        let mut queue = Queue::default();
        let now = Instant::now();
        for node in 0..1_000 {
            push(&mut queue, task("large", node));
        }
        push(&mut queue, task("small", 0));
        let first: Vec<_> = (0..3).filter_map(|_| queue.pop(now)).collect();
        assert_eq!(first, [task("large", 0).0, task("small", 0).0, task("large", 1).0]);
    }

    #[test]
    fn a_task_is_there_once_and_again_if_there_was_news() {
        let mut queue = Queue::default();
        let now = Instant::now();
        let (one, _) = task("a", 0);
        push(&mut queue, task("a", 0));
        push(&mut queue, task("a", 0));
        assert_eq!(queue.pop(now), Some(one.clone()));
        assert_eq!(queue.pop(now), None);
        push(&mut queue, task("a", 0));
        assert_eq!(queue.pop(now), None, "not twice at a time");
        queue.done(&one);
        assert_eq!(queue.pop(now), Some(one.clone()));
        queue.done(&one);
        assert_eq!(queue.pop(now), None);
        assert!(queue.is_empty());
    }

    #[test]
    fn failures_wait_longer_and_longer_and_hold_up_nobody() {
        let mut queue = Queue::default();
        let mut now = Instant::now();
        let (bad, line) = task("bad", 0);
        queue.push(bad.clone(), line.clone(), false);
        let mut pauses = Vec::new();
        for failures in 1..9 {
            assert_eq!(queue.pop(now), Some(bad.clone()));
            assert_eq!(queue.failed(&bad, now, LONGEST), failures);
            push(&mut queue, task("good", 0));
            assert_eq!(queue.pop(now), Some(task("good", 0).0));
            queue.done(&task("good", 0).0);
            push(&mut queue, task("bad", 0));
            assert_eq!(queue.pop(now), None, "news of what was observed do not hasten it");
            let due = queue.next_due().unwrap();
            pauses.push((due - now).as_millis());
            now = due;
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        // An edit does.
        queue.push(bad.clone(), line, true);
        assert_eq!(queue.pop(now), Some(bad.clone()));
        assert_eq!(queue.failed(&bad, now, LONGEST), 1);
    }

    #[test]
    fn an_edit_during_a_write_that_fails_is_tried_at_once() {
        let mut queue = Queue::default();
        let now = Instant::now();
        let (one, line) = task("a", 0);
        queue.push(one.clone(), line.clone(), false);
        queue.pop(now);
        queue.push(one.clone(), line, true);
        queue.failed(&one, now, LONGEST);
        assert_eq!(queue.pop(now), Some(one));
    }

    #[test]
    fn a_postponed_task_comes_when_it_is_due() {
        let mut queue = Queue::default();
        let now = Instant::now();
        let (one, _) = task("a", 0);
        push(&mut queue, task("a", 0));
        queue.pop(now);
        let due = now + Duration::from_millis(100);
        queue.postpone(&one, due);
        assert_eq!(queue.pop(now), None);
        assert_eq!(queue.next_due(), Some(due));
        assert_eq!(queue.pop(due), Some(one));
    }

    #[test]
    fn a_status_goes_before_its_assignments() {
        let mut queue = Queue::default();
        push(&mut queue, task("a", 0));
        push(&mut queue, task("a", 1));
        let status = Task::Status(EggKey::egg("shop", "a"));
        queue.push(status.clone(), Some(EggKey::egg("shop", "a")), false);
        assert_eq!(queue.pop(Instant::now()), Some(status));
    }
}
