//! What is enforced of a pod's Eggs that cannot all be.

use l7egg_crds::{EggKind, Mode, PolicySpec};

use super::{Compiled, Failure, source};
use crate::{
    assignment::AssignmentKey,
    inventory::Entry,
    policies::{POSTPONED, PolicySource},
};

/// How many Eggs are found out, one after another, that make it too much. Each takes several attempts of up to a second.
const MOST_FOUND: usize = 3;

/// An Egg with its assignment.
pub(super) type Written<'a> = (&'a Entry, PolicySource<'a>);

/// The Eggs that fit together, and their policy.
pub(super) struct Fitting<'a> {
    pub eggs: Vec<Written<'a>>,
    pub compiled: Compiled,
}

/// Of a pod's Eggs as many as fit: those that are enforced first, and those of the cluster before those of a namespace. Nothing, if
/// what is left out would free something or take back what somebody denies.
pub(super) fn what_fits<'a>(
    sources: &[(&'a Entry, Result<&'a PolicySpec, Failure>)],
    mut compile: impl FnMut(&[PolicySource<'a>]) -> Result<Compiled, Failure>,
) -> Option<Fitting<'a>> {
    let readable =
        sources.iter().filter_map(|(entry, spec)| Some((*entry, source(entry, spec.as_ref().ok()?))));
    let mut eggs: Vec<Written<'a>> = readable.collect();
    let is_unread = eggs.len() < sources.len();
    eggs.sort_by_key(|(entry, source)| (source.spec.mode != Mode::Enforce, !is_of_cluster(entry)));
    for _ in 0..2 {
        let (fitting, left_out) = fit(&eggs, &mut compile)?;
        let kept = || fitting.eggs.iter().map(|(_, kept)| kept.spec);
        let missed: Vec<&AssignmentKey> = left_out
            .iter()
            .filter(|(_, out)| is_missed(out.spec, kept()))
            .map(|(entry, _)| &entry.object.key)
            .collect();
        if missed.is_empty() {
            // Nobody knows what else it says, but it frees nobody.
            let is_restricted =
                || kept().any(|spec| spec.mode == Mode::Enforce && spec.containers.is_empty());
            let is_clusters = || fitting.eggs.iter().any(|(entry, _)| is_of_cluster(entry));
            return (!is_unread || is_restricted() || is_clusters()).then_some(fitting);
        }
        // One that is for more may restrict all that the others do.
        eggs.sort_by_key(|(entry, _)| !missed.contains(&&entry.object.key));
    }
    None
}

/// Whether an Egg is one of the cluster.
pub(super) fn is_of_cluster(entry: &Entry) -> bool {
    entry.good.as_ref().is_some_and(|good| good.egg.kind == EggKind::ClusterEgg)
}

/// Whether more is reachable without this Egg, beside those that are `kept`.
fn is_missed<'a>(out: &PolicySpec, mut kept: impl Iterator<Item = &'a PolicySpec>) -> bool {
    let narrows_dns = out
        .dns
        .as_ref()
        .is_some_and(|dns| dns.refuse_unmatched || !dns.servers.is_empty() || dns.max_ttl.is_some());
    out.mode == Mode::Enforce
        && (narrows_dns
            || out.egress.iter().any(|rule| rule.action == l7egg_crds::Action::Deny)
            || !kept.any(|kept| restricts(kept, out)))
}

/// Whether an Egg denies what it does not allow to all that another one is for.
fn restricts(one: &PolicySpec, other: &PolicySpec) -> bool {
    let is_for_all = |names: &[String]| names.iter().all(|name| one.containers.contains(name));
    one.mode == Mode::Enforce
        && (one.containers.is_empty() || !other.containers.is_empty() && is_for_all(&other.containers))
}

/// As many as fit, in their order, and the others. Nothing if none fits, or if there is no time to find out.
fn fit<'a>(
    eggs: &[Written<'a>],
    compile: &mut impl FnMut(&[PolicySource<'a>]) -> Result<Compiled, Failure>,
) -> Option<(Fitting<'a>, Vec<Written<'a>>)> {
    let (mut kept, mut left_out, mut compiled) = (Vec::new(), Vec::new(), None);
    let mut rest = eggs;
    while !rest.is_empty() {
        // The longest beginning of the rest that still fits.
        let (mut fits, mut too_much) = (0, rest.len() + 1);
        while too_much - fits > 1 {
            // At first all of it.
            let count = if too_much > rest.len() { rest.len() } else { (fits + too_much) / 2 };
            let sources = kept.iter().chain(&rest[..count]).map(|(_, source): &Written<'a>| source.clone());
            match compile(&sources.collect::<Vec<_>>()) {
                Ok(policy) => (fits, compiled) = (count, Some(policy)),
                Err(failure) if failure.reason == POSTPONED => return None,
                Err(_) => too_much = count,
            }
        }
        kept.extend_from_slice(&rest[..fits]);
        rest = &rest[fits..];
        let found = if left_out.len() < MOST_FOUND { rest.len().min(1) } else { rest.len() };
        left_out.extend_from_slice(&rest[..found]);
        rest = &rest[found..];
    }
    Some((Fitting { eggs: kept, compiled: compiled? }, left_out))
}
