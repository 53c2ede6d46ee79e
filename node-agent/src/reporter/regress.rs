//! An agent that starts finds in force what it has not found out yet to be wanted, for a moment. Nobody is told of that moment:
//! every Egg would be programmed, in progress, and programmed again with each rollout of the agents.

use std::{collections::BTreeMap, time::Duration};

use l7egg_crds::{EggAssignmentStatus, PodState};
use tokio::time::Instant;

use crate::assignment::AssignmentKey;

/// What goes on for so long is told.
const PATIENCE: Duration = Duration::from_secs(5);

/// Since when reports say less than the API server knows.
#[derive(Debug, Default)]
pub struct Regressing(BTreeMap<AssignmentKey, Instant>);

impl Regressing {
    /// What is to be told now, and when the rest is.
    pub fn soften(
        &mut self,
        key: &AssignmentKey,
        known: Option<&EggAssignmentStatus>,
        new: &EggAssignmentStatus,
        now: Instant,
    ) -> (EggAssignmentStatus, Option<Instant>) {
        let Some(known) = known.filter(|known| regresses(known, new)) else {
            self.0.remove(key);
            return (new.clone(), None);
        };
        let until = *self.0.entry(key.clone()).or_insert(now) + PATIENCE;
        if until <= now { (new.clone(), None) } else { (softened(known, new), Some(until)) }
    }

    /// Forgets what is not due any more.
    pub fn retain(&mut self, is_due: impl Fn(&AssignmentKey) -> bool) {
        self.0.retain(|key, _| is_due(key));
    }
}

/// Whether a pod that was in force is pending, with the same generation and in the same boot of the node.
#[must_use]
pub fn regresses(known: &EggAssignmentStatus, new: &EggAssignmentStatus) -> bool {
    softened(known, new) != *new
}

/// What is new, but for that.
fn softened(known: &EggAssignmentStatus, new: &EggAssignmentStatus) -> EggAssignmentStatus {
    let mut softened = new.clone();
    if known.observed_generation != new.observed_generation
        || known.is_of_another_boot(new.boot_id.as_deref())
    {
        return softened;
    }
    for pod in softened.pods.iter_mut().filter(|pod| pod.state == PodState::Pending) {
        let before = known.pods.iter().find(|before| before.uid == pod.uid && is_in_force(before.state));
        before.cloned().into_iter().for_each(|before| *pod = before);
    }
    if let (Some(before), Some(host)) = (&known.host, &mut softened.host)
        && host.state == PodState::Pending
        && is_in_force(before.state)
    {
        *host = before.clone();
    }
    softened
}

fn is_in_force(state: PodState) -> bool {
    matches!(state, PodState::Enforced | PodState::Audited)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reporter::tests::{pod, status};

    const IN_FORCE: PodState = PodState::Enforced;
    const PENDING: PodState = PodState::Pending;

    #[test]
    fn what_is_in_force_and_pending_again_regresses() {
        let of = |states: &[PodState]| {
            let pods = states.iter().zip(["p", "q"]).map(|(state, uid)| pod(uid, *state, ""));
            status(&pods.collect::<Vec<_>>())
        };
        assert!(regresses(&of(&[IN_FORCE]), &of(&[PENDING])));
        assert!(regresses(&of(&[IN_FORCE, PodState::Audited]), &of(&[IN_FORCE, PENDING])));
        assert!(!regresses(&of(&[IN_FORCE]), &of(&[IN_FORCE, PENDING])), "a new pod");
        assert!(!regresses(&of(&[IN_FORCE]), &of(&[PodState::Failed])));
        assert!(!regresses(&of(&[PodState::Failed]), &of(&[PENDING])));
        assert!(!regresses(&of(&[PENDING]), &of(&[IN_FORCE])));
        let another = EggAssignmentStatus { observed_generation: Some(2), ..of(&[PENDING]) };
        assert!(!regresses(&of(&[IN_FORCE]), &another));
        let booted =
            |boot_id: &str, states| EggAssignmentStatus { boot_id: Some(boot_id.into()), ..of(states) };
        assert!(regresses(&booted("first", &[IN_FORCE]), &booted("first", &[PENDING])));
        assert!(!regresses(&booted("first", &[IN_FORCE]), &booted("second", &[PENDING])));
        assert!(regresses(&of(&[IN_FORCE]), &booted("first", &[PENDING])), "by an agent that did not tell");
    }

    #[test]
    fn it_is_told_if_it_goes_on_and_all_else_at_once() {
        let (start, mut regressing) = (Instant::now(), Regressing::default());
        let key = AssignmentKey { namespace: "shop".into(), name: "a".into() };
        let known = status(&[pod("p", IN_FORCE, ""), pod("q", PENDING, "")]);
        let new = status(&[pod("p", PENDING, ""), pod("q", IN_FORCE, "")]);
        let (told, until) = regressing.soften(&key, Some(&known), &new, start);
        assert_eq!(told, status(&[pod("p", IN_FORCE, ""), pod("q", IN_FORCE, "")]));
        assert_eq!(until, Some(start + PATIENCE));
        let later = start + PATIENCE;
        assert_eq!(regressing.soften(&key, Some(&told), &new, later), (new.clone(), None));
        // It was over in between.
        assert_eq!(regressing.soften(&key, Some(&told), &told, later), (told.clone(), None));
        assert_eq!(regressing.soften(&key, Some(&told), &new, later).1, Some(later + PATIENCE));
        assert_eq!(regressing.soften(&key, None, &new, later), (new.clone(), None));
    }
}
