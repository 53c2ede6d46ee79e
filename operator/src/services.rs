//! The tasks that run as long as the operator does. One that ends before is a fault, and the operator ends with it.

use std::future::{Future, pending};
use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use l7egg_daemon::panics::message;
use tokio::task::JoinSet;

/// Running tasks. Dropped, it ends them.
#[derive(Debug, Default)]
pub struct Services {
    tasks: JoinSet<Ended>,
}

/// A task that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Which one.
    pub what: &'static str,
    /// What it said when it panicked; nothing if it just returned.
    pub panic: Option<String>,
}

impl Services {
    /// Starts a task.
    pub fn spawn(&mut self, what: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(async move {
            let panic = AssertUnwindSafe(task).catch_unwind().await.err();
            Ended { what, panic: panic.map(|panic| message(&*panic).to_owned()) }
        });
    }

    /// The next task that ends. Waits for ever if there is none.
    pub async fn ended(&mut self) -> Ended {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(ended)) => return ended,
                // Nobody cancels them, and what panics is caught.
                Some(Err(error)) => tracing::error!(%error, "a task was lost"),
                None => pending().await,
            }
        }
    }

    /// Waits until all have ended.
    pub async fn finish(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_that_ends_or_panics_is_named() {
        let mut services = Services::default();
        services.spawn("eternal", pending());
        services.spawn("pods", async { panic!("at the disco") });
        let panic = Some("at the disco".to_owned());
        assert_eq!(services.ended().await, Ended { what: "pods", panic });
        services.spawn("eggs", async {});
        assert_eq!(services.ended().await, Ended { what: "eggs", panic: None });
        assert_eq!(services.ended().now_or_never(), None);
    }
}
