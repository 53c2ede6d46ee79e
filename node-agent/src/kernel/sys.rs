//! The bpf(2) commands that aya has no way to: links on cgroups that can be replaced, asked for their
//! cgroup, and pinned alike whatever their program's type. Layouts from include/uapi/linux/bpf.h.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// `BPF_NOEXIST` of include/uapi/linux/bpf.h: an entry is made, or none is touched.
pub const NO_EXIST: u64 = 1;
/// `BPF_EXIST`: one is changed, or none is made.
pub const EXIST: u64 = 2;

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_MAP_LOOKUP_AND_DELETE_ELEM: libc::c_int = 21;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_UPDATE: libc::c_int = 29;
const BPF_LINK_DETACH: libc::c_int = 34;

/// Returns when all programs have ended that run now on any CPU, but for those that sleep, as none of ours does: a grace period of RCU,
/// some milliseconds (membarrier(2)).
pub fn wait_for_programs() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: the system call takes three numbers.
    let done = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if done != 0 {
        // With nohz_full there is none. No program takes so long, unless its CPU is taken away from it.
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Attaches a program to a cgroup by a link, which lasts as long as a descriptor or a pin of it.
pub fn link_create(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<OwnedFd> {
    #[repr(C)]
    #[derive(Default)]
    struct Attr {
        program: u32,
        target: u32,
        attach_type: u32,
        flags: u32,
    }
    let mut attr = Attr {
        program: program.as_raw_fd() as u32,
        target: cgroup.as_raw_fd() as u32,
        attach_type,
        flags: 0,
    };
    let fd = bpf(BPF_LINK_CREATE, &mut attr)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a program to an interface of this thread's network namespace by a link, before all others there
/// (tcx, Linux 6.6).
pub fn link_create_first(program: BorrowedFd<'_>, interface: u32, attach_type: u32) -> io::Result<OwnedFd> {
    /// "Before", of nothing: first.
    const BPF_F_BEFORE: u32 = 1 << 3;
    #[repr(C)]
    #[derive(Default)]
    struct Attr {
        program: u32,
        interface: u32,
        attach_type: u32,
        flags: u32,
        relative: u32,
        reserved: u32,
        expected_revision: u64,
    }
    let mut attr = Attr {
        program: program.as_raw_fd() as u32,
        interface,
        attach_type,
        flags: BPF_F_BEFORE,
        ..Attr::default()
    };
    let fd = bpf(BPF_LINK_CREATE, &mut attr)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Puts another program in the place of a link's, in one step.
pub fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    #[derive(Default)]
    struct Attr {
        link: u32,
        program: u32,
        flags: u32,
        old_program: u32,
    }
    let mut attr =
        Attr { link: link.as_raw_fd() as u32, program: program.as_raw_fd() as u32, flags: 0, old_program: 0 };
    bpf(BPF_LINK_UPDATE, &mut attr).map(|_| ())
}

/// The same for a link on a cgroup; false if the cgroup has gone, and with it what the link was for.
pub fn link_replace(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<bool> {
    match link_update(link, program) {
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => Ok(false),
        result => result.map(|()| true),
    }
}

/// Removes the pin of a link, and takes the link's program away at once: without its last pin it would run for some milliseconds
/// more, beside what comes next. Nothing happens where there is no pin.
pub fn unpin_link(pin: &Path) -> io::Result<()> {
    if let Ok(link) = open_pinned(pin) {
        // What cannot be detached goes when nobody holds it any more.
        let _ = link_detach(link.as_fd());
    }
    match std::fs::remove_file(pin) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Takes a link's program away, whoever else holds the link.
pub fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct Attr {
        link: u32,
    }
    bpf(BPF_LINK_DETACH, &mut Attr { link: link.as_raw_fd() as u32 }).map(|_| ())
}

/// The cgroup that a link is on: the inode number of its directory, or 0 if the cgroup is gone.
pub fn link_cgroup(link: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(link_target(link)?.cgroup)
}

/// The interface that a tcx link is on: its index in its namespace, or 0 if it is gone.
pub fn link_interface(link: BorrowedFd<'_>) -> io::Result<u32> {
    let [a, b, c, d, ..] = link_target(link)?.cgroup.to_ne_bytes();
    Ok(u32::from_ne_bytes([a, b, c, d]))
}

/// By which [`first_on_interface`] names a link.
pub fn link_id(link: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(link_target(link)?.id)
}

/// `struct bpf_link_info`, as it is for cgroups: for interfaces the first half of `cgroup` is the index.
#[repr(C, align(8))]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program_id: u32,
    reserved: u32,
    cgroup: u64,
    attach_type: u32,
    // Newer kernels write more; to older ones these must be zero, so none may be padding.
    rest: [u32; 17],
}

fn link_target(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    #[repr(C)]
    struct Attr {
        fd: u32,
        len: u32,
        info: u64,
    }
    let mut info = LinkInfo::default();
    let mut attr =
        Attr { fd: link.as_raw_fd() as u32, len: size_of::<LinkInfo>() as u32, info: (&raw mut info) as u64 };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info)
}

/// Ids of the programs that run for a cgroup at a hook, those of its ancestors too; at most 64 are told.
pub fn effective_programs(cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<Vec<u32>> {
    /// `BPF_F_QUERY_EFFECTIVE`.
    const EFFECTIVE: u32 = 1;
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
        program_attach_flags: u64,
    }
    let mut ids = [0u32; 64];
    let mut attr = Attr {
        target: cgroup.as_raw_fd() as u32,
        attach_type,
        query_flags: EFFECTIVE,
        ids: ids.as_mut_ptr() as u64,
        count: ids.len() as u32,
        ..Attr::default()
    };
    match bpf(BPF_PROG_QUERY, &mut attr) {
        Ok(_) => {}
        // More than there is room for.
        Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => attr.count = ids.len() as u32,
        Err(error) => return Err(error),
    }
    Ok(ids[..(attr.count as usize).min(ids.len())].to_vec())
}

/// Ids of the program that sees an interface's packets first (tcx, Linux 6.6), and of its link: 0 for one without.
pub fn first_on_interface(interface: u32, attach_type: u32) -> io::Result<Option<(u32, u32)>> {
    /// `BPF_MPROG_MAX` of include/linux/bpf_mprog.h.
    const MOST: usize = 64;
    #[repr(C)]
    #[derive(Default)]
    struct Attr {
        interface: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        programs: u64,
        count: u32,
        reserved: u32,
        program_attach_flags: u64,
        links: u64,
        link_attach_flags: u64,
        revision: u64,
    }
    let (mut programs, mut links) = ([0u32; MOST], [0u32; MOST]);
    let mut attr = Attr {
        interface,
        attach_type,
        programs: programs.as_mut_ptr() as u64,
        count: MOST as u32,
        links: links.as_mut_ptr() as u64,
        ..Attr::default()
    };
    match bpf(BPF_PROG_QUERY, &mut attr) {
        Ok(_) => Ok((attr.count > 0).then_some((programs[0], links[0]))),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Loads the smallest program of type `sched_cls`: it says this of every packet.
pub fn load_verdict(verdict: i32) -> io::Result<OwnedFd> {
    const SCHED_CLS: u32 = 3;
    #[repr(C)]
    struct Attr {
        kind: u32,
        length: u32,
        instructions: u64,
        license: u64,
    }
    // `r0 = verdict; exit`, as include/uapi/linux/bpf.h encodes them.
    let instructions: [u64; 2] = [0xb7 | u64::from(verdict as u32) << 32, 0x95];
    let mut attr = Attr {
        kind: SCHED_CLS,
        length: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"MIT".as_ptr() as u64,
    };
    let fd = bpf(BPF_PROG_LOAD, &mut attr)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Pins a link or a program in bpffs.
pub fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    object(BPF_OBJ_PIN, path, fd.as_raw_fd() as u32).map(|_| ())
}

/// Opens what is pinned.
pub fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    let fd = object(BPF_OBJ_GET, path, 0)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes an entry out of a hash map in one step, so that a change by a program is not lost.
pub fn map_take<K: aya::Pod, V: aya::Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    #[repr(C)]
    #[derive(Default)]
    struct Attr {
        map: u32,
        reserved: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    let mut value = std::mem::MaybeUninit::<V>::zeroed();
    let mut attr = Attr {
        map: map.as_raw_fd() as u32,
        reserved: 0,
        key: (&raw const *key) as u64,
        value: value.as_mut_ptr() as u64,
        flags: 0,
    };
    match bpf(BPF_MAP_LOOKUP_AND_DELETE_ELEM, &mut attr) {
        // SAFETY: the kernel has written a whole value, and any bytes are one.
        Ok(_) => Ok(Some(unsafe { value.assume_init() })),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where a look at a hash map goes on: a bucket.
#[derive(Clone, Copy, Debug)]
pub struct Position(u32);

/// Fills `keys` and `values`, of the same length, with entries of a hash map from a position on, bucket by bucket. How many it
/// were, and where to go on if there are more. `ENOSPC` where a bucket has more than there is room for. Since Linux 5.6.
pub fn map_batch<K: aya::Pod, V: aya::Pod>(
    map: BorrowedFd<'_>,
    from: Option<Position>,
    keys: &mut [K],
    values: &mut [V],
) -> io::Result<(usize, Option<Position>)> {
    #[repr(C)]
    #[derive(Default)]
    struct Attr {
        from: u64,
        next: u64,
        keys: u64,
        values: u64,
        count: u32,
        map: u32,
        element_flags: u64,
        flags: u64,
    }
    let mut next = Position(0);
    let mut attr = Attr {
        from: from.as_ref().map_or(0, |from| (&raw const from.0) as u64),
        next: (&raw mut next.0) as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: keys.len().min(values.len()).try_into().unwrap_or(u32::MAX),
        map: map.as_raw_fd() as u32,
        ..Attr::default()
    };
    match bpf(BPF_MAP_LOOKUP_BATCH, &mut attr) {
        Ok(_) => Ok((attr.count as usize, Some(next))),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok((attr.count as usize, None)),
        Err(error) => Err(error),
    }
}

fn object(command: libc::c_int, path: &Path, fd: u32) -> io::Result<libc::c_int> {
    #[repr(C)]
    struct Attr {
        path: u64,
        fd: u32,
        flags: u32,
    }
    let path = CString::new(path.as_os_str().as_bytes())?;
    bpf(command, &mut Attr { path: path.as_ptr() as u64, fd, flags: 0 })
}

fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_int> {
    // SAFETY: every `T` above is the head of `union bpf_attr` for its command; the kernel takes what is
    // behind it as zero. Pointers in it live as long as the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as libc::c_int) }
}
