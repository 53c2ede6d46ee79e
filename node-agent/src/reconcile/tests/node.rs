//! The node itself.

use super::*;

/// An agent whose node shares its machine with others or not.
fn of_node(is_given: bool) -> Reconciler<FakeDatapath> {
    let cgroup = PodCgroup { path: "/sys/fs/cgroup".into(), id: 1 };
    let mut datapath = FakeDatapath::default();
    let mut known = PodCgroups::default();
    known.pods.insert("the root".into(), cgroup.clone());
    datapath.know(&known);
    agent(datapath).with_node(NodeCgroup { cgroup, is_given })
}

fn of_host(agent: &mut Reconciler<FakeDatapath>) -> l7egg_crds::HostReport {
    let outcome = agent.pass().unwrap();
    let report = outcome.reports.values().next().unwrap().status.clone();
    assert!(report.pods.is_empty());
    report.host.unwrap()
}

#[test]
fn a_node_is_enforced_when_its_guard_and_its_pods_are_known() {
    let mut agent = of_node(false);
    list(&mut agent, &[assignment("a").allow("10.0.0.0/8").host()]);
    assert_eq!(of_host(&mut agent).reason, "GuardNotReady");
    assert!(agent.datapath.take_calls().is_empty());
    agent.take(Input::ApiServers(["10.0.0.1:6443".parse().unwrap()].into()));
    assert_eq!(of_host(&mut agent).reason, "NoKubeletCgroups");
    assert!(agent.datapath.take_calls().is_empty());
    cgroups(&mut agent, &["p1"]);
    assert_eq!(pass(&mut agent), ["enforce node"]);
    assert_eq!(agent.datapath.left_alone, [std::path::PathBuf::from("/kubepods")]);
    let report = of_host(&mut agent);
    assert_eq!(report.state, PodState::Enforced);
    assert_eq!(report.guard[0], "API server 10.0.0.1 (TCP 6443)");
    // The API server moves.
    agent.take(Input::ApiServers(["10.0.0.2:6443".parse().unwrap()].into()));
    assert_eq!(pass(&mut agent), ["enforce node"]);
    list(&mut agent, &[]);
    assert_eq!(pass(&mut agent), ["release node"]);
}

#[test]
fn nodes_that_share_a_machine_have_to_be_told_apart() {
    let shared = |agent: &mut Reconciler<FakeDatapath>| {
        let mut seen = cgroups_of(&[]);
        seen.parents.push("/other/kubepods".into());
        agent.take(Input::Cgroup(CgroupEvent::Scanned(seen)));
    };
    let start = |is_given| {
        let mut agent = of_node(is_given);
        agent.take(Input::ApiServers(["10.0.0.1:6443".parse().unwrap()].into()));
        list(&mut agent, &[assignment("a").host()]);
        agent
    };
    let mut agent = start(false);
    shared(&mut agent);
    assert!(pass(&mut agent).is_empty());
    assert_eq!(of_host(&mut agent).reason, "SeveralKubelets");
    let mut agent = start(true);
    shared(&mut agent);
    assert_eq!(pass(&mut agent), ["enforce node"]);
    // What is in force stays.
    let mut agent = start(false);
    cgroups(&mut agent, &[]);
    assert_eq!(pass(&mut agent), ["enforce node"]);
    shared(&mut agent);
    assert!(pass(&mut agent).is_empty());
}
