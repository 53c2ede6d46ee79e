//! `cargo xtask vm`: a command under a real Debian kernel.

use std::convert::Infallible;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use clap::Args;

use crate::process::{command, replace_by, step};
use crate::setup::{self, Part};
use crate::workspace;

/// Which kernel, how much of a machine, and what to run.
#[derive(Args)]
#[command(after_help = "\
Boots an unmodified Debian kernel in QEMU, without KVM, with this machine's root file system (writes are lost
but for --dir), and runs the command as root. The exit status is the command's; 124 at the time limit; 125 if
the VM died.

Examples:
  cargo xtask vm -- uname -r
  cargo xtask vm --kernel 6.12 --dir results -- sh -c 'tc qdisc add dev lo root fq && tc qdisc > results/q'
  CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER='cargo xtask vm --kernel 5.10 --' cargo test -p l7egg-ebpf-common")]
pub struct VmArgs {
    /// 5.10, 6.1, 6.12, 6.18, 7.x (the newest), or a longer prefix such as 6.18.15
    #[arg(long, default_value = "6.1")]
    kernel: String,
    /// Memory in MiB
    #[arg(long, default_value_t = 2048)]
    mem: u32,
    /// Virtual CPUs
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// Seconds, boot included, after which the VM is ended
    #[arg(long, default_value_t = 600)]
    timeout: u64,
    /// A directory that is writable inside, at the same path; repeatable
    #[arg(long)]
    dir: Vec<PathBuf>,
    /// Show the kernel's messages afterwards
    #[arg(long)]
    verbose: bool,
    /// The command and its arguments
    #[arg(required = true, last = true)]
    command: Vec<String>,
}

/// Runs `cargo xtask vm`; does not return unless the VM cannot be started.
pub fn run(args: &VmArgs) -> Result<Infallible> {
    setup::ensure(&[Part::Vm])?;
    let mut vm = vmrun(&args.kernel, args.timeout);
    vm.current_dir(std::env::current_dir()?);
    vm.args(["--mem", &args.mem.to_string(), "--cpus", &args.cpus.to_string()]);
    for dir in &args.dir {
        vm.arg("--dir").arg(dir);
    }
    vm.args(args.verbose.then_some("--verbose")).arg("--").args(&args.command);
    replace_by(vm)
}

/// The beginning of a command that runs another one under a kernel: more of its options, `--` and the command
/// are to follow. It ends by itself after `timeout` seconds.
pub fn vmrun(kernel: &str, timeout: u64) -> Command {
    let mut vmrun =
        command(workspace::kit("vm/vmrun"), ["--kernel", kernel, "--timeout", &timeout.to_string()]);
    vmrun.env("L7EGG_CACHE", workspace::cache());
    vmrun
}

/// The same with a thread for each of its CPUs, which is twice as fast and behaves as a machine does; once in a while QEMU's
/// threads trip over each other, and `vmrun` begins anew.
pub fn vmrun_parallel(kernel: &str, timeout: u64) -> Command {
    let mut vmrun = vmrun(kernel, timeout);
    vmrun.env("VM_ACCEL", "tcg,thread=multi");
    vmrun
}

/// Downloads a kernel unless the cache has it.
pub fn fetch(kernel: &str) -> Result<()> {
    let mut fetch = command(workspace::kit("vm/fetch-kernel"), [kernel]);
    fetch.env("L7EGG_CACHE", workspace::cache());
    step(format!("getting Debian's kernel {kernel}"), fetch).limit(600).quietly(&format!("kernel-{kernel}"))
}
