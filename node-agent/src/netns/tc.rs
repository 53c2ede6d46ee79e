//! Programs of type `sched_cls` on interfaces: by tcx where the kernel has it (Linux 6.6), else as a filter
//! of a clsact qdisc.
//!
//! Ours run before those that are there already; a program that lets others judge, too, returns
//! `TC_ACT_UNSPEC`. They outlive the agent: a link is pinned, a filter belongs to the interface.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use aya::util::KernelVersion;

use super::clsact::{self, Filter};
use super::error::refused;
use super::{Netns, NetnsError};
use crate::kernel::sys;

/// `BPF_TCX_INGRESS` and `BPF_TCX_EGRESS` of `enum bpf_attach_type`, include/uapi/linux/bpf.h.
const TCX_INGRESS: u32 = 46;
const TCX_EGRESS: u32 = 47;

/// How programs are attached to interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// By links of their own (Linux 6.6 and later).
    Tcx,
    /// As filters of the interface's clsact qdisc.
    Clsact,
}

impl Method {
    /// The one for the running kernel.
    #[must_use]
    pub fn of_this_kernel() -> Self {
        match KernelVersion::current() {
            Ok(version) if version >= KernelVersion::new(6, 6, 0) => Method::Tcx,
            _ => Method::Clsact,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Method::Tcx => "tcx",
            Method::Clsact => "clsact",
        })
    }
}

/// Which packets a program sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Those that the interface receives.
    Ingress,
    /// Those that it is to send, before its qdisc.
    Egress,
}

impl fmt::Display for Direction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        })
    }
}

/// A program to be attached.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// Its descriptor.
    pub fd: BorrowedFd<'a>,
    /// Its name, which is that of the pin and of the filter: one attachment for each name and interface.
    pub name: &'a str,
    /// The packets that it is for.
    pub direction: Direction,
}

/// The interfaces' side of an attachment.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Index of the interface in the namespace of the calling thread.
    pub interface: u32,
    /// That namespace's [`Netns::id`].
    pub netns: u64,
    /// Directory in bpffs for what must be remembered about the attachment; a pod's own.
    pub pins: &'a Path,
}

impl<'a> Target<'a> {
    /// An interface of the present namespace.
    #[must_use]
    pub fn new(interface: u32, netns: &Netns, pins: &'a Path) -> Self {
        Target { interface, netns: netns.id(), pins }
    }

    /// What ends the names of all pins that are about this interface.
    #[must_use]
    pub fn pin_suffix(&self) -> String {
        format!("-{}-{}", self.netns, self.interface)
    }

    fn link_pin(&self, program: &str) -> PathBuf {
        self.pins.join(format!("{program}{}", self.pin_suffix()))
    }

    /// Its presence says that there is a filter, or the clsact qdisc for it, of our making. bpffs holds
    /// nothing but BPF objects, so it is a pin of the program.
    fn filter_pin(&self, program: &str) -> PathBuf {
        self.pins.join(format!("filter-{program}{}", self.pin_suffix()))
    }

    fn qdisc_pin(&self) -> PathBuf {
        self.pins.join(format!("clsact{}", self.pin_suffix()))
    }
}

/// Attaches a program, or puts it in the place of the one of the same name that is attached, in one step.
///
/// # Errors
/// The kernel refuses: the interface is gone, a capability is missing, or another's filter is in the way.
pub fn attach(method: Method, program: Program<'_>, target: Target<'_>) -> Result<(), NetnsError> {
    let what =
        format!("attaching {} to {} of interface {}", program.name, program.direction, target.interface);
    fs::create_dir_all(target.pins).map_err(refused(format!("creating {}", target.pins.display())))?;
    match method {
        Method::Tcx => attach_link(program, target).map_err(refused(what)),
        Method::Clsact => {
            let made = clsact::add_qdisc(target.interface).map_err(refused(format!(
                "{what}: adding its clsact qdisc (is there an ingress qdisc already?)"
            )))?;
            if made {
                pin_over(program.fd, &target.qdisc_pin()).map_err(refused(what.clone()))?;
            }
            pin_over(program.fd, &target.filter_pin(program.name)).map_err(refused(what.clone()))?;
            clsact::add_filter(filter(program.name, program.direction, target), program.fd)
                .map_err(refused(what))
        }
    }
}

/// Detaches a program; nothing happens if it is not attached. A clsact qdisc that was made for it goes with
/// the last filter, whoever's that is.
///
/// # Errors
/// The kernel refuses, for another reason than that the interface is gone.
pub fn detach(name: &str, direction: Direction, target: Target<'_>) -> Result<(), NetnsError> {
    let what = format!("detaching {name} from {direction} of interface {}", target.interface);
    remove_pin(&target.link_pin(name)).map_err(refused(what.clone()))?;
    if target.filter_pin(name).exists() {
        clsact::remove_filter(filter(name, direction, target)).map_err(refused(what.clone()))?;
        remove_pin(&target.filter_pin(name)).map_err(refused(what.clone()))?;
    }
    if target.qdisc_pin().exists() && !clsact::has_filters(target.interface).map_err(refused(what.clone()))? {
        clsact::remove_qdisc(target.interface).map_err(refused(what.clone()))?;
        remove_pin(&target.qdisc_pin()).map_err(refused(what))?;
    }
    Ok(())
}

/// Whether a program of this name is attached.
///
/// # Errors
/// The kernel does not tell.
pub fn is_attached(name: &str, direction: Direction, target: Target<'_>) -> Result<bool, NetnsError> {
    let what = format!("asking for {name} at {direction} of interface {}", target.interface);
    match sys::open_pinned(&target.link_pin(name)) {
        Ok(link) => {
            let interface = sys::link_interface(link.as_fd()).map_err(refused(what))?;
            Ok(interface == target.interface)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            clsact::has_filter(filter(name, direction, target)).map_err(refused(what))
        }
        Err(error) => Err(refused(what)(error)),
    }
}

fn attach_link(program: Program<'_>, target: Target<'_>) -> io::Result<()> {
    let pin = target.link_pin(program.name);
    match sys::open_pinned(&pin) {
        // 0 once the interface is gone.
        Ok(link) if sys::link_interface(link.as_fd())? == target.interface => {
            return sys::link_update(link.as_fd(), program.fd);
        }
        Ok(_) => fs::remove_file(&pin)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let attach_type = match program.direction {
        Direction::Ingress => TCX_INGRESS,
        Direction::Egress => TCX_EGRESS,
    };
    let link = sys::link_create_first(program.fd, target.interface, attach_type)?;
    sys::pin(link.as_fd(), &pin)
}

/// Pins a program, in the place of what is pinned there.
fn pin_over(program: BorrowedFd<'_>, pin: &Path) -> io::Result<()> {
    let mut new = pin.as_os_str().to_owned();
    new.push("-new");
    let _ = fs::remove_file(&new);
    sys::pin(program, Path::new(&new))?;
    fs::rename(&new, pin)
}

fn remove_pin(pin: &Path) -> io::Result<()> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn filter<'a>(name: &'a str, direction: Direction, target: Target<'_>) -> Filter<'a> {
    Filter { interface: target.interface, direction, name }
}
