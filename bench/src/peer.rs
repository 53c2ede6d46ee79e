//! The usual alternatives on one host: sets of nftables, and dnsmasq that fills them.

use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::load::{DNS, DOMAIN};
use crate::netns::Netns;

/// Loads rules of nftables in a network namespace.
pub fn nft(ns: &Netns, rules: &str) -> Result<()> {
    let mut command = ns.command("nft".as_ref());
    let mut child = command.args(["-f", "-"]).stdin(Stdio::piped()).spawn().context("nft")?;
    child.stdin.take().context("no input")?.write_all(rules.as_bytes())?;
    if !child.wait()?.success() {
        bail!("nft did not take the rules");
    }
    Ok(())
}

/// A router that lets through what dnsmasq has resolved.
pub struct Proxy(Child);

/// What a router lets through: answers, and the addresses in the set.
const RULES: &str = "
table inet bench {
    set allowed { type ipv4_addr; }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        ip daddr @allowed accept
    }
}
";

impl Proxy {
    /// Starts dnsmasq on a router, at this address.
    pub fn start(node: &Netns, address: Ipv4Addr) -> Result<Self> {
        nft(node, RULES)?;
        let mut command = node.command("dnsmasq".as_ref());
        command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"]);
        command.args(["--bind-interfaces", "--pid-file=", "--user=root", "--log-facility=-"]);
        command.arg(format!("--listen-address={address}"));
        command.arg(format!("--server={DNS}"));
        command.arg(format!("--nftset=/{DOMAIN}/4#inet#bench#allowed"));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("dnsmasq")?;
        let mut proxy = Self(child);
        // It listens once its socket is in the table of its namespace.
        let table = format!("/proc/{}/net/udp", proxy.0.id());
        let wanted = format!("{:08X}:0035", u32::from_le_bytes(address.octets()));
        let deadline = Instant::now() + Duration::from_secs(10);
        while !has_line(table.as_ref(), &wanted) {
            if proxy.0.try_wait()?.is_some() || Instant::now() > deadline {
                bail!("dnsmasq does not listen on {address}");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(proxy)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn has_line(path: &Path, wanted: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.contains(wanted))
}
