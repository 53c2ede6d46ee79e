//! Which node's taint is looked at next, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::{MANIFEST, TAINT};

/// After a failure it is tried again after this long, after another one after twice as long.
const RETRY_FIRST: Duration = Duration::from_secs(2);
const RETRY_MOST: Duration = Duration::from_secs(60);
/// A node is looked at again after this long without news: others write taints, too, and one that has just lost the lease may have
/// written what was so before.
const LOOK_AGAIN: Duration = Duration::from_secs(300);

/// Why a node's taint could not be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum TaintError {
    /// The API server refused it, or could not be asked.
    #[error("{0}")]
    Request(#[from] kube::Error),
    /// No answer in time.
    #[error("the API server did not answer within {} s", .0.as_secs())]
    Timeout(Duration),
}

impl TaintError {
    fn is_forbidden(&self) -> bool {
        matches!(self, TaintError::Request(kube::Error::Api(status)) if status.code == 403)
    }

    /// Whether it would be the same for other nodes.
    fn is_of_all(&self) -> bool {
        match self {
            TaintError::Request(kube::Error::Api(status)) => matches!(status.code, 403 | 429 | 503 | 504),
            // An answer about this node that cannot be read.
            TaintError::Request(kube::Error::SerdeError(_)) => false,
            TaintError::Request(_) | TaintError::Timeout(_) => true,
        }
    }
}

/// The nodes, each with its next turn.
#[derive(Debug, Default)]
pub(super) struct Turns {
    nodes: BTreeMap<String, Turn>,
    /// Failures in a row that have nothing to do with the node.
    failures: u32,
    /// After such a failure nobody has a turn before this.
    rests_until: Option<Instant>,
    /// The nodes of which was told that they cannot be written.
    told: BTreeSet<String>,
}

#[derive(Debug)]
struct Turn {
    at: Instant,
    failures: u32,
}

impl Turns {
    /// There is news of these nodes, so the API server is there.
    pub(super) fn news(&mut self, nodes: impl IntoIterator<Item = String>, now: Instant) {
        for node in nodes {
            self.rests_until = None;
            let turn = self.nodes.entry(node).or_insert(Turn { at: now, failures: 0 });
            // News of a node do not send it behind those that have waited less long.
            turn.at = turn.at.min(now);
        }
    }

    /// Another operator's turn has come.
    pub(super) fn clear(&mut self) {
        *self = Turns::default();
    }

    /// Who is next, and when.
    pub(super) fn next(&self) -> Option<(&str, Instant)> {
        let (node, turn) = self.nodes.iter().min_by_key(|(_, turn)| turn.at)?;
        Some((node, self.rests_until.map_or(turn.at, |rests_until| turn.at.max(rests_until))))
    }

    /// The node is as it should be. It is looked at again if it `stays`.
    pub(super) fn done(&mut self, node: &str, stays: bool, now: Instant) {
        (self.failures, self.rests_until) = (0, None);
        if self.told.remove(node) {
            tracing::info!(node, "taint {TAINT} of the node is as it should be again");
        }
        self.nodes.remove(node);
        if stays {
            self.nodes.insert(node.to_owned(), Turn { at: now + LOOK_AGAIN, failures: 0 });
        }
    }

    /// The node could not be read or written.
    pub(super) fn failed(&mut self, node: &str, error: &TaintError, now: Instant) {
        let was_well = self.failures == 0;
        if error.is_of_all() {
            self.failures += 1;
            self.rests_until = Some(now + pause(self.failures));
        }
        if let Some(turn) = self.nodes.get_mut(node) {
            turn.failures += 1;
            turn.at = now + pause(turn.failures);
        }
        // What is so for all is told once; for one node, once for each.
        let is_news = (was_well || !error.is_of_all()) && self.told.insert(node.to_owned());
        match (is_news, error.is_forbidden()) {
            (false, _) => tracing::debug!(node, %error, "taint {TAINT} of a node still cannot be written"),
            (true, true) => tracing::warn!(
                node, %error,
                "taint {TAINT} of nodes cannot be written, tried again: the operator lacks the right, apply {MANIFEST}"
            ),
            (true, false) => {
                tracing::warn!(node, %error, "taint {TAINT} of a node cannot be written, tried again");
            }
        }
    }
}

fn pause(failures: u32) -> Duration {
    RETRY_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(RETRY_MOST)
}
