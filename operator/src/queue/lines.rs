//! Whose turn it is: namespaces take turns, and within each its Eggs.
//!
//! A namespace of a thousand Eggs has one turn to another's one, and an Egg of a thousand nodes one to its neighbour's.

use std::collections::{HashMap, VecDeque};

use super::{Line, Task};

/// Tasks that are ready.
#[derive(Debug, Default)]
pub(super) struct Lines {
    namespaces: HashMap<String, Namespace>,
    turns: VecDeque<String>,
}

/// Its Eggs in the order of their turns, and the tasks of each.
#[derive(Debug, Default)]
struct Namespace {
    lines: HashMap<Line, VecDeque<Task>>,
    turns: VecDeque<Line>,
}

impl Lines {
    pub fn push(&mut self, task: Task, line: Line) {
        let name = namespace(&task);
        let namespace = self.namespaces.entry(name.to_owned()).or_insert_with(|| {
            self.turns.push_back(name.to_owned());
            Namespace::default()
        });
        let waiting = namespace.lines.entry(line.clone()).or_insert_with(|| {
            namespace.turns.push_back(line);
            VecDeque::new()
        });
        match task {
            // What people look at goes before a thousand nodes.
            Task::Status(_) => waiting.push_front(task),
            Task::Assignment(_) => waiting.push_back(task),
        }
    }

    pub fn pop(&mut self) -> Option<Task> {
        let name = self.turns.pop_front()?;
        let namespace = self.namespaces.get_mut(&name)?;
        let task = namespace.pop();
        if namespace.turns.is_empty() {
            self.namespaces.remove(&name);
        } else {
            self.turns.push_back(name);
        }
        task
    }
}

impl Namespace {
    fn pop(&mut self) -> Option<Task> {
        let line = self.turns.pop_front()?;
        let waiting = self.lines.get_mut(&line)?;
        let task = waiting.pop_front();
        if waiting.is_empty() {
            self.lines.remove(&line);
        } else {
            self.turns.push_back(line);
        }
        task
    }
}

/// Where the object is that is to be written, whatever it says of its Egg. That of ClusterEggs is one like the others.
fn namespace(task: &Task) -> &str {
    match task {
        Task::Assignment(key) => &key.namespace,
        Task::Status(egg) => egg.assignment_namespace(),
    }
}
