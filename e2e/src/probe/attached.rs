//! What programs are attached to a tree of cgroups, and to the interfaces of this network, as the kernel itself tells it: pins say
//! only what somebody has meant to attach.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use serde::{Deserialize, Serialize};

const BPF_PROG_QUERY: libc::c_int = 16;
/// Attach types of cgroups in include/uapi/linux/bpf.h; not the one for devices, which systemd and runc have programs for.
const CGROUP_HOOKS: [u32; 16] = [0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15, 19, 20, 21, 22];
/// Those of interfaces, since Linux 6.6: `BPF_TCX_INGRESS` and `BPF_TCX_EGRESS`.
const INTERFACE_HOOKS: [u32; 2] = [46, 47];

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// Programs of these cgroups; not those of their ancestors.
    pub cgroups: u32,
    /// Programs of interfaces.
    pub interfaces: u32,
    /// The cgroups and interfaces that were looked at.
    pub looked_at: u32,
}

/// Looks at a cgroup and all below it, and at all interfaces.
///
/// # Errors
/// When the kernel does not answer: who asks needs to be root.
pub fn attached(cgroup: &Path) -> io::Result<Attached> {
    let mut found = Attached::default();
    of_cgroups(cgroup, &mut found)?;
    for interface in nix::net::if_::if_nameindex()?.iter() {
        found.looked_at += 1;
        for hook in INTERFACE_HOOKS {
            match count(interface.index(), hook) {
                Ok(count) => found.interfaces += count,
                // No tcx in this kernel.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(found)
}

fn of_cgroups(cgroup: &Path, found: &mut Attached) -> io::Result<()> {
    let directory = File::open(cgroup)?;
    found.looked_at += 1;
    for hook in CGROUP_HOOKS {
        found.cgroups += count(directory.as_raw_fd() as u32, hook)?;
    }
    for entry in cgroup.read_dir()?.flatten() {
        if !entry.file_type()?.is_dir() {
            continue;
        }
        match of_cgroups(&entry.path(), found) {
            // It has ended meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

/// Programs at one hook of a cgroup, which is open, or of an interface.
fn count(target: u32, hook: u32) -> io::Result<u32> {
    #[repr(C)]
    #[derive(Default)]
    struct Attr {
        target: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        ids: u64,
        count: u32,
        reserved: u32,
        more: [u64; 4],
    }
    let mut attr = Attr { target, attach_type: hook, ..Attr::default() };
    // SAFETY: the head of `union bpf_attr` for the command. Without a place for ids the kernel tells their number only.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, &raw mut attr, size_of::<Attr>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(attr.count) }
}
