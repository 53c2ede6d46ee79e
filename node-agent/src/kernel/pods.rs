//! Links: which programs are attached for which pod.
//!
//! Every pod has a directory of pins, `pods/<uid>`, with a link for each hook. Which subject it is stands in
//! the cgroup storage of its links, so that a new agent finds all it needs in the kernel.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use aya::maps::cgroup_storage::CgroupStorageKey;
use l7egg_ebpf_common::abi::Subject;

use super::error::{kernel, os_error};
use super::programs::{HOOKS, Hook, Maps, Programs};
use super::sys;
use crate::datapath::DatapathError;

/// A pod's links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Subject id.
    pub subject: u32,
    /// Inode number of the cgroup's directory.
    pub cgroup_id: u64,
    /// All hooks are attached.
    pub complete: bool,
}

/// Reads the pins of every pod, and puts the present programs in the place of those that are attached.
/// Pods whose cgroup is gone lose their pins.
pub fn open(directory: &Path, programs: &Programs, maps: &Maps) -> Result<Vec<(String, Pod)>, DatapathError> {
    let mut pods = Vec::new();
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(pods),
        Err(error) => return Err(kernel(format!("reading {}", directory.display()))(error)),
    };
    for entry in entries {
        let entry = entry.map_err(kernel(format!("reading {}", directory.display())))?;
        let uid = entry.file_name().to_string_lossy().into_owned();
        match open_pod(&entry.path(), programs, maps)? {
            Some(pod) => pods.push((uid, pod)),
            None => remove_pins(&entry.path()),
        }
    }
    Ok(pods)
}

/// Attaches what is not attached yet, for a pod that keeps its subject id.
pub fn attach(
    pins: &Path,
    uid: &str,
    cgroup: &Path,
    subject: u32,
    programs: &Programs,
    maps: &mut Maps,
) -> Result<Pod, DatapathError> {
    let gone = || DatapathError::CgroupGone { uid: uid.into(), path: cgroup.into() };
    let directory = File::open(cgroup).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => gone(),
        _ => kernel(format!("opening cgroup {} of pod {uid}", cgroup.display()))(error),
    })?;
    let cgroup_id = inode(&directory, cgroup)?;
    fs::create_dir_all(pins).map_err(kernel(format!("creating {}", pins.display())))?;
    for hook in HOOKS {
        let pin = pins.join(hook.name);
        if attached_to(&pin)? == Some(cgroup_id) {
            continue;
        }
        let what = format!("attaching {} to {} of pod {uid}", hook.name, cgroup.display());
        let link =
            sys::link_create(programs.fd(hook)?, directory.as_fd(), hook.attach_type).map_err(|error| {
                match error.raw_os_error() {
                    Some(libc::ENODEV | libc::ENOENT) => gone(),
                    _ => kernel(what.clone())(error),
                }
            })?;
        // Until it is pinned the link ends with this process: an agent that dies here leaves no programs
        // that do not know their pod.
        let key = CgroupStorageKey::new(cgroup_id, hook.attach_type);
        maps.subject.insert(key, Subject { id: subject, reserved: 0 }, 0).map_err(|error| {
            // The storage goes with the cgroup.
            match os_error(&error) {
                Some(libc::ENOENT) => gone(),
                _ => kernel(what.clone())(error),
            }
        })?;
        // A pin of the same name is of a cgroup that is gone.
        let _ = fs::remove_file(&pin);
        sys::pin(link.as_fd(), &pin).map_err(kernel(what))?;
    }
    Ok(Pod { subject, cgroup_id, complete: true })
}

/// Whether programs of others run where the pod's processes connect and send: they may change destinations, as load
/// balancers on sockets do. They are attached to the cgroup or its ancestors.
pub fn has_socket_balancer(cgroup: &Path, programs: &Programs) -> Result<bool, DatapathError> {
    let what = || format!("asking which programs run for {}", cgroup.display());
    // If it is gone, attaching tells.
    let Ok(directory) = File::open(cgroup) else { return Ok(false) };
    for hook in HOOKS.iter().filter(|hook| hook.sees_destinations()) {
        let own = programs.id(*hook)?;
        let ids = sys::effective_programs(directory.as_fd(), hook.attach_type).map_err(kernel(what()))?;
        if ids.iter().any(|id| *id != own) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Detaches everything of a pod.
pub fn remove_pins(pins: &Path) {
    // Judgement ends first, and the marks that it needs last.
    for hook in HOOKS.iter().rev() {
        let _ = sys::unpin_link(&pins.join(hook.name));
    }
    let _ = fs::remove_dir(pins);
}

/// Inode number of a cgroup's directory, which is its id on 64-bit kernels.
pub fn inode(directory: &File, path: &Path) -> Result<u64, DatapathError> {
    let metadata = directory.metadata().map_err(kernel(format!("reading cgroup {}", path.display())))?;
    Ok(metadata.ino())
}

fn open_pod(pins: &Path, programs: &Programs, maps: &Maps) -> Result<Option<Pod>, DatapathError> {
    let mut found: Option<Pod> = None;
    let mut links = 0;
    for hook in HOOKS {
        let Some((link, cgroup_id)) = open_link(&pins.join(hook.name))? else { continue };
        if cgroup_id == 0 {
            continue;
        }
        let what = || kernel(format!("replacing the program of {}/{}", pins.display(), hook.name));
        if !sys::link_replace(link.as_fd(), programs.fd(hook)?).map_err(what())? {
            continue;
        }
        let subject = match subject_of(maps, cgroup_id, hook) {
            Ok(subject) => subject,
            // The cgroup has gone this moment, and its storage.
            Err(_) if sys::link_cgroup(link.as_fd()).is_ok_and(|id| id == 0) => continue,
            Err(error) => return Err(error),
        };
        links += 1;
        let pod = found.get_or_insert(Pod { subject, cgroup_id, complete: false });
        if pod.cgroup_id != cgroup_id || pod.subject != subject {
            // Two cgroups: the agent was ended while the pod moved. Attach again.
            pod.complete = false;
            links = 0;
        }
    }
    Ok(found.map(|pod| Pod { complete: links == HOOKS.len(), ..pod }))
}

fn subject_of(maps: &Maps, cgroup_id: u64, hook: Hook) -> Result<u32, DatapathError> {
    let key = CgroupStorageKey::new(cgroup_id, hook.attach_type);
    let subject =
        maps.subject.get(key, 0).map_err(kernel(format!("reading the subject of cgroup {cgroup_id}")))?;
    Ok(subject.id)
}

fn attached_to(pin: &Path) -> Result<Option<u64>, DatapathError> {
    Ok(open_link(pin)?.map(|(_, cgroup_id)| cgroup_id))
}

/// The link that is pinned here, and the id of its cgroup; none if there is no pin.
pub fn open_link(pin: &Path) -> Result<Option<(OwnedFd, u64)>, DatapathError> {
    let link = match sys::open_pinned(pin) {
        Ok(link) => link,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(kernel(format!("opening {}", pin.display()))(error)),
    };
    let cgroup_id =
        sys::link_cgroup(link.as_fd()).map_err(kernel(format!("asking about {}", pin.display())))?;
    Ok(Some((link, cgroup_id)))
}
