//! Limits by annotation of pods that no Egg selects.

use kube::runtime::watcher::Event;

use super::*;
use crate::notice::About;

fn annotated(uid: &str, rate: Option<&str>) -> NodePod {
    NodePod {
        namespace: "shop".into(),
        name: uid.into(),
        uid: uid.into(),
        egress_bandwidth: rate.map(str::to_owned),
        ..NodePod::default()
    }
}

fn pods(agent: &mut Reconciler<FakeDatapath>, pods: impl IntoIterator<Item = NodePod>) {
    let pods = pods.into_iter().map(Event::InitApply);
    for event in std::iter::once(Event::Init).chain(pods).chain([Event::InitDone]) {
        agent.take(Input::Selected(News::Pod(event)));
    }
}

fn change(agent: &mut Reconciler<FakeDatapath>, pod: NodePod) {
    agent.take(Input::Selected(News::Pod(Event::Apply(pod))));
}

/// Uid, state, reason and limit of every pod.
fn states(agent: &mut Reconciler<FakeDatapath>) -> Vec<(String, PodState, String, String)> {
    let pods = agent.pass().unwrap().state.pods.into_iter();
    pods.map(|pod| (pod.uid, pod.state, pod.reason, pod.egress_limit)).collect()
}

const THREE: &str = "3M of annotation kubernetes.io/egress-bandwidth";

#[test]
fn an_annotation_limits_a_pod_that_no_egg_selects() {
    let mut agent = agent(FakeDatapath::default()).with_annotations();
    cgroups(&mut agent, &["p1", "p2"]);
    pods(&mut agent, [annotated("p1", Some("3M")), annotated("p2", None)]);
    assert!(pass(&mut agent).is_empty(), "an Egg may limit it");
    list(&mut agent, &[]);
    assert_eq!(pass(&mut agent), ["shape p1"]);
    assert_eq!(states(&mut agent), [("p1".into(), PodState::Enforced, "LimitOnly".into(), THREE.into())]);

    // The operator's word is the same, until an Egg has a limit of its own.
    apply(&mut agent, &assignment("a").allow("10.0.0.0/8").annotated_pod("p1", "3M"));
    assert_eq!(pass(&mut agent), ["enforce p1"]);
    apply(&mut agent, &assignment("a").allow("10.0.0.0/8").shape("5M", "Pod").annotated_pod("p1", "3M"));
    assert_eq!(pass(&mut agent), ["shape p1"]);
    list(&mut agent, &[]);
    assert_eq!(pass(&mut agent), ["shape p1", "release p1"]);

    change(&mut agent, annotated("p1", None));
    assert_eq!(pass(&mut agent), ["unshape p1"]);
    assert!(states(&mut agent).is_empty());
}

#[test]
fn a_limit_outlives_the_agent_and_what_cannot_be_is_told() {
    let mut before = agent(FakeDatapath::default()).with_annotations();
    cgroups(&mut before, &["p1", "p2", "p3"]);
    list(&mut before, &[]);
    pods(&mut before, [annotated("p1", Some("3M"))]);
    assert_eq!(pass(&mut before), ["shape p1"]);

    let mut agent = agent(before.datapath).with_annotations();
    cgroups(&mut agent, &["p1", "p2", "p3"]);
    list(&mut agent, &[]);
    assert!(pass(&mut agent).is_empty(), "the pods are not known yet");
    let in_host_network = NodePod { host_network: true, ..annotated("p3", Some("1M")) };
    pods(&mut agent, [annotated("p1", Some("3M")), annotated("p2", Some("fast")), in_host_network]);
    assert!(pass(&mut agent).is_empty());
    let reasons = states(&mut agent).into_iter().map(|(_, _, reason, _)| reason).collect::<Vec<_>>();
    assert_eq!(reasons, ["LimitOnly", "AnnotationInvalid", "HostNetworkNotShaped"]);
    let told: Vec<_> =
        agent.pass().unwrap().notices.into_iter().map(|notice| (notice.about, notice.reason)).collect();
    let about = |uid: &str| About::Pod { uid: uid.into(), namespace: "shop".into(), name: uid.into() };
    assert_eq!(told, [(about("p2"), "NotLimited"), (about("p3"), "NotLimited")]);

    // Somebody else's, from now on.
    let mut deaf = super::agent(agent.datapath);
    cgroups(&mut deaf, &["p1", "p2", "p3"]);
    list(&mut deaf, &[]);
    assert_eq!(pass(&mut deaf), ["unshape p1"]);
}
