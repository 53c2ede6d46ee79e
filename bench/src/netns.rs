//! Network namespaces and the links between them, by iproute2.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A network namespace; it goes when this is dropped.
pub struct Netns(String);

/// Begins their names; the number of the process follows, and `-`.
pub const NAME: &str = "l7b-";

impl Netns {
    /// Makes one, named after this process.
    pub fn new(label: &str) -> Result<Self> {
        let name = format!("{NAME}{}-{label}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &name]))?;
        let ns = Self(name);
        ns.ip("link set lo up")?;
        Ok(ns)
    }

    /// Makes a link between an interface `name` here and one called `peer` there, up and with these addresses.
    pub fn link(&self, name: &str, address: &str, other: &Self, peer: &str, theirs: &str) -> Result<()> {
        self.ip(&format!("link add {name} type veth peer name {peer} netns {}", other.0))?;
        for (ns, interface, address) in [(self, name, address), (other, peer, theirs)] {
            ns.ip(&format!("addr add {address} dev {interface}"))?;
            ns.ip(&format!("link set {interface} up"))?;
        }
        Ok(())
    }

    /// Runs `ip` here with these words.
    pub fn ip(&self, words: &str) -> Result<()> {
        run(Command::new("ip").args(["-n", &self.0]).args(words.split(' ')))
    }

    /// Makes it forward IPv4.
    pub fn route(&self) -> Result<()> {
        run(self.command("sh".as_ref()).args(["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]))
    }

    /// A command that will run here.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0]).arg(program);
        command
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// Runs a command that must succeed.
pub fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}; benches need root", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
