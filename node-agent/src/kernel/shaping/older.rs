//! Pods that agents of other versions have put under limits.
//!
//! Their programs go on until the present one is on the same interfaces. How the interfaces were before any of them is
//! remembered by the first: the others found them changed already.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use aya::maps::{HashMap, Map, MapData};
use l7egg_ebpf_common::abi::{SavedInterface, SavedInterfaceKey};

use super::interfaces::Saved;
use super::{MAPS, PODS, pinned};
use crate::causes::causes;
use crate::datapath::DatapathError;
use crate::kernel::error::{insertion, kernel};

/// Most segments of a packet on an interface that nobody has changed: `GSO_MAX_SEGS` of include/linux/netdevice.h.
const MAX_SEGMENTS: u32 = 65535;

/// What one version has of a pod.
struct Traces {
    version: PathBuf,
    slot: u32,
}

/// The pods, by uid.
#[derive(Default)]
pub struct Older(BTreeMap<String, Vec<Traces>>);

/// How interfaces were, by their namespaces and indices there.
#[derive(Default)]
pub struct Before(BTreeMap<(u64, u32), SavedInterface>);

impl Older {
    /// Those of these versions.
    pub fn find(versions: &[PathBuf]) -> Result<Self, DatapathError> {
        let mut older = Self::default();
        for version in versions {
            for (slot, uid) in pinned(&version.join(PODS))? {
                older.0.entry(uid).or_default().push(Traces { version: version.clone(), slot });
            }
        }
        Ok(older)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this is one.
    pub fn knows(&self, uid: &str) -> bool {
        self.0.contains_key(uid)
    }

    /// Their uids.
    pub fn uids(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    /// Where what is attached for a pod is pinned.
    pub fn pins(&self, uid: &str) -> Vec<PathBuf> {
        let traces = self.0.get(uid).into_iter().flatten();
        traces.map(|one| one.version.join(PODS).join(format!("{}-{uid}", one.slot))).collect()
    }

    /// How a pod's interfaces were.
    pub fn before(&self, uid: &str) -> Before {
        let mut before = Before::default();
        for Traces { version, slot } in self.0.get(uid).into_iter().flatten() {
            match saved_by(version) {
                Ok(saved) => before.add(&saved, *slot),
                // Its layout is another one. What every interface has that nobody has touched is next best.
                Err(error) => {
                    tracing::warn!(
                        uid,
                        error = causes(&error),
                        "how the pod's interfaces were before their limit was not to be read: they are put back as they are made"
                    );
                    self.pins(uid).iter().for_each(|pins| before.guess(pins));
                }
            }
        }
        before
    }

    /// Forgets a pod, of which nothing is attached any more.
    pub fn forget(&mut self, uid: &str) {
        self.pins(uid).iter().for_each(|pins| remove(pins));
        for Traces { version, slot } in self.0.remove(uid).into_iter().flatten() {
            if let Ok(mut saved) = saved_by(&version) {
                super::interfaces::forget(slot, &mut saved);
            }
        }
    }
}

impl Before {
    /// Adds what a map knows of a slot.
    pub fn add(&mut self, saved: &Saved, slot: u32) {
        for (key, one) in saved.iter().flatten().filter(|(key, _)| key.slot == slot) {
            self.one(key.netns, key.interface, one);
        }
    }

    /// What is known of an interface.
    pub fn of(&self, netns: u64, interface: u32) -> Option<&SavedInterface> {
        self.0.get(&(netns, interface))
    }

    /// The namespaces of the interfaces.
    pub fn netns(&self) -> BTreeSet<u64> {
        self.0.keys().map(|(netns, _)| *netns).collect()
    }

    /// Writes it down for a slot.
    pub fn write(&self, saved: &mut Saved, slot: u32) -> Result<(), DatapathError> {
        for ((netns, interface), one) in &self.0 {
            let key = SavedInterfaceKey { slot, interface: *interface, netns: *netns };
            saved.insert(key, *one, 0).map_err(|error| insertion("SAVED_INTERFACES", error))?;
        }
        Ok(())
    }

    /// An agent that found a limit lowered the segments of another, and took that one's qdisc for its own.
    fn one(&mut self, netns: u64, interface: u32, saved: SavedInterface) {
        let rank = |one: &SavedInterface| (one.gso_max_segs, one.qdisc_handle != 0);
        let known = self.0.entry((netns, interface)).or_insert(saved);
        if rank(known) < rank(&saved) {
            *known = saved;
        }
    }

    fn guess(&mut self, pins: &Path) {
        for entry in fs::read_dir(pins).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let mut parts = name.rsplit('-').map(str::parse::<u64>);
            if let (Some(Ok(interface)), Some(Ok(netns))) = (parts.next(), parts.next())
                && let Ok(interface) = interface.try_into()
            {
                let made = SavedInterface {
                    gso_max_segs: MAX_SEGMENTS,
                    qdisc_handle: 0,
                    qdisc_options_len: 0,
                    reserved: 0,
                    qdisc_kind: [0; 16],
                    qdisc_options: [0; 464],
                };
                self.0.entry((netns, interface)).or_insert(made);
            }
        }
    }
}

/// Removes a pod's pins.
pub fn remove(pins: &Path) {
    for entry in fs::read_dir(pins).into_iter().flatten().flatten() {
        let _ = fs::remove_file(entry.path());
    }
    let _ = fs::remove_dir(pins);
}

fn saved_by(version: &Path) -> Result<Saved, DatapathError> {
    let pin = version.join(MAPS).join("SAVED_INTERFACES");
    let open = || HashMap::try_from(Map::from_map_data(MapData::from_pin(&pin)?)?);
    open().map_err(kernel(format!("opening {}", pin.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(gso_max_segs: u32, qdisc_handle: u32) -> SavedInterface {
        SavedInterface {
            gso_max_segs,
            qdisc_handle,
            qdisc_options_len: 0,
            reserved: 0,
            qdisc_kind: [0; 16],
            qdisc_options: [0; 464],
        }
    }

    #[test]
    fn who_came_first_knows_how_it_was() {
        let (first, second) = (saved(65535, 0x5_0000), saved(1, 0));
        for order in [[first, second], [second, first]] {
            let mut before = Before::default();
            order.iter().for_each(|one| before.one(1, 2, *one));
            assert_eq!(before.of(1, 2), Some(&first));
        }
        // Where the rate is so high that segments stay as they are.
        let mut before = Before::default();
        [saved(65535, 0), first].iter().for_each(|one| before.one(1, 2, *one));
        assert_eq!(before.of(1, 2), Some(&first));
    }

    #[test]
    fn of_what_cannot_be_read_the_pins_tell_the_interfaces() {
        let pins = tempfile::tempdir().unwrap();
        for name in ["shape-4026532-7", "filter-shape-4026532-8", "clsact-4026532-8", "else"] {
            fs::write(pins.path().join(name), "").unwrap();
        }
        let mut before = Before::default();
        before.guess(pins.path());
        assert_eq!(before.0.keys().copied().collect::<Vec<_>>(), [(4_026_532, 7), (4_026_532, 8)]);
        assert_eq!(before.netns(), BTreeSet::from([4_026_532]));
    }
}
