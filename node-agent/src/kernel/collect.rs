//! Removing what has run out.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;

use aya::Pod;
use aya::maps::{HashMap, IterableMap, MapData};
use l7egg_ebpf_common::abi::{Learned, LearnedKey};

use super::entries;
use super::error::kernel;
use super::handover::both;
use super::names::AskedFor;
use super::programs::Maps;
use super::shares::Counted;
use super::sys::{self, NO_EXIST};
use crate::clock::{awake_ns, boot_ns};
use crate::datapath::DatapathError;

/// How long an address stays in the map after it ran out, in ns: an answer that renews it just then should
/// find it.
const KEEP_NS: u64 = 60_000_000_000;
/// Names are kept until there are this many, because a change of policy wants to know by what name a
/// connection was allowed, however long ago.
const NAMES_KEPT: usize = 65_536;
/// How long a name stays that was asked for, in ns: an address may be learned by it at any moment, which would be denied without it.
const ASKED_NS: u64 = 60_000_000_000;

/// Removes learned addresses that ran out, and everything of subjects that are no more; what is left, by subject.
pub fn learned(maps: &mut Maps, released: &BTreeSet<u32>) -> Result<Counted, DatapathError> {
    let now_ns = boot_ns();
    // Names have another clock: on a node that has slept this one is far ahead of it. Who asks from now on has asked since then.
    let since_ns = awake_ns().saturating_sub(ASKED_NS);
    let mut counted = Counted::begin(&maps.shares)?;
    let mut live = BTreeSet::new();
    let mut expired = Vec::new();
    let known = maps.names.asked()?;
    let surplus = known.len().saturating_sub(NAMES_KEPT);
    entries::each(&maps.learned, "LEARNED", |key, value| {
        if released.contains(&key.subject) || is_over(&value, now_ns) {
            expired.push(key);
            return;
        }
        counted.learned(key.subject);
        if surplus > 0 {
            live.extend(value.names.iter().map(|slot| slot.name));
        }
    })?;
    for key in expired {
        let map = maps.learned.map();
        let taken: Option<Learned> =
            sys::map_take(map.fd().as_fd(), &key).map_err(kernel("removing an address from map LEARNED"))?;
        let is_gone = taken.is_some();
        if put_back_if_renewed(maps, key, taken, now_ns, released) {
            counted.learned(key.subject);
        } else if is_gone {
            counted.removed_learned(key.subject);
        }
    }
    names(maps, known, surplus, |name| live.contains(&name.hash), since_ns, &mut counted)?;
    Ok(counted)
}

/// Removes all else of subjects that are no more: their flows, what came in for them, and their inherited connections. The rest makes
/// room for itself.
pub fn of_released(maps: &mut Maps, released: &BTreeSet<u32>) -> Result<(), DatapathError> {
    if released.is_empty() {
        return Ok(());
    }
    remove(&mut maps.flows, "FLOWS", |key, _| released.contains(&key.subject))?;
    remove(&mut maps.inbound, "INBOUND", |key, _| released.contains(&key.subject))?;
    remove(&mut maps.ended, "ENDED", |key, _| released.contains(&key.subject))?;
    remove(&mut maps.inherited, "INHERITED", |_, connection| released.contains(&connection.subject))
}

fn remove<K: Pod, V: Pod>(
    map: &mut HashMap<MapData, K, V>,
    name: &str,
    is_over: impl Fn(&K, &V) -> bool,
) -> Result<(), DatapathError> {
    let mut over = Vec::new();
    entries::each(map, name, |key, value| {
        if is_over(&key, &value) {
            over.push(key);
        }
    })?;
    for key in over {
        let _ = map.remove(&key);
    }
    Ok(())
}

/// An answer may have come between the look and the removal; whether it is there again.
fn put_back_if_renewed(
    maps: &mut Maps,
    key: LearnedKey,
    taken: Option<Learned>,
    now_ns: u64,
    released: &BTreeSet<u32>,
) -> bool {
    let taken = taken.filter(|value| !is_over(value, now_ns) && !released.contains(&key.subject));
    // A slot that was being written just then would stay so for good.
    let whole = taken.map(|value| both(&value, &Learned::default()));
    match whole.filter(|value| *value != Learned::default()) {
        Some(value) => maps.learned.insert(key, value, NO_EXIST).is_ok(),
        None => false,
    }
}

fn is_over(value: &Learned, now_ns: u64) -> bool {
    value.names.iter().all(|slot| slot.name == 0 || slot.expires_ns.saturating_add(KEEP_NS) < now_ns)
}

/// Removes the names that are too many: of those who have most, those first that nobody has asked for longest; not those of live
/// addresses, nor those that were asked for since then.
fn names(
    maps: &mut Maps,
    mut known: Vec<AskedFor>,
    surplus: usize,
    is_live: impl Fn(&AskedFor) -> bool,
    since_ns: u64,
    counted: &mut Counted,
) -> Result<(), DatapathError> {
    known.sort_unstable();
    let (over, kept) = too_many(known, surplus, |name| is_live(name) || name.at_ns >= since_ns);
    kept.iter().for_each(|name| counted.name(name.subject));
    for name in over {
        if maps.names.remove_unless_asked(name.hash, since_ns)? {
            counted.removed_name(name.subject);
        } else {
            counted.name(name.subject);
        }
    }
    if surplus > 0 { maps.names.remove_lone_tails() } else { Ok(()) }
}

/// Which names go, of all, the oldest first, and which stay. What those that have most use they keep, and nobody else gives up any
/// for them: the table has room beside what one may have (`l7egg_ebpf_common::share`).
fn too_many(
    known: Vec<AskedFor>,
    surplus: usize,
    stays: impl Fn(&AskedFor) -> bool,
) -> (Vec<AskedFor>, Vec<AskedFor>) {
    let mut surpluses = surpluses(&known, surplus);
    known.into_iter().partition(|name| match surpluses.get_mut(&name.subject) {
        Some(left) if *left > 0 && !stays(name) => {
            *left -= 1;
            true
        }
        _ => false,
    })
}

/// How many names each subject should give up, so that all together give up `surplus` and those that have most come down to the same
/// number.
fn surpluses(known: &[AskedFor], surplus: usize) -> BTreeMap<u32, usize> {
    if surplus == 0 {
        return BTreeMap::new();
    }
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    known.iter().for_each(|name| *counts.entry(name.subject).or_default() += 1);
    let above = |bound: usize| counts.values().map(|count| count.saturating_sub(bound)).sum::<usize>();
    // The highest bound with which enough are given up.
    let (mut enough, mut too_few) = (0, known.len());
    while too_few - enough > 1 {
        let bound = enough + (too_few - enough) / 2;
        if above(bound) >= surplus { enough = bound } else { too_few = bound }
    }
    counts.into_iter().map(|(subject, count)| (subject, count.saturating_sub(enough))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_use_stays_and_others_give_up_nothing_for_it() {
        let of = |subject, from: u64, to| {
            (from..to).map(move |hash| AskedFor { at_ns: hash, hash, subject }).collect::<Vec<_>>()
        };
        let known = [of(1, 0, 100), of(2, 100, 110)].concat();
        let hashes = |names: Vec<AskedFor>| names.into_iter().map(|name| name.hash).collect::<Vec<_>>();
        let is_live = |name: &AskedFor| name.hash < 95;
        let (over, kept) = too_many(known.clone(), 3, is_live);
        assert_eq!((hashes(over), kept.len()), (vec![95, 96, 97], 107));
        let (over, kept) = too_many(known.clone(), 7, is_live);
        assert_eq!((hashes(over), kept.len()), (vec![95, 96, 97, 98, 99], 105), "of the others none");
        let (over, kept) = too_many(known.clone(), 200, is_live);
        assert_eq!((over.len(), kept.len()), (15, 95));
        assert!(too_many(known.clone(), 200, |_| true).0.is_empty());
        assert!(too_many(known, 0, is_live).0.is_empty());
    }

    #[test]
    fn who_has_most_gives_up_most() {
        let of = |subject, count: u64| (0..count).map(move |hash| AskedFor { at_ns: hash, hash, subject });
        let known: Vec<AskedFor> = of(1, 1_000).chain(of(2, 10)).chain(of(3, 600)).collect();
        assert_eq!(surpluses(&known, 0), BTreeMap::new());
        assert_eq!(surpluses(&known, 300), BTreeMap::from([(1, 300), (2, 0), (3, 0)]));
        assert_eq!(surpluses(&known, 600), BTreeMap::from([(1, 500), (2, 0), (3, 100)]));
        assert_eq!(surpluses(&known, 1_610), BTreeMap::from([(1, 1_000), (2, 10), (3, 600)]));
    }
}
