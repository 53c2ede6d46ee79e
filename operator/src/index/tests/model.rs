//! Whatever happens in whatever order, doing what is marked leads to what a look at everything says.

use proptest::prelude::*;
use proptest::sample::select;

use l7egg_crds::ShapingScope;

use super::*;

#[derive(Clone, Debug)]
enum Happening {
    Pod {
        namespace: &'static str,
        name: &'static str,
        node: &'static str,
        app: &'static str,
        host_network: bool,
    },
    PodGone {
        namespace: &'static str,
        name: &'static str,
    },
    Namespace {
        name: &'static str,
        env: &'static str,
    },
    NamespaceGone {
        name: &'static str,
    },
    Egg {
        namespace: &'static str,
        name: &'static str,
        app: &'static str,
        cidr: &'static str,
        scope: &'static str,
        good: bool,
    },
    EggGone {
        namespace: &'static str,
        name: &'static str,
    },
    ClusterEgg {
        name: &'static str,
        env: &'static str,
        app: &'static str,
        scope: &'static str,
        good: bool,
    },
    ClusterEggGone {
        name: &'static str,
    },
    /// Somebody deletes an EggAssignment.
    AssignmentGone {
        number: usize,
    },
}

fn happening() -> impl Strategy<Value = Happening> {
    let namespace = || select(&["shop", "test"][..]);
    let name = || select(&["a", "b"][..]);
    let label = || select(&["", "x", "y"][..]);
    let scope = || select(&["", "Pod", "Egg", "Namespace"][..]);
    prop_oneof![
        4 => (namespace(), select(&["p", "q", "r"][..]), select(&["n1", "n2"][..]), label(), any::<bool>())
            .prop_map(|(namespace, name, node, app, host_network)| Happening::Pod {
                namespace, name, node, app, host_network,
            }),
        1 => (namespace(), select(&["p", "q", "r"][..]))
            .prop_map(|(namespace, name)| Happening::PodGone { namespace, name }),
        1 => (namespace(), label()).prop_map(|(name, env)| Happening::Namespace { name, env }),
        1 => namespace().prop_map(|name| Happening::NamespaceGone { name }),
        3 => (namespace(), name(), label(), select(&["10.0.0.0/8", "192.0.2.0/24"][..]), scope(), any::<bool>())
            .prop_map(|(namespace, name, app, cidr, scope, good)| Happening::Egg {
                namespace, name, app, cidr, scope, good,
            }),
        1 => (namespace(), name()).prop_map(|(namespace, name)| Happening::EggGone { namespace, name }),
        2 => (name(), label(), label(), scope(), any::<bool>())
            .prop_map(|(name, env, app, scope, good)| Happening::ClusterEgg { name, env, app, scope, good }),
        1 => name().prop_map(|name| Happening::ClusterEggGone { name }),
        1 => any::<usize>().prop_map(|number| Happening::AssignmentGone { number }),
    ]
}

/// All that there is, without any index.
#[derive(Default)]
struct Model {
    pods: BTreeMap<ObjectKey, Pod>,
    namespaces: BTreeMap<String, Labels>,
    /// With the generation and what was accepted last.
    eggs: BTreeMap<EggKey, (Egg, Option<(i64, Accepted)>)>,
    count: i64,
}

impl Model {
    /// The Egg as the API server would have it next: with the same uid if it exists.
    fn next_egg(&mut self, egg: Egg, good: bool) -> Egg {
        self.count += 1;
        let (uid, accepted) = match self.eggs.remove(&egg.key) {
            Some((old, accepted)) => (old.uid, accepted),
            None => (format!("uid{}", self.count), None),
        };
        let egg = Egg { uid, generation: self.count, ..egg };
        let egg = if good { egg } else { rejected(egg, self.count) };
        let accepted = egg.spec.clone().ok().map(|spec| (egg.generation, spec)).or(accepted);
        self.eggs.insert(egg.key.clone(), (egg.clone(), accepted));
        egg
    }

    fn desired(&self) -> BTreeMap<ObjectKey, Assignment> {
        let mut all = BTreeMap::<ObjectKey, Assignment>::new();
        for (key, (egg, accepted)) in &self.eggs {
            let Some((generation, accepted)) = accepted else { continue };
            for pod in self.pods.values() {
                let namespace = &pod.assigned.namespace;
                if accepted.selection.selects(namespace, self.namespaces.get(namespace), &pod.labels) {
                    let assignment =
                        all.entry(assignment_key(key, &pod.node)).or_insert_with(|| Assignment {
                            node: pod.node.clone(),
                            host: None,
                            egg: l7egg_crds::EggReference {
                                kind: key.kind,
                                namespace: key.namespace.clone(),
                                name: key.name.clone(),
                                uid: egg.uid.clone(),
                                generation: *generation,
                            },
                            policy: accepted.policy.clone(),
                            shares: Vec::new(),
                            pods: Vec::new(),
                        });
                    assignment.pods.push(pod.assigned.clone());
                }
            }
        }
        let pods: Vec<_> =
            all.values().map(|it| (it.egg.clone(), it.node.clone(), it.pods.clone())).collect();
        for assignment in all.values_mut() {
            let pods = pods.iter().filter(|(egg, ..)| *egg == assignment.egg);
            assignment.shares = shares(
                assignment,
                &pods.flat_map(|(_, node, pods)| pods.iter().map(move |pod| (node, pod))).collect::<Vec<_>>(),
            );
        }
        all
    }
}

/// Counted anew from all pods of the Egg that can be limited.
fn shares(assignment: &Assignment, pods: &[(&String, &AssignedPod)]) -> Vec<l7egg_crds::RateShare> {
    let Some(limit) = l7egg_policy::Limit::of(&assignment.policy) else { return Vec::new() };
    let own = assignment.pods.iter().filter(|pod| !pod.host_network);
    let groups: BTreeSet<Option<String>> = match limit.scope {
        ShapingScope::Pod => return Vec::new(),
        ShapingScope::Egg => own.map(|_| None).collect(),
        ShapingScope::Namespace => own.map(|pod| Some(pod.namespace.clone())).collect(),
    };
    let share = |namespace: Option<String>| {
        let sharers = || {
            let limited = pods.iter().filter(|(_, pod)| !pod.host_network);
            limited.filter(|(_, pod)| namespace.as_ref().is_none_or(|it| *it == pod.namespace))
        };
        let here = sharers().filter(|(node, _)| **node == assignment.node).count() as u64;
        let bits_per_second = limit.bits_per_second * here / sharers().count() as u64;
        l7egg_crds::RateShare { namespace, bits_per_second: i64::try_from(bits_per_second).unwrap() }
    };
    groups.into_iter().map(share).collect()
}

fn selector(label: &str, value: &str) -> Selector {
    match value {
        "" => Selector::default(),
        value => Expression::Equal(label.to_owned(), value.to_owned()).into(),
    }
}

fn happen(index: &mut Index, model: &mut Model, happening: Happening) {
    match happening {
        Happening::Pod { namespace, name, node, app, host_network } => {
            let mut pod = pod(namespace, name, node, &[("app", app)]);
            pod.assigned.host_network = host_network;
            model.pods.insert(pod.key(), pod.clone());
            index.apply_pod(pod);
        }
        Happening::PodGone { namespace, name } => {
            model.pods.remove(&ObjectKey::new(namespace, name));
            index.remove_pod(&ObjectKey::new(namespace, name));
        }
        Happening::Namespace { name, env } => {
            model.namespaces.insert(name.to_owned(), labels(&[("env", env)]));
            index.apply_namespace(name, labels(&[("env", env)]));
        }
        Happening::NamespaceGone { name } => {
            model.namespaces.remove(name);
            index.remove_namespace(name);
        }
        Happening::Egg { namespace, name, app, cidr, scope, good } => {
            let egg = egg(namespace, name, 0, selector("app", app), cidr);
            let egg = model.next_egg(shaped(egg, scope), good);
            index.apply_egg(egg);
        }
        Happening::ClusterEgg { name, env, app, scope, good } => {
            let egg = cluster_egg(name, selector("env", env), selector("app", app));
            let egg = model.next_egg(shaped(egg, scope), good);
            index.apply_egg(egg);
        }
        Happening::EggGone { namespace, name } => {
            model.eggs.remove(&EggKey::egg(namespace, name));
            index.remove_egg(&EggKey::egg(namespace, name));
        }
        Happening::ClusterEggGone { name } => {
            model.eggs.remove(&EggKey::cluster(name));
            index.remove_egg(&EggKey::cluster(name));
        }
        Happening::AssignmentGone { number } => {
            let keys: Vec<_> = index.observed_keys().collect();
            if !keys.is_empty() {
                index.remove_observed(&keys[number % keys.len()]);
            }
        }
    }
}

/// What the control loop does with what is marked; how many it wrote.
fn write_marked(index: &mut Index) -> usize {
    let mut written = 0;
    loop {
        let changes = index.take_changes();
        let marked = changes.desired.into_keys().chain(changes.shares.into_keys());
        let marked: BTreeSet<_> = marked.chain(changes.observed.into_keys()).collect();
        if marked.is_empty() {
            return written;
        }
        for key in marked {
            let observed = index.observed(&key).and_then(|observed| observed.assignment.clone());
            match index.desired(&key) {
                desired if desired == observed => {}
                Some(_) => {
                    let stored = stored(index, &key, 1);
                    index.apply_observed(stored);
                    written += 1;
                }
                None => {
                    index.remove_observed(&key);
                    written += 1;
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn what_is_marked_is_enough(happenings in prop::collection::vec(happening(), 1..60)) {
        let (mut index, mut model) = (Index::default(), Model::default());
        index.settle();
        for happening in happenings {
            happen(&mut index, &mut model, happening);
            write_marked(&mut index);
            let written: BTreeMap<_, _> = index
                .observed_keys()
                .map(|key| (key.clone(), index.observed(&key).unwrap().assignment.clone().unwrap()))
                .collect();
            prop_assert_eq!(written, model.desired());
        }
        // An operator that starts now has nothing to write, and counts the same pods.
        let mut restarted = Index::default();
        for key in index.observed_keys() {
            restarted.apply_observed(index.observed(&key).unwrap().clone());
        }
        for (egg, _) in model.eggs.values() {
            restarted.apply_egg(egg.clone());
        }
        for pod in model.pods.values() {
            restarted.apply_pod(pod.clone());
        }
        for (name, labels) in &model.namespaces {
            restarted.apply_namespace(name, labels.clone());
        }
        restarted.settle();
        restarted.mark_all();
        // But for Eggs whose rejected edit has another selector: its pods are selected from now on.
        let same_selectors = model.eggs.values().all(|(egg, accepted)| {
            match (&egg.spec, accepted) {
                (Err(rejection), Some((_, accepted))) => rejection.selection.as_ref() == Some(&accepted.selection),
                _ => true,
            }
        });
        if same_selectors {
            prop_assert_eq!(write_marked(&mut restarted), 0);
        }
    }
}
