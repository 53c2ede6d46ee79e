//! Debian's packages for each part of the work, and what to say where there is no Debian 12.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use nix::unistd::Uid;

use super::{ebpf_toolchain, services};
use crate::process::{command, step};
use crate::workspace;

/// A part of the work with needs of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Compile the kernel programs.
    Ebpf,
    /// Pack container images.
    Images,
    /// Build and run Kubernetes on this machine.
    Cluster,
    /// Run other kernels.
    Vm,
    /// Build fuzz targets: libFuzzer is C++.
    Fuzz,
    /// Measure, beside the usual alternatives.
    Bench,
    /// Ask real resolvers with real clients.
    Conformance,
}

impl Part {
    /// Every part.
    pub const ALL: [Self; 7] =
        [Self::Ebpf, Self::Images, Self::Cluster, Self::Vm, Self::Fuzz, Self::Bench, Self::Conformance];

    fn packages(self) -> &'static [&'static str] {
        match self {
            // rustup's nightly, where it has rust-src, needs none of these.
            Self::Ebpf if ebpf_toolchain::nightly_is_complete() => &["gcc", "libc6-dev"],
            Self::Ebpf => &[
                "cargo-web",
                "rustc-web",
                "rust-web-src",
                "rust-web-clippy",
                "gcc",
                "g++",
                "libc6-dev",
                "llvm-22-dev",
                "libpolly-22-dev",
                "libzstd-dev",
                "zlib1g-dev",
            ],
            Self::Images => &[
                "bind9-dnsutils",
                "binutils",
                "busybox-static",
                "curl",
                "dnsmasq-base",
                "iproute2",
                "iputils-ping",
                "libc-bin",
                "python3",
            ],
            Self::Cluster => &[
                "conntrack",
                "dpkg-dev",
                "gcc",
                "iproute2",
                "iptables",
                "libc6-dev",
                "libseccomp2",
                "openssl",
                "procps",
                "python3",
                "util-linux",
            ],
            Self::Vm => &["busybox-static", "debian-archive-keyring", "qemu-system-x86", "xz-utils", "zstd"],
            Self::Fuzz => &["gcc", "g++", "libc6-dev"],
            Self::Bench => &["dnsmasq-base", "iproute2", "nftables"],
            // libidn2 is what glibc loads to read names in other scripts.
            Self::Conformance => &[
                "bind9",
                "bind9-dnsutils",
                "dnsmasq-base",
                "gcc",
                "golang-go",
                "iproute2",
                "knot",
                "knot-dnsutils",
                "libc6-dev",
                "libidn2-0",
                "musl-tools",
                "unbound",
            ],
        }
    }

    /// Programs that stand for the packages on other systems.
    fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Ebpf => &["cc"],
            Self::Images => {
                &["busybox", "curl", "dig", "dnsmasq", "getent", "ip", "ldd", "ping", "python3", "strip"]
            }
            Self::Cluster => &[
                "apt-get",
                "cc",
                "conntrack",
                "dpkg-source",
                "ip",
                "iptables",
                "openssl",
                "python3",
                "unshare",
            ],
            Self::Vm => &["apt-get", "busybox", "qemu-system-x86_64", "xz", "zstd"],
            Self::Fuzz => &["cc", "c++"],
            Self::Bench => &["dnsmasq", "ip", "nft"],
            Self::Conformance => {
                &["cc", "dig", "dnsmasq", "go", "ip", "kdig", "knotd", "musl-gcc", "named", "unbound"]
            }
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Self::Ebpf => "a C compiler",
            Self::Images => {
                "packing images: your system's packages of these programs; busybox must be a static one"
            }
            Self::Cluster => {
                "the local cluster is built from Debian 12's source packages and runs only there, as root;\n      \
                 with a cluster of your own (e2e/kind/run makes one): cargo xtask e2e --kubeconfig PATH"
            }
            Self::Vm => "kernels in VMs come from Debian's mirror: needs Debian's apt, and QEMU",
            Self::Fuzz => "a C++ compiler",
            Self::Bench => "your system's packages of these programs; dnsmasq built with nftset",
            Self::Conformance => "the conformance tests: your system's packages of these programs",
        }
    }
}

/// Installs the parts' packages on Debian 12, as far as they are missing.
pub fn install(parts: &[Part]) -> Result<()> {
    let wanted: BTreeSet<_> = parts.iter().flat_map(|part| part.packages()).copied().collect();
    let missing: Vec<_> = missing(&wanted)?;
    if missing.is_empty() {
        return Ok(());
    }
    if !Uid::effective().is_root() {
        bail!("packages are missing; install them with:\n  sudo apt-get install {}", missing.join(" "));
    }
    let update = command("apt-get", ["-q", "-o", "DPkg::Lock::Timeout=300", "update"]);
    step("reading Debian's package lists", update).limit(600).quietly("apt-update")?;
    let mut install = command(
        "apt-get",
        ["-q", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300", "install"],
    );
    install.args(&missing).env("DEBIAN_FRONTEND", "noninteractive");
    eprintln!("xtask: missing: {}", missing.join(" "));
    let no_starts = services::any(&missing).then(services::NoStarts::new).transpose()?;
    step("installing Debian packages", install).limit(1800).quietly("apt-install")?;
    drop(no_starts);
    services::disable(&missing)
}

/// An error that lists what is missing on a system whose packages are not known here.
pub fn explain(parts: &[Part]) -> Result<()> {
    let mut advice = String::new();
    for part in parts {
        let missing: Vec<_> =
            part.programs().iter().filter(|name| workspace::on_path(name).is_none()).copied().collect();
        if !missing.is_empty() {
            advice += &format!("\n  {}: {}", missing.join(", "), part.advice());
        }
    }
    if !advice.is_empty() {
        bail!("this is not Debian 12, so nothing was installed; missing programs:{advice}");
    }
    Ok(())
}

fn missing<'a>(wanted: &BTreeSet<&'a str>) -> Result<Vec<&'a str>> {
    // dpkg-query fails as soon as one name is unknown, but lists the others all the same.
    let query = "dpkg-query -W -f='${Package} ${db:Status-Status}\\n' \"$@\" 2>/dev/null || true";
    let names = ["-c", query, "sh"].into_iter().chain(wanted.iter().copied());
    let listed = step("looking at the installed packages", command("sh", names)).limit(60).capture()?;
    let installed: BTreeSet<_> = listed.lines().filter_map(|line| line.strip_suffix(" installed")).collect();
    Ok(wanted.iter().filter(|name| !installed.contains(**name)).copied().collect())
}
