//! Programs on interfaces by links of their own: kernel/bpf/tcx.c.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::tc::{Direction, Program, Rank};
use crate::kernel::sys;

/// `BPF_TCX_INGRESS` and `BPF_TCX_EGRESS` of `enum bpf_attach_type`, include/uapi/linux/bpf.h.
const TCX_INGRESS: u32 = 46;
const TCX_EGRESS: u32 = 47;
/// `TCX_NEXT` and `TCX_DROP` of the same file.
const NEXT: i32 = -1;
const DROP: i32 = 2;

/// Attaches a program before all others, by a link that is pinned at the first of `pins`, or puts it in the place of that link's; the
/// second is for the link of one that is being moved.
pub fn attach(program: Program<'_>, interface: u32, pins: &[PathBuf; 2]) -> io::Result<()> {
    let [pin, next] = pins;
    // Whoever was moving it has ended.
    sys::unpin_link(next)?;
    let link = match sys::open_pinned(pin) {
        Ok(link) => link,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return create(program.fd, program.direction, interface, pin).map(drop);
        }
        Err(error) => return Err(error),
    };
    match rank(link.as_fd(), program.direction, interface)? {
        Rank::First => sys::link_update(link.as_fd(), program.fd),
        Rank::Absent => {
            fs::remove_file(pin)?;
            create(program.fd, program.direction, interface, pin).map(drop)
        }
        Rank::Behind(_) => {
            let moved = create(sys::load_verdict(NEXT)?.as_fd(), program.direction, interface, next)
                .and_then(|first| {
                    swap(program.fd, link.as_fd(), first.as_fd())?;
                    fs::rename(next, pin)
                });
            match moved {
                Ok(()) => sys::link_detach(link.as_fd()),
                Err(error) => sys::unpin_link(next)
                    .and_then(|()| sys::link_update(link.as_fd(), program.fd))
                    .and(Err(error)),
            }
        }
    }
}

/// No program may be there twice, and no link can be moved: between two calls nothing passes, rather than everything.
fn swap(program: BorrowedFd<'_>, old: BorrowedFd<'_>, new: BorrowedFd<'_>) -> io::Result<()> {
    let (stand_in, none) = (sys::load_verdict(DROP)?, sys::load_verdict(NEXT)?);
    sys::link_update(old, stand_in.as_fd())?;
    sys::link_update(new, program)?;
    // It is detached in a moment; until then it is behind what has come between.
    let _ = sys::link_update(old, none.as_fd());
    Ok(())
}

fn create(program: BorrowedFd<'_>, direction: Direction, interface: u32, pin: &Path) -> io::Result<OwnedFd> {
    let link = sys::link_create_first(program, interface, attach_type(direction))?;
    sys::pin(link.as_fd(), pin)?;
    Ok(link)
}

/// Where a link's program is on an interface.
pub fn rank(link: BorrowedFd<'_>, direction: Direction, interface: u32) -> io::Result<Rank> {
    // 0 once the interface is gone.
    if sys::link_interface(link)? != interface {
        return Ok(Rank::Absent);
    }
    let own = sys::link_id(link)?;
    Ok(match sys::first_on_interface(interface, attach_type(direction))? {
        Some((program, link)) if link != own => Rank::Behind(format!("program {program} (link {link})")),
        _ => Rank::First,
    })
}

fn attach_type(direction: Direction) -> u32 {
    match direction {
        Direction::Ingress => TCX_INGRESS,
        Direction::Egress => TCX_EGRESS,
    }
}
