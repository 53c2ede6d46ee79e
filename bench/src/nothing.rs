//! The smallest program that lets a packet of a pod pass: what `BPF_PROG_TEST_RUN` itself takes.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result, ensure};

/// Commands and the type, of include/uapi/linux/bpf.h.
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_TEST_RUN: libc::c_int = 10;
const BPF_PROG_TYPE_CGROUP_SKB: u32 = 8;
/// `r0 = 1; exit`.
const PASS: [u64; 2] = [0xb7 | 1 << 32, 0x95];

/// A loaded program.
pub struct Nothing(OwnedFd);

/// The head of `union bpf_attr` for loading.
#[repr(C)]
struct Load {
    kind: u32,
    length: u32,
    instructions: u64,
    license: u64,
}

/// The same for a test run.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    result: u32,
    data_in_size: u32,
    data_out_size: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration_ns: u32,
    context_in_size: u32,
    context_out_size: u32,
    context_in: u64,
    context_out: u64,
}

impl Nothing {
    /// Loads it.
    pub fn load() -> Result<Self> {
        let mut attr = Load {
            kind: BPF_PROG_TYPE_CGROUP_SKB,
            length: PASS.len() as u32,
            instructions: PASS.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
        };
        // SAFETY: its pointers live as long as the call.
        let fd = unsafe { bpf(BPF_PROG_LOAD, &mut attr) }.context("loading a program that does nothing")?;
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// How long it takes for a packet, in ns, of so many runs.
    pub fn run(&self, frame: &[u8], context: &[u8], repeat: u32) -> Result<u64> {
        let mut attr = TestRun {
            program: self.0.as_raw_fd() as u32,
            data_in_size: frame.len() as u32,
            data_in: frame.as_ptr() as u64,
            repeat,
            context_in_size: context.len() as u32,
            context_in: context.as_ptr() as u64,
            ..TestRun::default()
        };
        // SAFETY: its pointers live as long as the call, which only reads what they lead to.
        unsafe { bpf(BPF_PROG_TEST_RUN, &mut attr) }.context("BPF_PROG_TEST_RUN")?;
        ensure!(attr.result == 1, "a program that does nothing has dropped a packet");
        Ok(attr.duration_ns.into())
    }
}

/// # Safety
/// `attr` is what the command takes, and its pointers are valid.
unsafe fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<i32> {
    // SAFETY: see above.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
