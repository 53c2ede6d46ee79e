//! What may differ now between desired and observed.

use std::collections::{BTreeMap, BTreeSet};

use super::{EggKey, ObjectKey};

/// What changed since the last time it was asked. To look at something in vain costs nothing but the look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// EggAssignments that are to be something else than before, each with its Egg if that is known.
    pub desired: BTreeMap<ObjectKey, Option<EggKey>>,
    /// EggAssignments whose part of a shared rate may be another, because pods of other nodes came or went.
    pub shares: BTreeMap<ObjectKey, Option<EggKey>>,
    /// EggAssignments that became something else on the API server.
    pub observed: BTreeMap<ObjectKey, Option<EggKey>>,
    /// Of these, the ones that the watch shows gone or with another spec or label. What agents report is none of it.
    pub altered: BTreeSet<ObjectKey>,
    /// Eggs whose status may be another.
    pub status: BTreeSet<EggKey>,
    /// Eggs of which some are to be in `shares`. Each has thousands of nodes, and a list brings a hundred thousand of its pods:
    /// so they are looked up once, when all that is asked for.
    pub(super) sharing: BTreeSet<EggKey>,
}

impl Changes {
    pub(super) fn desired(&mut self, key: &ObjectKey, egg: Option<&EggKey>) {
        self.desired.insert(key.clone(), egg.cloned());
    }

    pub(super) fn observed(&mut self, key: &ObjectKey, egg: Option<&EggKey>) {
        self.observed.insert(key.clone(), egg.cloned());
    }
}
