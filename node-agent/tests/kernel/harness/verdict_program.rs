//! The smallest programs of type `sched_cls`: they say the same of every packet.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
/// `TC_ACT_UNSPEC`: the next one may judge.
const NEXT: i32 = -1;
/// `TC_ACT_OK`: it passes, and no other one is asked.
const LAST: i32 = 0;
/// `TC_ACT_SHOT`.
const DROP: i32 = 2;

/// A loaded program.
pub struct VerdictProgram(OwnedFd);

impl VerdictProgram {
    /// Lets everything pass.
    pub fn pass() -> Self {
        Self::load(NEXT)
    }

    /// Lets everything pass, whatever those behind it say.
    pub fn overrule() -> Self {
        Self::load(LAST)
    }

    /// Drops everything.
    pub fn drop() -> Self {
        Self::load(DROP)
    }

    /// Its descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    fn load(verdict: i32) -> Self {
        // `r0 = verdict; exit`, as include/uapi/linux/bpf.h encodes them.
        let instructions: [u64; 2] = [0xb7 | u64::from(verdict as u32) << 32, 0x95];
        #[repr(C)]
        struct Attr {
            kind: u32,
            length: u32,
            instructions: u64,
            license: u64,
        }
        let attr = Attr {
            kind: BPF_PROG_TYPE_SCHED_CLS,
            length: instructions.len() as u32,
            instructions: instructions.as_ptr() as u64,
            license: c"MIT".as_ptr() as u64,
        };
        // SAFETY: the head of `union bpf_attr` for this command; its pointers live as long as the call.
        let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attr, size_of::<Attr>()) };
        assert!(fd >= 0, "loading a program: {}", io::Error::last_os_error());
        // SAFETY: the kernel has just made this descriptor for us.
        Self(unsafe { OwnedFd::from_raw_fd(fd as i32) })
    }
}
