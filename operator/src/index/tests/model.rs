//! Whatever happens in whatever order, doing what is marked leads to what a look at everything says.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;

#[derive(Clone, Debug)]
enum Happening {
    Pod {
        namespace: &'static str,
        name: &'static str,
        node: &'static str,
        app: &'static str,
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
    prop_oneof![
        4 => (namespace(), select(&["p", "q", "r"][..]), select(&["n1", "n2"][..]), label())
            .prop_map(|(namespace, name, node, app)| Happening::Pod { namespace, name, node, app }),
        1 => (namespace(), select(&["p", "q", "r"][..]))
            .prop_map(|(namespace, name)| Happening::PodGone { namespace, name }),
        1 => (namespace(), label()).prop_map(|(name, env)| Happening::Namespace { name, env }),
        1 => namespace().prop_map(|name| Happening::NamespaceGone { name }),
        3 => (namespace(), name(), label(), select(&["10.0.0.0/8", "192.0.2.0/24"][..]), any::<bool>())
            .prop_map(|(namespace, name, app, cidr, good)| Happening::Egg { namespace, name, app, cidr, good }),
        1 => (namespace(), name()).prop_map(|(namespace, name)| Happening::EggGone { namespace, name }),
        2 => (name(), label(), label(), any::<bool>())
            .prop_map(|(name, env, app, good)| Happening::ClusterEgg { name, env, app, good }),
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
        all
    }
}

fn selector(label: &str, value: &str) -> Selector {
    match value {
        "" => Selector::default(),
        value => Expression::Equal(label.to_owned(), value.to_owned()).into(),
    }
}

fn happen(index: &mut Index, model: &mut Model, happening: Happening) {
    match happening {
        Happening::Pod { namespace, name, node, app } => {
            let pod = pod(namespace, name, node, &[("app", app)]);
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
        Happening::Egg { namespace, name, app, cidr, good } => {
            let egg = model.next_egg(egg(namespace, name, 0, selector("app", app), cidr), good);
            index.apply_egg(egg);
        }
        Happening::ClusterEgg { name, env, app, good } => {
            let egg = model.next_egg(cluster_egg(name, selector("env", env), selector("app", app)), good);
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
        let marked: BTreeSet<_> = changes.desired.into_keys().chain(changes.observed.into_keys()).collect();
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
