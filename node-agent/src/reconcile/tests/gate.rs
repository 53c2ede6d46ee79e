//! Strict agents, one after the other, and pods that start in between.

use super::*;

fn strict(datapath: FakeDatapath) -> Reconciler<FakeDatapath> {
    holding(datapath, HoldSettings::Strict)
}

/// Whether each of these pods may pass the gate.
fn passes(agent: &Reconciler<FakeDatapath>, uids: &[&str]) -> Vec<bool> {
    let all = cgroups_of(uids);
    uids.iter().map(|uid| !agent.datapath.waits_at_gate(all.pods[*uid].id)).collect()
}

#[test]
fn pods_that_run_are_admitted_and_new_ones_when_they_are_held() {
    let mut agent = strict(FakeDatapath::default());
    list(&mut agent, &[assignment("a").pod("pod-1")]);
    cgroups(&mut agent, &["pod-1", "pod-2"]);
    assert_eq!(passes(&agent, &["pod-1", "pod-2", "pod-new"]), [true, true, false]);
    pass(&mut agent);
    cgroups(&mut agent, &["pod-1", "pod-2", "pod-new"]);
    assert_eq!(passes(&agent, &["pod-new"]), [false], "nobody has looked at it");
    assert_eq!(pass(&mut agent), ["hold pod-new"]);
    assert_eq!(passes(&agent, &["pod-new"]), [true]);
    // One that cannot be held waits on.
    agent.datapath.gate.get_or_insert_default().clear();
    agent.take(Input::Cgroup(CgroupEvent::Scanned(cgroups_of(&["pod-1", "pod-new", "pod-unknown"]))));
    pass(&mut agent);
    assert_eq!(passes(&agent, &["pod-1", "pod-new", "pod-unknown"]), [true, true, false]);
}

#[test]
fn a_pod_that_started_while_the_agent_was_away_is_held_and_not_taken_for_one_that_ran() {
    let mut before = strict(FakeDatapath::default());
    cgroups(&mut before, &["pod-1"]);
    pass(&mut before);
    let mut agent = strict(before.datapath);
    cgroups(&mut agent, &["pod-1", "pod-new"]);
    assert_eq!(passes(&agent, &["pod-1", "pod-new"]), [true, false]);
    assert_eq!(pass(&mut agent), ["hold pod-new"], "also before the API server has said anything");
    assert_eq!(passes(&agent, &["pod-1", "pod-new"]), [true, true]);
    list(&mut agent, &[assignment("a").pod("pod-new")]);
    assert_eq!(pass(&mut agent), ["enforce pod-new"]);
    // Who is gone is forgotten.
    cgroups(&mut agent, &["pod-1"]);
    assert_eq!(agent.datapath.gate.as_ref().map(BTreeSet::len), Some(1));
}

#[test]
fn a_pod_whose_policy_cannot_be_put_in_force_waits() {
    let mut before = strict(FakeDatapath::default());
    cgroups(&mut before, &["pod-1"]);
    pass(&mut before);
    before.datapath.refuse.insert("pod-new".into());
    list(&mut before, &[assignment("a").pod("pod-new")]);
    // Nor can it be held: its cgroup is not known to the datapath.
    before.take(Input::Cgroup(CgroupEvent::Scanned(cgroups_of(&["pod-1", "pod-new"]))));
    pass(&mut before);
    assert_eq!(passes(&before, &["pod-1", "pod-new"]), [true, false]);
}

#[test]
fn an_agent_that_is_not_strict_opens_the_gate() {
    let mut before = strict(FakeDatapath::default());
    cgroups(&mut before, &["pod-1"]);
    let mut agent = agent(before.datapath);
    assert_eq!(agent.datapath.gate, None);
    cgroups(&mut agent, &["pod-1", "pod-new"]);
    pass(&mut agent);
    assert_eq!(agent.datapath.gate, None);
}
