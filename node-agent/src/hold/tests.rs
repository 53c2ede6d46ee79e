//! Decisions about new pods, at times of the test's own.

use kube::runtime::watcher::Event;

use super::*;
use crate::{
    selected::{NamedNamespace, News, NodePod},
    testing::{assignment, cgroups_of, desired_of, enforced_pod},
};

const LIMIT: Duration = Duration::from_secs(10);

struct World {
    holds: Holds,
    desired: Desired,
    enforced: Vec<EnforcedPod>,
    cgroups: PodCgroups,
    selected: Selected,
    failures: BTreeMap<String, Failure>,
    on_host: bool,
    start: Instant,
}

impl World {
    /// A node where the first look at cgroups found these pods; all assignments are known, and there are none.
    fn new(settings: HoldSettings, before: &[&str]) -> Self {
        let start = Instant::now();
        let cgroups = cgroups_of(before);
        let mut holds = Holds::new(settings);
        holds.scanned(&cgroups, &|_| false, start);
        World {
            holds,
            desired: desired_of(&[]),
            enforced: Vec::new(),
            cgroups,
            selected: Selected::default(),
            failures: BTreeMap::new(),
            on_host: false,
            start,
        }
    }

    fn appear(&mut self, uid: &str, seconds: u64) {
        let cgroup = cgroups_of(&[uid]).pods[uid].clone();
        self.holds.appeared(uid, cgroup.id, self.start + Duration::from_secs(seconds));
        self.cgroups.pods.insert(uid.into(), cgroup);
    }

    /// The API server's lists: one Egg in namespace shop, or none, and these pods of it.
    fn list(&mut self, egg: bool, pods: &[&str]) {
        let object = serde_json::json!({"apiVersion": "l7egg.dev/v1alpha1", "kind": "Egg",
            "metadata": {"namespace": "shop", "name": "a"}, "spec": {"podSelector": {}}});
        let egg = egg.then(|| crate::selected::egg(serde_json::from_value(object).unwrap()));
        for uid in pods {
            let pod = NodePod {
                namespace: "shop".into(),
                name: (*uid).into(),
                uid: (*uid).into(),
                ..NodePod::default()
            };
            self.selected.apply(News::Pod(Event::Apply(pod)));
        }
        self.selected.apply(News::Pod(Event::Init));
        for uid in pods {
            let pod = NodePod {
                namespace: "shop".into(),
                name: (*uid).into(),
                uid: (*uid).into(),
                ..NodePod::default()
            };
            self.selected.apply(News::Pod(Event::InitApply(pod)));
        }
        self.selected.apply(News::Pod(Event::InitDone));
        self.selected.apply(News::Egg(Event::Init));
        egg.into_iter().for_each(|egg| _ = self.selected.apply(News::Egg(Event::InitApply(egg))));
        self.selected.apply(News::Egg(Event::InitDone));
        self.selected.apply(News::ClusterEgg(Event::InitDone));
        self.selected.apply(News::Namespace(Event::InitDone));
    }

    /// The uids of those that are held at that time; the datapath does as it is told.
    fn held(&mut self, seconds: u64) -> Vec<String> {
        let on_host = self.on_host;
        let view = View {
            desired: &self.desired,
            enforced: &self.enforced,
            cgroups: &self.cgroups,
            selected: &self.selected,
            failures: &self.failures,
            is_on_host_network: &|_| on_host,
        };
        let (held, _) = self.holds.decide(&view, self.start + Duration::from_secs(seconds));
        self.enforced.retain(|pod| !pod.held);
        for uid in held.keys() {
            let pod = enforced_pod(uid, self.cgroups.pods[uid].id, NO_POLICY);
            self.enforced.push(EnforcedPod { held: true, ..pod });
        }
        held.into_keys().collect()
    }
}

#[test]
fn a_selected_pod_is_held_for_so_long_and_then_let_go_once() {
    let mut world = World::new(HoldSettings::AtMost(LIMIT), &["pod-old"]);
    world.list(true, &["pod-old", "pod-new"]);
    world.appear("pod-new", 0);
    assert_eq!(world.held(0), ["pod-new"]);
    assert_eq!(world.held(9), ["pod-new"]);
    assert!(world.holds.let_go().is_empty());
    assert!(world.held(10).is_empty());
    assert!(world.holds.let_go()["pod-new"].message.contains("held for 10 s"));
    // The next look at all cgroups finds nothing new.
    world.holds.scanned(&world.cgroups.clone(), &|_| false, world.start);
    assert!(world.held(11).is_empty());
    // A cgroup of the same name that is another one is a new pod.
    world.cgroups.pods.get_mut("pod-new").unwrap().id += 1;
    world.holds.scanned(&world.cgroups.clone(), &|_| false, world.start);
    assert_eq!(world.held(12), ["pod-new"]);
}

#[test]
fn a_pod_that_no_egg_selects_is_never_touched_and_one_whose_egg_comes_late_is_held() {
    for settings in [HoldSettings::AtMost(LIMIT), HoldSettings::Strict] {
        let mut world = World::new(settings, &[]);
        world.list(false, &["pod-a", "pod-b"]);
        world.appear("pod-a", 0);
        assert!(world.held(0).is_empty());
        world.list(true, &["pod-a", "pod-b"]);
        assert_eq!(world.held(1), ["pod-a"]);
        world.list(false, &["pod-a", "pod-b"]);
        assert!(world.held(2).is_empty());
        // It is new no longer, so an Egg that is written now does not cut it off before its policy is there.
        assert!(world.held(12).is_empty());
        world.list(true, &["pod-a", "pod-b"]);
        assert!(world.held(13).is_empty());
    }
}

#[test]
fn a_pod_that_the_api_server_is_late_to_tell_of_is_held_until_it_does() {
    for settings in [HoldSettings::AtMost(LIMIT), HoldSettings::Strict] {
        let mut world = World::new(settings, &[]);
        world.appear("pod-a", 0);
        world.appear("pod-free", 0);
        world.appear("0123456789abcdef0123456789abcdef", 0);
        assert_eq!(world.held(0).is_empty(), settings != HoldSettings::Strict, "usually it is told at once");
        assert_eq!(world.holds.due(), Some(world.start + Duration::from_millis(50)));
        assert_eq!(world.held(1), ["pod-a", "pod-free"], "and never a static pod");
        assert_eq!(world.holds.due(), None);
        world.list(true, &["pod-a"]);
        assert_eq!(world.held(2), ["pod-a", "pod-free"]);
        world.list(false, &["pod-a", "pod-free"]);
        assert!(world.held(3).is_empty());
    }
}

#[test]
fn a_pod_whose_namespace_the_api_server_is_late_to_tell_of_is_held_until_it_does() {
    let mut world = World::new(HoldSettings::AtMost(LIMIT), &[]);
    world.list(false, &["pod-a"]);
    let object = serde_json::json!({"apiVersion": "l7egg.dev/v1alpha1", "kind": "ClusterEgg", "metadata": {"name": "a"},
        "spec": {"namespaceSelector": {"matchLabels": {"team": "x"}}, "podSelector": {}}});
    let egg = crate::selected::cluster_egg(serde_json::from_value(object).unwrap());
    world.selected.apply(News::ClusterEgg(Event::Apply(egg)));
    world.appear("pod-a", 0);
    assert_eq!(world.held(1), ["pod-a"], "the ClusterEgg may be for its namespace");
    let shop = NamedNamespace { name: "shop".into(), ..NamedNamespace::default() };
    world.selected.apply(News::Namespace(Event::Apply(shop)));
    assert!(world.held(2).is_empty(), "it is not");
}

#[test]
fn a_pod_that_nobody_tells_of_is_let_go_unless_that_is_strict() {
    let mut world = World::new(HoldSettings::AtMost(LIMIT), &[]);
    world.appear("pod-a", 0);
    assert_eq!(world.held(1), ["pod-a"]);
    assert_eq!(world.held(10), ["pod-a"]);
    assert!(world.held(11).is_empty());
    assert!(world.holds.let_go()["pod-a"].message.contains("has not told"));
    world.list(true, &["pod-a"]);
    assert!(world.held(12).is_empty(), "it runs, and is not cut off");

    let mut world = World::new(HoldSettings::Strict, &[]);
    world.appear("pod-a", 0);
    assert_eq!(world.held(0), ["pod-a"]);
    assert_eq!(world.held(3600), ["pod-a"]);
    world.list(true, &["pod-a"]);
    assert_eq!(world.held(3601), ["pod-a"]);
    assert!(world.holds.let_go().is_empty());
}

#[test]
fn what_turns_out_to_be_in_the_nodes_network_is_let_go() {
    for settings in [HoldSettings::AtMost(LIMIT), HoldSettings::Strict] {
        let mut world = World::new(settings, &[]);
        world.appear("pod-a", 0);
        assert_eq!(world.held(1), ["pod-a"]);
        // A process that is just being started is there for a moment.
        world.on_host = true;
        assert_eq!(world.held(2), ["pod-a"]);
        world.on_host = false;
        assert_eq!(world.held(3), ["pod-a"]);
        world.on_host = true;
        assert_eq!(world.held(4), ["pod-a"]);
        assert!(world.held(5).is_empty());
        assert!(world.held(100).is_empty());
        assert!(world.holds.let_go().is_empty());
    }
}

#[test]
fn pods_that_run_when_the_agent_starts_are_held_only_if_that_is_strict_and_all_is_known() {
    let mut world = World::new(HoldSettings::AtMost(LIMIT), &["pod-a"]);
    world.list(true, &["pod-a"]);
    assert!(world.held(0).is_empty());

    let mut world = World::new(HoldSettings::Strict, &["pod-a", "pod-stale"]);
    world.desired.knows_all_pods = false;
    assert!(world.held(0).is_empty());
    world.list(true, &["pod-a"]);
    assert!(world.held(1).is_empty(), "its assignment may be on its way");
    world.desired.knows_all_pods = true;
    assert_eq!(world.held(2), ["pod-a"], "and not one that the API server does not have");
    world.enforced = vec![enforced_pod("pod-a", world.cgroups.pods["pod-a"].id, [1; 32])];
    assert!(world.held(3).is_empty());
}

#[test]
fn what_an_agent_before_held_stays_held_until_it_is_decided() {
    let mut world = World::new(HoldSettings::AtMost(LIMIT), &[]);
    world.holds = Holds::new(HoldSettings::AtMost(LIMIT));
    world.appear("pod-a", 0);
    let cgroup = world.cgroups.pods["pod-a"].id;
    world.enforced = vec![EnforcedPod { held: true, ..enforced_pod("pod-a", cgroup, NO_POLICY) }];
    world.holds.scanned(&world.cgroups.clone(), &|_| false, world.start);
    assert_eq!(world.held(1), ["pod-a"], "nothing is known of it");
    assert_eq!(world.held(10), ["pod-a"]);
    assert!(world.held(11).is_empty());
    assert!(world.holds.let_go()["pod-a"].pod.is_none());
}

#[test]
fn an_assigned_pod_is_held_while_its_policy_cannot_be_put_in_force() {
    let mut world = World::new(HoldSettings::AtMost(LIMIT), &["pod-old"]);
    world.desired = desired_of(&[
        assignment("a").pod("pod-new").pod("pod-old"),
        assignment("b").audit().pod("pod-audited"),
    ]);
    for uid in ["pod-new", "pod-audited"] {
        world.appear(uid, 0);
    }
    assert!(world.held(0).is_empty(), "it is about to be enforced");
    for uid in ["pod-new", "pod-old", "pod-audited"] {
        let failure = Failure { reason: "MapFull", message: "map CIDRS is full".into() };
        world.failures.insert(uid.into(), failure);
    }
    assert_eq!(world.held(1), ["pod-new"]);
    assert_eq!(world.held(3600), ["pod-new"], "for as long as it is full");
    world.failures.clear();
    assert!(world.held(3601).is_empty());
}

#[test]
fn a_pod_of_which_nothing_can_be_enforced_is_held_and_not_let_go() {
    let mut world = World::new(HoldSettings::AtMost(LIMIT), &["pod-old"]);
    let ports = |name: &str| (0..70).fold(assignment(name), |egg, n| egg.allow_port("10.0.0.0/8", 1000 + n));
    world.desired = desired_of(&[
        ports("a").pod("pod-new").pod("pod-old"),
        ports("b").audit().pod("pod-audited"),
        assignment("c").malformed().pod("pod-unreadable"),
    ]);
    assert!(world.desired.pods["pod-new"].in_force_policy().is_none());
    for uid in ["pod-new", "pod-audited", "pod-unreadable"] {
        world.appear(uid, 0);
    }
    world.list(true, &["pod-new", "pod-unreadable"]);
    assert_eq!(world.held(0), ["pod-new", "pod-unreadable"]);
    assert_eq!(
        world.held(3600),
        ["pod-new"],
        "an operator that is newer than the agent is no reason for ever"
    );
}

#[test]
fn nobody_is_held_where_that_is_switched_off() {
    let mut world = World::new(HoldSettings::Never, &[]);
    world.list(true, &["pod-a"]);
    world.appear("pod-a", 0);
    assert!(world.held(0).is_empty());
}

#[test]
fn ended_pods_are_forgotten() {
    let mut world = World::new(HoldSettings::Strict, &[]);
    world.appear("pod-a", 0);
    assert_eq!(world.held(0), ["pod-a"]);
    world.cgroups.pods.clear();
    assert!(world.held(1).is_empty());
    assert!(world.holds.new.is_empty());
}
