//! Names of the objects in the index.

use std::fmt;

use l7egg_crds::{EggKind, SYSTEM_NAMESPACE};

/// An Egg or ClusterEgg.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EggKey {
    /// Egg or ClusterEgg.
    pub kind: EggKind,
    /// Namespace of an Egg; a ClusterEgg has none.
    pub namespace: Option<String>,
    /// Name of the object.
    pub name: String,
}

impl EggKey {
    /// The Egg of that name.
    pub fn egg(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        EggKey { kind: EggKind::Egg, namespace: Some(namespace.into()), name: name.into() }
    }

    /// The ClusterEgg of that name.
    pub fn cluster(name: impl Into<String>) -> Self {
        EggKey { kind: EggKind::ClusterEgg, namespace: None, name: name.into() }
    }

    /// Namespace that holds its assignments.
    pub fn assignment_namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or(SYSTEM_NAMESPACE)
    }
}

impl fmt::Display for EggKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "Egg {namespace}/{}", self.name),
            None => write!(f, "ClusterEgg {}", self.name),
        }
    }
}

/// A namespaced object of a known kind: a pod or an EggAssignment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
}

impl ObjectKey {
    /// The object of that name.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        ObjectKey { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
