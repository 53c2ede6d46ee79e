//! What the API server has, and what of the reports it has not.

use std::collections::BTreeMap;

use l7egg_crds::EggAssignmentStatus;

use crate::{assignment::AssignmentKey, report::Report};

/// What this agent has written, by assignment and its uid.
#[derive(Debug, Default)]
pub struct Written(BTreeMap<AssignmentKey, (String, EggAssignmentStatus)>);

impl Written {
    /// The reports that the API server does not have.
    pub fn due<'a>(
        &self,
        reports: &'a BTreeMap<AssignmentKey, Report>,
    ) -> Vec<(&'a AssignmentKey, &'a Report)> {
        reports.iter().filter(|(key, report)| self.before(key, report) != Some(&report.status)).collect()
    }

    /// What the API server has: what was written last, for it may not have come back yet.
    pub fn before<'a>(&'a self, key: &AssignmentKey, report: &'a Report) -> Option<&'a EggAssignmentStatus> {
        match self.0.get(key) {
            Some((uid, status)) if *uid == report.uid => Some(status),
            _ => report.known.as_ref(),
        }
    }

    /// This is what it has now.
    pub fn note(&mut self, key: &AssignmentKey, uid: &str, status: EggAssignmentStatus) {
        self.0.insert(key.clone(), (uid.to_owned(), status));
    }

    /// Forgets assignments that are no more.
    pub fn forget(&mut self, reports: &BTreeMap<AssignmentKey, Report>) {
        self.0.retain(|key, _| reports.contains_key(key));
    }

    /// Believes what comes from the API server again.
    pub fn recheck(&mut self) {
        self.0.clear();
    }
}
