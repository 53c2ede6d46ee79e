//! The host's side of a pod's interfaces: what leaves the pod comes in there, frames that the pod's
//! processes write straight to their interface too.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use nix::net::if_::if_indextoname;

use super::error::refused;
use super::tc::{self, Direction, Method, Program, Target};
use super::{Interface, Netns, NetnsError, interfaces};

/// What a program on the host's side sees of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// The pod's interfaces whose other end has the program.
    pub covered: Vec<Interface>,
    /// Its other interfaces that are up, but loopback: what leaves by them is not seen.
    pub uncovered: Vec<Interface>,
}

impl Coverage {
    /// Whether everything that leaves the pod is seen. Not so for a pod without any interface: it may get
    /// some yet.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.uncovered.is_empty() && !self.covered.is_empty()
    }
}

/// Attaches a program to the host's end of every interface of `pod` that has one there, and tells what is
/// left. May be repeated, and replaces what an earlier agent attached by the same name. `pins` is a
/// directory in bpffs for nothing but this program and pod; call from a thread in the host's namespace.
///
/// # Errors
/// The pod's namespace cannot be entered, or the kernel refuses an attachment.
pub fn attach(
    method: Method,
    program: Program<'_>,
    pod: &Netns,
    host: &Netns,
    pins: &Path,
) -> Result<Coverage, NetnsError> {
    let mut coverage = Coverage::default();
    let mut kept = Vec::new();
    for interface in pod.run(|| interfaces(host))?? {
        match interface.host_peer {
            _ if interface.loopback => {}
            Some(peer) => {
                let target = Target::new(peer, host, pins);
                tc::attach(method, program, target)?;
                kept.push(target.pin_suffix());
                coverage.covered.push(interface);
            }
            None if interface.up => coverage.uncovered.push(interface),
            None => {}
        }
    }
    forget(pins, &kept, host)?;
    Ok(coverage)
}

/// Detaches the program of this name from all that [`attach`] attached it to, by the same `pins`.
///
/// # Errors
/// The kernel refuses.
pub fn detach(program: Program<'_>, host: &Netns, pins: &Path) -> Result<(), NetnsError> {
    detach_named(program.name, program.direction, host, pins)
}

/// The same for who has no program at hand.
///
/// # Errors
/// The kernel refuses.
pub fn detach_named(
    program: &str,
    direction: Direction,
    host: &Netns,
    pins: &Path,
) -> Result<(), NetnsError> {
    for name in names(pins)? {
        if let Some(interface) = interface_of(&name) {
            tc::detach(program, direction, Target::new(interface, host, pins))?;
        }
    }
    for name in names(pins)? {
        remove(&pins.join(name))?;
    }
    match fs::remove_dir(pins) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(refused(format!("removing {}", pins.display()))(error))
        }
        _ => Ok(()),
    }
}

/// Gives what is remembered of qdiscs by the pins in `from` to those in `to`, as far as the program's filters are of these.
///
/// # Errors
/// A pin cannot be moved.
pub fn hand_over(program: &str, host: &Netns, from: &Path, to: &Path) -> Result<(), NetnsError> {
    pinned(from)?.into_iter().try_for_each(|interface| {
        tc::hand_over(program, Target::new(interface, host, from), Target::new(interface, host, to))
    })
}

/// The interfaces that a directory has pins for, by their indices.
///
/// # Errors
/// It cannot be read.
pub fn pinned(pins: &Path) -> Result<BTreeSet<u32>, NetnsError> {
    Ok(names(pins)?.iter().filter_map(|name| interface_of(name)).collect())
}

/// Removes the pins of interfaces whose indices are other interfaces' now, so that [`detach`] leaves those alone.
///
/// # Errors
/// A pin cannot be removed.
pub fn forget_where(pins: &Path, is_anothers: impl Fn(u32) -> bool) -> Result<(), NetnsError> {
    let anothers = |name: &String| interface_of(name).is_some_and(&is_anothers);
    names(pins)?.iter().filter(|name| anothers(name)).try_for_each(|name| remove(&pins.join(name)))
}

/// Removes pins of interfaces that are gone. A pod with CAP_NET_ADMIN may have taken one elsewhere: what leaves by that still
/// comes out here.
fn forget(pins: &Path, kept: &[String], host: &Netns) -> Result<(), NetnsError> {
    for name in names(pins)?.into_iter().filter(|name| !kept.iter().any(|suffix| name.ends_with(suffix))) {
        let interface = interface_of(&name).filter(|interface| exists(*interface));
        let is_there = |interface| name.ends_with(&Target::new(interface, host, pins).pin_suffix());
        if !interface.is_some_and(is_there) {
            remove(&pins.join(&name))?;
        }
    }
    Ok(())
}

/// Whether there is an interface with this index, where the thread is.
#[must_use]
pub fn exists(interface: u32) -> bool {
    name(interface).is_some()
}

/// The name of the interface with this index, where the thread is. nix takes the null of if_indextoname(3) for a name without letters.
#[must_use]
pub fn name(interface: u32) -> Option<String> {
    let name = if_indextoname(interface).ok().filter(|name| !name.is_empty())?;
    Some(name.to_string_lossy().into_owned())
}

fn remove(pin: &Path) -> Result<(), NetnsError> {
    fs::remove_file(pin).map_err(refused(format!("removing {}", pin.display())))
}

/// The index that a pin's name ends with.
fn interface_of(name: &str) -> Option<u32> {
    name.rsplit('-').next()?.parse().ok()
}

fn names(pins: &Path) -> Result<Vec<String>, NetnsError> {
    let entries = match fs::read_dir(pins) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(refused(format!("reading {}", pins.display()))(error)),
    };
    Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}
