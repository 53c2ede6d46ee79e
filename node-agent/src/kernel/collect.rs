//! Removing what has run out.

use std::collections::BTreeSet;
use std::os::fd::AsFd;

use aya::Pod;
use aya::maps::{HashMap, IterableMap, MapData};
use l7egg_ebpf_common::abi::{Learned, LearnedKey};

use super::entries;
use super::error::kernel;
use super::names::AskedFor;
use super::programs::Maps;
use super::shares::Counted;
use super::sys;
use crate::datapath::DatapathError;

/// How long an address stays in the map after it ran out, in ns: an answer that renews it just then should
/// find it.
const KEEP_NS: u64 = 60_000_000_000;
/// Names are kept until there are this many, because a change of policy wants to know by what name a
/// connection was allowed, however long ago.
const NAMES_KEPT: usize = 65_536;

/// Removes learned addresses that ran out, and everything of subjects that are no more; what is left, by subject.
pub fn learned(maps: &mut Maps, now_ns: u64, released: &BTreeSet<u32>) -> Result<Counted, DatapathError> {
    let mut counted = Counted::default();
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
        put_back_if_renewed(maps, key, taken, now_ns, released);
    }
    names(maps, known, surplus, &live, &mut counted)?;
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

/// An answer may have come between the look and the removal.
fn put_back_if_renewed(
    maps: &mut Maps,
    key: LearnedKey,
    taken: Option<Learned>,
    now_ns: u64,
    released: &BTreeSet<u32>,
) {
    const NO_EXIST: u64 = 1;
    if let Some(value) = taken.filter(|value| !is_over(value, now_ns) && !released.contains(&key.subject)) {
        let _ = maps.learned.insert(key, value, NO_EXIST);
    }
}

fn is_over(value: &Learned, now_ns: u64) -> bool {
    value.names.iter().all(|slot| slot.name == 0 || slot.expires_ns.saturating_add(KEEP_NS) < now_ns)
}

/// Removes that many names, those first that nobody has asked for longest; not those of live addresses.
fn names(
    maps: &mut Maps,
    mut known: Vec<AskedFor>,
    mut surplus: usize,
    live: &BTreeSet<u64>,
    counted: &mut Counted,
) -> Result<(), DatapathError> {
    let is_too_many = surplus > 0;
    known.sort_unstable();
    for name in known {
        if surplus > 0 && !live.contains(&name.hash) {
            maps.names.remove(name.hash);
            surplus -= 1;
        } else {
            counted.name(name.subject);
        }
    }
    if is_too_many { maps.names.remove_lone_tails() } else { Ok(()) }
}
