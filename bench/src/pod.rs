//! The world with its servers, and pods: each a network namespace and a cgroup.

use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::load::UNNAMED;
use crate::netns::Netns;
use crate::place;

/// The servers, in a network namespace of their own.
pub struct World {
    ns: Netns,
    server: Child,
}

/// A pod.
pub struct Pod {
    uid: String,
    ns: Netns,
    /// The router between it and the world.
    node: Option<Netns>,
    /// Name of the namespace with the other end of its interface: the router's, or the world's.
    host: String,
    cgroup: PathBuf,
    container: Option<PathBuf>,
}

/// Name of the cgroup that holds a node's pods, as kubelets have it.
const PODS: &str = "kubepods";

/// A client in a pod.
pub struct Talker {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl World {
    /// Starts the servers.
    pub fn start() -> Result<Self> {
        let ns = Netns::new("world")?;
        ns.ip("route add local 198.18.0.0/15 dev lo")?;
        let mut command = ns.command(&load()?);
        let mut server = command.arg("serve").stdout(Stdio::piped()).spawn().context("the world")?;
        let output = server.stdout.take().context("the world has no output")?;
        let world = Self { ns, server };
        match BufReader::new(output).lines().next() {
            Some(Ok(line)) if line == "ready" => Ok(world),
            _ => bail!("the world's servers did not start"),
        }
    }

    /// Its network namespace.
    pub fn ns(&self) -> &Netns {
        &self.ns
    }

    /// Adds a pod, the `number`th; with a router in between if `routed`.
    pub fn pod(&self, number: u8, name: &str, routed: bool) -> Result<Pod> {
        let ns = Netns::new(name)?;
        let net = 80 + number;
        let (pod, gateway) = (format!("10.{net}.0.2"), format!("10.{net}.0.1"));
        let (pod_net, gateway_net) = (format!("{pod}/24"), format!("{gateway}/24"));
        let peer = format!("veth{number}");
        let node = if routed {
            let node = Netns::new(&format!("{name}-node"))?;
            node.route()?;
            ns.link("eth0", &pod_net, &node, "pod", &gateway_net)?;
            node.link("eth0", &format!("10.{net}.1.2/24"), &self.ns, &peer, &format!("10.{net}.1.1/24"))?;
            node.ip(&format!("route add default via 10.{net}.1.1"))?;
            self.ns.ip(&format!("route add 10.{net}.0.0/24 via 10.{net}.1.2"))?;
            Some(node)
        } else {
            ns.link("eth0", &pod_net, &self.ns, &peer, &gateway_net)?;
            None
        };
        ns.ip(&format!("route add default via {gateway}"))?;
        let uid = format!("{}-{name}", std::process::id());
        let cgroup = place::cgroup2_root()?.join(format!("{}{uid}/{PODS}/pod", place::NAME));
        fs::create_dir_all(&cgroup).with_context(|| format!("cannot make cgroup {}", cgroup.display()))?;
        let host = node.as_ref().unwrap_or(&self.ns).name().to_owned();
        Ok(Pod { uid, ns, node, host, cgroup, container: None })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Pod {
    /// Its uid.
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// Directory of its cgroup.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// The cgroup of its node's pods.
    pub fn pods_cgroup(&self) -> &Path {
        self.cgroup.parent().unwrap_or(&self.cgroup)
    }

    /// The cgroup of its node.
    pub fn node_cgroup(&self) -> &Path {
        self.pods_cgroup().parent().unwrap_or(&self.cgroup)
    }

    /// Has it run its processes in a container from now on, whose cgroup this makes.
    pub fn enter(&mut self, container: &str) -> Result<&Path> {
        self.container = Some(self.cgroup.join(container));
        let cgroup = self.inside();
        fs::create_dir(cgroup).with_context(|| format!("cannot make cgroup {}", cgroup.display()))?;
        Ok(cgroup)
    }

    /// Where its processes run.
    fn inside(&self) -> &Path {
        self.container.as_deref().unwrap_or(&self.cgroup)
    }

    /// Its network namespace.
    pub fn ns(&self) -> &Netns {
        &self.ns
    }

    /// The namespace with the other end of its interface, where an agent would run.
    pub fn host(&self) -> Result<l7egg_node_agent::netns::Netns> {
        let path = Path::new("/run/netns").join(&self.host);
        l7egg_node_agent::netns::Netns::open(&path).context("the namespace at the other end")
    }

    /// The router's.
    pub fn node(&self) -> Result<&Netns> {
        self.node.as_ref().context("the pod has no router")
    }

    /// The address by which the pod reaches its router.
    pub fn gateway(&self, number: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 80 + number, 0, 1)
    }

    /// Starts a process in it that does nothing.
    pub fn idle(&self) -> Result<Idle> {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ >\"$0\" && exec ip netns exec \"$@\""]);
        command.arg(self.inside().join("cgroup.procs")).arg(self.ns.name()).args(["sleep", "infinity"]);
        let child = command.spawn().context("a process in the pod")?;
        let comm = format!("/proc/{}/comm", child.id());
        // First the shell, then ip, which enters the namespace and becomes sleep.
        while fs::read_to_string(&comm)?.trim() != "sleep" {
            thread::sleep(Duration::from_millis(10));
        }
        Ok(Idle(child))
    }

    /// Starts a client in it.
    pub fn talker(&self, resolver: Ipv4Addr, server: Ipv4Addr) -> Result<Talker> {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ >\"$0\" && exec ip netns exec \"$@\""]);
        command.arg(self.inside().join("cgroup.procs")).arg(self.ns.name()).arg(load()?);
        command.args(["client", "--resolver", &resolver.to_string(), "--server", &server.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("a client")?;
        let input = child.stdin.take().context("no input")?;
        let output = BufReader::new(child.stdout.take().context("no output")?).lines();
        Ok(Talker { child, input, output })
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        place::remove_cgroup(self.node_cgroup());
    }
}

/// A process that does nothing; ended when dropped.
pub struct Idle(Child);

impl Drop for Idle {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Talker {
    /// Says a line and waits for the answer.
    pub fn ask(&mut self, line: &str) -> Result<String> {
        writeln!(self.input, "{line}")?;
        match self.output.next() {
            Some(answer) => Ok(answer?),
            None => bail!("the client ended at {line:?}"),
        }
    }

    /// Whether it reaches an address that has no name.
    pub fn reaches_unnamed(&mut self) -> Result<bool> {
        Ok(self.ask(&format!("try {UNNAMED}"))? == "open")
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program beside this one.
fn load() -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("load");
    if !path.is_file() {
        bail!("{} is missing; run: cargo xtask bench", path.display());
    }
    Ok(path)
}
