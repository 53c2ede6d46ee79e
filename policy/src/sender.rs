//! Which of a pod's Eggs count for which of its containers.

use l7egg_crds::PolicySpec;

use crate::Source;

/// Longest name of a container (RFC 1123 §2.1, as Kubernetes has it).
pub const MAX_CONTAINER_NAME: usize = 63;

/// Who in a pod sends. It matters only where some Egg is for certain containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender<'a> {
    /// The container of this name: of whatever kind, init and ephemeral ones too.
    Container(&'a str),
    /// None of them, as far as is known: the pod's own network stack, or a container that has begun this moment.
    Nobody,
}

/// Whether some Egg is for certain containers of the pod, so that they differ.
pub fn is_divided(sources: &[Source<'_>]) -> bool {
    sources.iter().any(|source| !source.spec.containers.is_empty())
}

/// Whether an Egg counts for a container: it names it, or names none.
pub fn counts_for(spec: &PolicySpec, container: &str) -> bool {
    spec.containers.is_empty() || spec.containers.iter().any(|name| name == container)
}

/// The Eggs that count for a container. If there are none, it is as free as a pod that no Egg selects.
pub fn of_container<'a>(sources: &[Source<'a>], container: &str) -> Vec<Source<'a>> {
    sources.iter().filter(|source| counts_for(source.spec, container)).cloned().collect()
}
