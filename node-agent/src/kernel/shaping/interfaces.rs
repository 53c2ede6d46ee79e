//! A pod's interfaces: `fq`, segment size and program put on them, and taken off again.

use std::path::{Path, PathBuf};

use aya::maps::{HashMap, MapData};
use l7egg_ebpf_common::abi::{SavedInterface, SavedInterfaceKey};

use super::objects::PodProgram;
use super::older::Before;
use crate::datapath::DatapathError;
use crate::kernel::error::{insertion, kernel};
use crate::netns::pacing::{self, RootQdisc};
use crate::netns::tc::{self, Direction, Method, Program, Rank, Target};
use crate::netns::{Interface, Netns, NetnsError, by_who_made_them, interfaces};

/// The program, its links' pins, its filters.
const NAME: &str = "shape";

/// Of one pod so many are set up: each is a dozen system calls, and an entry of the map `SAVED_INTERFACES`.
const MOST: usize = 16;

/// How interfaces were before they were touched.
pub type Saved = HashMap<MapData, SavedInterfaceKey, SavedInterface>;

/// Where a pod's interfaces are.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub netns: &'a Netns,
    /// The agent's own namespace.
    pub host: &'a Netns,
    pub slot: u32,
    pub pins: &'a Path,
    pub method: Method,
}

/// Makes every interface of a pod ready, and attaches `program`, if there is one, to it. What has been done
/// already is not done again.
pub fn prepare(
    place: Place<'_>,
    uid: &str,
    segments: u32,
    program: Option<&mut PodProgram>,
    saved: &mut Saved,
) -> Result<(), DatapathError> {
    let mut work = |program: Option<std::os::fd::BorrowedFd<'_>>| {
        place.netns.run(|| {
            let all = usable(place.host)?;
            if all.is_empty() {
                return Err(DatapathError::network_not_ready(uid));
            }
            if all.len() > MOST {
                tracing::warn!(
                    uid,
                    interfaces = all.len(),
                    "a pod has more than {MOST} interfaces: bandwidth limits are for that many"
                );
            }
            all.iter().take(MOST).try_for_each(|interface| {
                set_up(place, interface, segments, saved)?;
                let Some(fd) = program else { return Ok(()) };
                let program = Program { fd, name: NAME, direction: Direction::Egress };
                let target = Target::new(interface.index, place.netns, place.pins);
                tc::attach(place.method, program, target).map_err(DatapathError::from)
            })
        })?
    };
    match program {
        Some(program) => program.with_fd(|fd| work(Some(fd)))?,
        None => work(None),
    }
}

/// Whether the pod has an interface yet.
pub fn is_there_any(place: Place<'_>) -> Result<bool, DatapathError> {
    place.netns.run(|| Ok(!usable(place.host)?.is_empty()))?
}

/// The pod's interfaces by which something can leave.
fn usable(host: &Netns) -> Result<Vec<Interface>, NetnsError> {
    let all = interfaces(host)?;
    Ok(by_who_made_them(&all).filter(|one| one.up && !one.loopback).cloned().collect())
}

/// What of [`prepare`]'s work is not there any more, if anything: the first thing that is found.
pub fn lost(place: Place<'_>, segments: u32, saved: &Saved) -> Result<Option<String>, DatapathError> {
    place.netns.run(|| {
        for interface in usable(place.host)?.into_iter().take(MOST) {
            let Interface { index, name, .. } = &interface;
            let key = SavedInterfaceKey { slot: place.slot, interface: *index, netns: place.netns.id() };
            let Ok(before) = saved.get(&key, 0) else {
                return Ok(Some(format!("interface {name} is new")));
            };
            let now = pacing::root_qdisc(*index)
                .map_err(kernel(format!("asking for the qdisc of interface {name} of the pod")))?;
            if !now.is_ours() {
                return Ok(Some(format!("somebody has replaced fq, the qdisc of interface {name}")));
            }
            if interface.gso_max_segs > segments.min(before.gso_max_segs) {
                return Ok(Some(format!("somebody has changed gso_max_segs of interface {name}")));
            }
            let target = Target::new(*index, place.netns, place.pins);
            match tc::rank(NAME, Direction::Egress, target)? {
                Rank::First => {}
                Rank::Absent => {
                    return Ok(Some(format!("somebody has detached the program of interface {name}")));
                }
                Rank::Behind(other) => {
                    return Ok(Some(format!(
                        "another was put before the program of interface {name}: {other}"
                    )));
                }
            }
        }
        Ok(None)
    })?
}

/// How many packets still wait at a pod's interfaces for the time of their departure.
pub fn waiting(netns: &Netns, host: &Netns) -> Result<u32, DatapathError> {
    netns.run(|| {
        let mut all = 0;
        for Interface { index, name, .. } in usable(host)?.into_iter().take(MOST) {
            let what = || kernel(format!("asking for the qdisc of interface {name} of the pod"));
            if pacing::root_qdisc(index).map_err(what())?.is_ours() {
                all += pacing::waiting(index).map_err(what())?;
            }
        }
        Ok(all)
    })?
}

/// Takes everything off again that is pinned in one of these directories, and puts back what was there before.
pub fn restore(netns: &Netns, host: &Netns, pins: &[PathBuf], before: &Before) -> Result<(), DatapathError> {
    netns.run(|| {
        for interface in interfaces(host)? {
            detach(&interface, netns, pins)?;
            let Some(before) = before.of(netns.id(), interface.index) else { continue };
            let what = |what| format!("putting back {what} of interface {} of the pod", interface.name);
            let now = pacing::root_qdisc(interface.index).map_err(kernel(what("the qdisc")))?;
            // Somebody else's meanwhile.
            if now.is_ours() {
                pacing::put_back(interface.index, &qdisc(before)).map_err(kernel(what("the qdisc")))?;
            }
            pacing::set_gso_max_segs(interface.index, before.gso_max_segs)
                .map_err(kernel(what("the segment size")))?;
        }
        Ok(())
    })?
}

/// Takes off what is pinned in `older`, where what is pinned in `place` is in its place.
pub fn succeed(place: Place<'_>, older: &[PathBuf]) -> Result<(), DatapathError> {
    place.netns.run(|| {
        for interface in interfaces(place.host)? {
            let own = Target::new(interface.index, place.netns, place.pins);
            for pins in older {
                tc::hand_over(NAME, Target::new(interface.index, place.netns, pins), own)?;
            }
            detach(&interface, place.netns, older)?;
        }
        Ok(())
    })?
}

fn detach(interface: &Interface, netns: &Netns, pins: &[PathBuf]) -> Result<(), NetnsError> {
    // Twice: a qdisc goes with the last filter, which may be another version's than the one that has made it.
    pins.iter()
        .chain(pins)
        .try_for_each(|pins| tc::detach(NAME, Direction::Egress, Target::new(interface.index, netns, pins)))
}

/// Forgets how the interfaces of a slot were.
pub fn forget(slot: u32, saved: &mut Saved) {
    let keys: Vec<SavedInterfaceKey> = saved.keys().flatten().filter(|key| key.slot == slot).collect();
    for key in keys {
        let _ = saved.remove(&key);
    }
}

fn set_up(
    place: Place<'_>,
    interface: &Interface,
    segments: u32,
    saved: &mut Saved,
) -> Result<(), DatapathError> {
    let name = &interface.name;
    let key = SavedInterfaceKey { slot: place.slot, interface: interface.index, netns: place.netns.id() };
    let now = pacing::root_qdisc(interface.index)
        .map_err(kernel(format!("asking for the qdisc of interface {name} of the pod")))?;
    let before = match saved.get(&key, 0) {
        Ok(before) => before,
        Err(_) => {
            let before = to_be_saved(interface, &now)?;
            saved.insert(key, before, 0).map_err(|error| insertion("SAVED_INTERFACES", error))?;
            before
        }
    };
    if !now.is_ours() {
        pacing::set_fq(interface.index).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT) => DatapathError::no_fq(),
            _ => kernel(format!("making fq the qdisc of interface {name} of the pod"))(error),
        })?;
    }
    let segments = segments.min(before.gso_max_segs);
    if interface.gso_max_segs != segments {
        pacing::set_gso_max_segs(interface.index, segments)
            .map_err(kernel(format!("setting the segment size of interface {name} of the pod")))?;
    }
    Ok(())
}

fn to_be_saved(interface: &Interface, qdisc: &RootQdisc) -> Result<SavedInterface, DatapathError> {
    let mut before = SavedInterface {
        gso_max_segs: interface.gso_max_segs,
        qdisc_handle: qdisc.handle,
        qdisc_options_len: qdisc.options.len() as u32,
        reserved: 0,
        qdisc_kind: [0; 16],
        qdisc_options: [0; 464],
    };
    if qdisc.is_ours() {
        // Left by an agent that was ended while it set the interface up for the first time.
        before.qdisc_handle = 0;
        before.qdisc_options_len = 0;
        return Ok(before);
    }
    let (kind, options) = (qdisc.kind.as_bytes(), &qdisc.options);
    if !qdisc.can_be_put_back()
        || kind.len() > before.qdisc_kind.len()
        || options.len() > before.qdisc_options.len()
    {
        return Err(DatapathError::interface_in_use(&interface.name, &qdisc.kind));
    }
    before.qdisc_kind[..kind.len()].copy_from_slice(kind);
    before.qdisc_options[..options.len()].copy_from_slice(options);
    Ok(before)
}

fn qdisc(saved: &SavedInterface) -> RootQdisc {
    let end = saved.qdisc_kind.iter().position(|byte| *byte == 0).unwrap_or(saved.qdisc_kind.len());
    let options = saved.qdisc_options.get(..saved.qdisc_options_len as usize).unwrap_or_default();
    RootQdisc {
        kind: String::from_utf8_lossy(&saved.qdisc_kind[..end]).into_owned(),
        handle: saved.qdisc_handle,
        options: options.to_vec(),
    }
}

impl From<NetnsError> for DatapathError {
    fn from(error: NetnsError) -> Self {
        if error.is_permission() {
            return DatapathError::NotShaped { reason: "NoPermission", message: error.to_string() };
        }
        DatapathError::Kernel { what: "working in a pod's network namespace".into(), source: error.into() }
    }
}
