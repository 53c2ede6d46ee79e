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

use aya::programs::ProgramInfo;
use aya::util::KernelVersion;

use super::clsact::{self, Filter};
use super::error::refused;
use super::{Netns, NetnsError, tcx};
use crate::kernel::sys;

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

/// Where a program is among those of its interface and direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rank {
    /// It is not attached.
    Absent,
    /// It sees every packet before all others.
    First,
    /// It sees what this one leaves to it.
    Behind(String),
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

    /// Of a link before the one that is pinned there, whose place it is about to take.
    fn next_link_pin(&self, program: &str) -> PathBuf {
        self.pins.join(format!("{program}{}-new", self.pin_suffix()))
    }

    /// Of the program that our filter has. A filter of the same name with another program is of another version of l7egg,
    /// which has put it in the place of ours.
    fn filter_pin(&self, program: &str) -> PathBuf {
        self.pins.join(format!("filter-{program}{}", self.pin_suffix()))
    }

    /// The same while that program is being replaced: the filter has one of the two.
    fn next_filter_pin(&self, program: &str) -> PathBuf {
        self.pins.join(format!("filter-{program}{}-new", self.pin_suffix()))
    }

    /// Its presence says that the clsact qdisc is of our making. bpffs holds nothing but BPF objects, so it is a pin of the
    /// program.
    fn qdisc_pin(&self) -> PathBuf {
        self.pins.join(format!("clsact{}", self.pin_suffix()))
    }
}

/// Attaches a program before all others, or puts it in the place of the one of the same name that is attached, in one step; where
/// others have come before that, it is moved.
///
/// # Errors
/// The kernel refuses: the interface is gone, a capability is missing, or another's filter is in the way.
pub fn attach(method: Method, program: Program<'_>, target: Target<'_>) -> Result<(), NetnsError> {
    let what =
        format!("attaching {} to {} of interface {}", program.name, program.direction, target.interface);
    fs::create_dir_all(target.pins).map_err(refused(format!("creating {}", target.pins.display())))?;
    match method {
        Method::Tcx => {
            let pins = [target.link_pin(program.name), target.next_link_pin(program.name)];
            tcx::attach(program, target.interface, &pins).map_err(refused(what))
        }
        Method::Clsact => {
            make_qdisc(program.fd, target).map_err(refused(format!(
                "{what}: adding its clsact qdisc (is there an ingress qdisc already?)"
            )))?;
            attach_filter(program, target).map_err(refused(what))
        }
    }
}

/// Detaches a program; nothing happens if it is not attached, or another version of l7egg has put its own filter in the place of
/// this one's. A clsact qdisc that was made for it goes with
/// the last filter, whoever's that is.
///
/// # Errors
/// The kernel refuses, for another reason than that the interface is gone.
pub fn detach(name: &str, direction: Direction, target: Target<'_>) -> Result<(), NetnsError> {
    let what = format!("detaching {name} from {direction} of interface {}", target.interface);
    for pin in [target.next_link_pin(name), target.link_pin(name)] {
        sys::unpin_link(&pin).map_err(refused(what.clone()))?;
    }
    detach_filter(filter(name, direction, target), target).map_err(refused(what.clone()))?;
    if target.qdisc_pin().exists() && !clsact::has_filters(target.interface).map_err(refused(what.clone()))? {
        clsact::remove_qdisc(target.interface).map_err(refused(what.clone()))?;
        remove_pin(&target.qdisc_pin()).map_err(refused(what))?;
    }
    Ok(())
}

/// Gives what `from` remembers of the interface's clsact qdisc to `to`, if the program's filter is `to`'s: it takes the qdisc away
/// with that.
///
/// # Errors
/// A pin cannot be moved.
pub fn hand_over(name: &str, from: Target<'_>, to: Target<'_>) -> Result<(), NetnsError> {
    if from.qdisc_pin().exists() && to.filter_pin(name).exists() {
        let what = format!("moving {} to {}", from.qdisc_pin().display(), to.pins.display());
        fs::rename(from.qdisc_pin(), to.qdisc_pin()).map_err(refused(what))?;
    }
    Ok(())
}

/// Whether a program of this name is attached.
///
/// # Errors
/// The kernel does not tell.
pub fn is_attached(name: &str, direction: Direction, target: Target<'_>) -> Result<bool, NetnsError> {
    Ok(rank(name, direction, target)? != Rank::Absent)
}

/// Where a program of this name is attached.
///
/// # Errors
/// The kernel does not tell.
pub fn rank(name: &str, direction: Direction, target: Target<'_>) -> Result<Rank, NetnsError> {
    let what = format!("asking for {name} at {direction} of interface {}", target.interface);
    match sys::open_pinned(&target.link_pin(name)) {
        Ok(link) => tcx::rank(link.as_fd(), direction, target.interface).map_err(refused(what)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let pins = [target.filter_pin(name), target.next_filter_pin(name)];
            // Without its pin nobody could take it away.
            if !pins.iter().any(|pin| pin.exists()) {
                return Ok(Rank::Absent);
            }
            clsact::rank(filter(name, direction, target)).map_err(refused(what))
        }
        Err(error) => Err(refused(what)(error)),
    }
}

/// Makes the clsact qdisc, and remembers it before: who ends in between leaves none that nobody takes away.
fn make_qdisc(program: BorrowedFd<'_>, target: Target<'_>) -> io::Result<()> {
    if clsact::has_qdisc(target.interface)? {
        return Ok(());
    }
    let pin = target.qdisc_pin();
    remove_pin(&pin)?;
    sys::pin(program, &pin)?;
    match clsact::add_qdisc(target.interface) {
        Ok(true) => Ok(()),
        // Another was quicker, or there is no interface.
        other => remove_pin(&pin).and(other.map(drop)),
    }
}

/// What is pinned is what the filter has, or may have if this process ends in between. While it is moved it is there twice, with no
/// other programs than these.
fn attach_filter(program: Program<'_>, target: Target<'_>) -> io::Result<()> {
    let filter = filter(program.name, program.direction, target);
    let (pin, next) = (target.filter_pin(program.name), target.next_filter_pin(program.name));
    if next.exists() {
        // Whoever was replacing it has ended.
        clsact::end_move(filter)?;
        match clsact::program_of(filter)? {
            Some(id) if pinned_program(&next)? == Some(id) => fs::rename(&next, &pin)?,
            _ => remove_pin(&next)?,
        }
    }
    let pinned = if pin.exists() { &next } else { &pin };
    sys::pin(program.fd, pinned)?;
    clsact::add_filter(filter, program.fd)?;
    if pinned == &next { fs::rename(&next, &pin) } else { Ok(()) }
}

fn detach_filter(filter: Filter<'_>, target: Target<'_>) -> io::Result<()> {
    let pins = [target.filter_pin(filter.name), target.next_filter_pin(filter.name)];
    let mut ours = Vec::new();
    for pin in &pins {
        ours.extend(pinned_program(pin)?);
    }
    if ours.is_empty() {
        return Ok(());
    }
    clsact::remove_filter(filter, &ours)?;
    pins.iter().try_for_each(|pin| remove_pin(pin))
}

/// Id of the program that is pinned here; none if nothing is.
fn pinned_program(pin: &Path) -> io::Result<Option<u32>> {
    if !pin.exists() {
        return Ok(None);
    }
    let program = ProgramInfo::from_pin(pin).map_err(io::Error::other)?;
    Ok(Some(program.id()))
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
