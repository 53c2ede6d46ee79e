//! Policies from the specs of Eggs, in YAML, and what the pods' resolvers are told.

use l7egg_crds::PolicySpec;
use l7egg_policy::{CompiledPolicy, DomainName, ResolvConf, Source, compile};

use super::RESOLVERS;

/// A policy from the spec of one Egg.
pub fn policy(yaml: &str) -> CompiledPolicy {
    let spec: PolicySpec = serde_yaml::from_str(yaml).expect("a policy in the test");
    compile(&[Source { name: "Egg test/test".into(), spec: &spec }], &resolv_conf()).expect("a valid policy")
}

/// The policy of several Eggs together.
pub fn together(eggs: &[&str]) -> CompiledPolicy {
    let specs: Vec<PolicySpec> =
        eggs.iter().map(|yaml| serde_yaml::from_str(yaml).expect("a policy in the test")).collect();
    let sources: Vec<Source<'_>> = (0..)
        .zip(&specs)
        .map(|(index, spec): (u32, _)| Source { name: format!("Egg test/{index}"), spec })
        .collect();
    compile(&sources, &resolv_conf()).expect("a valid policy")
}

/// What the resolver of every pod here is told.
pub fn resolv_conf() -> ResolvConf {
    let search = ["shop.svc.cluster.test", "svc.cluster.test", "cluster.test"];
    ResolvConf {
        servers: RESOLVERS.iter().map(|address| address.parse().expect("an address")).collect(),
        search: search.iter().map(|domain| DomainName::parse(domain).expect("a name")).collect(),
        own_search: Default::default(),
    }
}
