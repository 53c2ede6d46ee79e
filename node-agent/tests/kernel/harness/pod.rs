//! A pod: a cgroup and a network namespace, beside a namespace in which the test world runs.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use l7egg_node_agent::netns::Netns;
use serde_json::Value;

use super::held::Held;
use super::process::{Nested, Server};
use super::wires::{address, by_node, on_top, veth};
use super::{RESOLVERS, binary, ip, is_emulated, run, seconds, unique};

/// Address of the pod.
pub const POD4: &str = "10.77.0.2";
/// The same over IPv6.
pub const POD6: &str = "fd77::2";

/// Where the world is, seen from the pod's interface.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// At its other end.
    Direct,
    /// The same, and the pod's namespace is the node's own (`hostNetwork`).
    IsNode,
    /// Behind a node that the pod's interface leads to, which bridges as a CNI plugin's bridge does: whatever the
    /// node lets in arrives in the world.
    ByNode,
    /// Behind a node's own interface, of which the pod's is a part (`macvlan`, `ipvlan`): it has no other end there.
    OnTop(&'static str),
}

impl Link {
    /// Whether a node is between the pod and its world.
    fn has_node(self) -> bool {
        matches!(self, Link::ByNode | Link::OnTop(_))
    }
}

/// A pod and its world.
pub struct Pod {
    name: String,
    cgroup: PathBuf,
    /// Where its programs run: the pod's cgroup, or a container's below it.
    inside: Mutex<PathBuf>,
    world: Child,
    /// The process that every pod begins with, and by which its network is found.
    sandbox: Option<Child>,
    link: Link,
}

impl Pod {
    /// One at the other end of its interface.
    pub fn new() -> Self {
        Self::with_link(Link::Direct)
    }

    /// Makes the namespaces, the cgroup, and starts the world.
    pub fn with_link(link: Link) -> Self {
        let name = format!("l7k-{}", unique());
        let (pod, world) = (format!("{name}p"), format!("{name}w"));
        ip::host(&[&format!("netns add {pod}"), &format!("netns add {world}")]);
        match link {
            Link::Direct | Link::IsNode => ip::inside(&pod, &[&veth("eth0", &world, "eth0")]),
            Link::ByNode => by_node(&pod, &format!("{name}n"), &world),
            Link::OnTop(kind) => on_top(&pod, &format!("{name}n"), &world, kind),
        }
        for (ns, four, six) in [(&pod, "10.77.0.2/24", "fd77::2/64"), (&world, "10.77.0.1/24", "fd77::1/64")]
        {
            address(ns, four, six);
        }
        ip::inside(&pod, &["route add default via 10.77.0.1", "route add default via fd77::1"]);
        fs::create_dir_all(PathBuf::from("/etc/netns").join(&pod)).expect("/etc/netns");
        let cgroup = cgroup2_root().join(format!("{name}/kubepods/pod{name}"));
        fs::create_dir_all(&cgroup).expect("a cgroup");
        // The server's too.
        l7egg_daemon::files::allow_many();
        let server = Command::new("ip")
            .args(["netns", "exec", &world])
            .arg(binary("world"))
            .arg("serve")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the test world");
        let inside = Mutex::new(cgroup.clone());
        let mut pod = Self { name, cgroup, inside, world: server, sandbox: None, link };
        pod.set_resolv_conf(&format!("nameserver {}\n", RESOLVERS[0]));
        pod.wait_for_world();
        if link.has_node() {
            pod.sandbox = Some(pod.sleep("infinity"));
        }
        pod
    }

    /// Uid of the pod.
    pub fn uid(&self) -> &str {
        &self.name
    }

    /// Where its world is.
    pub fn link(&self) -> Link {
        self.link
    }

    /// Directory of its cgroup.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// Directory of the cgroup of one of its containers, which is made now if there is none.
    pub fn container(&self, name: &str) -> PathBuf {
        let cgroup = self.cgroup.join(name);
        fs::create_dir_all(&cgroup).expect("a cgroup");
        cgroup
    }

    /// Has its programs run in one of its containers from now on.
    pub fn enter(&self, container: &str) {
        *self.inside.lock().unwrap_or_else(PoisonError::into_inner) = self.container(container);
    }

    fn inside(&self) -> PathBuf {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its network namespace.
    pub fn netns(&self) -> Netns {
        Netns::open(&PathBuf::from(format!("/run/netns/{}p", self.name))).expect("the pod's namespace")
    }

    /// The world's, in which the other end of the pod's interface is.
    pub fn world_netns(&self) -> Netns {
        Netns::open(&PathBuf::from(format!("/run/netns/{}w", self.name))).expect("the world's namespace")
    }

    /// The node's, where there is one between the two: the other end of the pod's interface is in it.
    pub fn node_netns(&self) -> Netns {
        Netns::open(&PathBuf::from(format!("/run/netns/{}n", self.name))).expect("the node's namespace")
    }

    /// Ends its sandbox and makes another one, with another network, as the kubelet does for a pod that goes on. Behind a node only.
    /// Its process is not there yet: see [`Pod::wait_for_sandbox`].
    pub fn renew_sandbox(&mut self) {
        self.end_sandbox();
        let (pod, node) = (format!("{}p", self.name), format!("{}n", self.name));
        // The kernel takes its time with the rest of a namespace.
        ip::inside(&node, &["link del pod"]);
        ip::host(&[&format!("netns del {pod}"), &format!("netns add {pod}")]);
        ip::inside(&pod, &[&veth("eth0", &node, "pod")]);
        ip::inside(&node, &["link set pod master bridge", "link set pod up"]);
        address(&pod, "10.77.0.2/24", "fd77::2/64");
        ip::inside(&format!("{}w", self.name), &["neigh flush all"]);
        ip::inside(&pod, &["route add default via 10.77.0.1", "route add default via fd77::1"]);
        self.sandbox = Some(self.begin_to_sleep("infinity"));
    }

    /// Gives it another wire to the node, `net1` with 10.78.0.2, beside the one that it has. Behind a node only.
    pub fn add_wire(&self) {
        let (pod, node) = (format!("{}p", self.name), format!("{}n", self.name));
        ip::inside(
            &pod,
            &[&veth("net1", &node, "later"), "addr add 10.78.0.2/24 dev net1", "link set net1 up"],
        );
        ip::inside(&node, &["addr add 10.78.0.1/24 dev later", "link set later up"]);
    }

    /// Waits until its sandbox is in its network.
    pub fn wait_for_sandbox(&mut self) {
        wait_until_asleep(self.sandbox.as_mut().expect("a sandbox"));
    }

    /// Starts a process in the pod that makes a network for itself, by `unshare` with these arguments, with an interface in it that
    /// leads nowhere.
    pub fn nest(&self, how: &[&str]) -> Nested {
        let script = "ip link add net0 type veth peer name other && ip addr add 10.99.0.2/24 dev net0 \
            && ip link set net0 up && ip link set other up && echo && exec sleep infinity";
        let arguments = [how, &["sh", "-c", script]].concat();
        let mut command = self.command("unshare".as_ref(), &arguments);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("unshare (util-linux)");
        let mut line = [0];
        child.stdout.take().expect("its output").read_exact(&mut line).expect("it has a network");
        Nested::new(child)
    }

    /// Ends its sandbox: its oldest process is another one from now on.
    pub fn end_sandbox(&mut self) {
        if let Some(mut sandbox) = self.sandbox.take() {
            let _ = sandbox.kill();
            let _ = sandbox.wait();
        }
    }

    /// A command that will run in the pod's cgroup and network namespace.
    pub fn command(&self, program: &Path, arguments: &[&str]) -> Command {
        self.command_in(&self.inside(), program, arguments)
    }

    /// A command that will run in a cgroup and in the pod's network namespace.
    pub fn command_in(&self, cgroup: &Path, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ >\"$0\" && exec ip netns exec \"$@\""]);
        command.arg(cgroup.join("cgroup.procs")).arg(format!("{}p", self.name)).arg(program).args(arguments);
        command
    }

    /// A process that is in the pod, its cgroup and its network, and does nothing.
    pub fn sleep(&self, time: &str) -> Child {
        let mut child = self.begin_to_sleep(time);
        wait_until_asleep(&mut child);
        child
    }

    fn begin_to_sleep(&self, time: &str) -> Child {
        self.command("sleep".as_ref(), &[time]).spawn().expect("sleep")
    }

    /// Runs the probe in the pod: one value for each line that it prints.
    pub fn probe(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.command(&binary("probe"), arguments).output().expect("the probe");
        assert!(output.status.success(), "probe: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    /// Opens a TCP connection from the pod that exchanges a message every 100 ms until [`Held::end`], and one then.
    pub fn hold(&self, target: &str) -> Held {
        self.hold_in(&self.inside(), target)
    }

    /// The same from a cgroup.
    pub fn hold_in(&self, cgroup: &Path, target: &str) -> Held {
        Held::start(self.command_in(cgroup, &binary("probe"), &holding(target)))
    }

    /// The same from the world.
    pub fn world_hold(&self, target: &str) -> Held {
        let mut command = self.in_world(&binary("probe"));
        command.args(holding(target));
        Held::start(command)
    }

    /// Starts servers in the pod on these ports, until the result is dropped.
    pub fn serve(&self, tcp: u16, udp: u16) -> Server {
        self.serve_in(&self.inside(), tcp, udp)
    }

    /// The same in a cgroup.
    pub fn serve_in(&self, cgroup: &Path, tcp: u16, udp: u16) -> Server {
        let (tcp_text, udp_text) = (tcp.to_string(), udp.to_string());
        let child = self
            .command_in(cgroup, &binary("probe"), &["serve", "--tcp", &tcp_text, "--udp", &udp_text])
            .stderr(Stdio::null())
            .spawn()
            .expect("the probe");
        let server = Server::new(child);
        let target = format!("tcp://{POD4}:{tcp}");
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.world_connect(&[&target]) != ["ok"] {
            assert!(Instant::now() < deadline, "the pod's server does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }

    /// What became of a connection from the world to each target.
    pub fn world_connect(&self, targets: &[&str]) -> Vec<String> {
        let output = self.in_world(&binary("probe")).args(connecting(targets)).output().expect("the probe");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().map(|line| outcome(&serde_json::from_str(line).expect("a line of JSON"))).collect()
    }

    /// How many TCP connections to an address the pod has that are not closed on both sides.
    pub fn connections_to(&self, address: &str) -> usize {
        self.connections(&["dst", address])
    }

    fn connections(&self, filter: &[&str]) -> usize {
        let arguments = [&["-Htn"], filter].concat();
        let output = self.command("ss".as_ref(), &arguments).output().expect("ss (iproute2)");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).lines().count()
    }

    /// Runs dig in the pod; what it prints.
    pub fn dig(&self, arguments: &[&str]) -> String {
        let timeout = format!("+timeout={}", seconds(3));
        let output = self
            .command("dig".as_ref(), &[&["+short", "+tries=1", &timeout], arguments].concat())
            .output()
            .expect("dig (package bind9-dnsutils)");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The same from a cgroup.
    pub fn connect_in(&self, cgroup: &Path, targets: &[&str]) -> Vec<String> {
        let output =
            self.command_in(cgroup, &binary("probe"), &connecting(targets)).output().expect("the probe");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().map(|line| outcome(&serde_json::from_str(line).expect("a line of JSON"))).collect()
    }

    /// What became of a connection to each target: `ok`, `refused`, `denied`, `timeout` …
    pub fn connect(&self, targets: &[&str]) -> Vec<String> {
        self.probe(&connecting(targets)).iter().map(outcome).collect()
    }

    /// One of them.
    pub fn connect_one(&self, target: &str) -> String {
        self.connect(&[target]).remove(0)
    }

    /// The same where nothing is to come of it: a machine that stands still makes that no better, so it has no more than what is
    /// reached takes. That it is refused at once shows all the same.
    pub fn connect_in_vain(&self, target: &str) -> String {
        let timeout_ms = if is_emulated() { "3000" } else { "600" };
        outcome(&self.probe(&["connect", "--timeout-ms", timeout_ms, target]).remove(0))
    }

    /// Gives names their records, as a zone file.
    pub fn set_names(&self, zone: &str) {
        let mut child = self
            .in_world(&binary("world"))
            .args(["ctl", "load"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("world ctl");
        child.stdin.take().expect("its input").write_all(zone.as_bytes()).expect("a zone");
        assert!(child.wait().expect("world ctl").success(), "world ctl load");
    }

    /// Sets the resolv.conf of programs that start from now on.
    pub fn set_resolv_conf(&self, text: &str) {
        let etc = PathBuf::from("/etc/netns").join(format!("{}p", self.name));
        fs::write(etc.join("resolv.conf"), text).expect("resolv.conf");
    }

    /// A command in the world's network namespace.
    pub fn in_world(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("{}w", self.name)]).arg(program);
        command
    }

    /// Sets one of the settings of the pod's network namespace.
    pub fn sysctl(&self, setting: &str) {
        run("ip", &["netns", "exec", &format!("{}p", self.name), "sysctl", "-qw", setting]);
    }

    /// Has TCP go on trying to connect: it gives up at `tcp_syn_retries` tries (6), which are half a second apart where they are
    /// lost on the way out, however patient the program is.
    pub fn be_patient(&self) {
        self.try_tcp(60);
    }

    /// Has TCP give up connecting after so many tries more than the first.
    pub fn try_tcp(&self, times: u32) {
        self.sysctl(&format!("net.ipv4.tcp_syn_retries={times}"));
    }

    /// Makes the world send packets of one segment only, as they come over a real network.
    pub fn without_offload(&self) {
        run("ip", &["-n", &format!("{}w", self.name), "link", "set", "eth0", "gso_max_segs", "1"]);
    }

    /// Has the pod's kernel make checksums itself.
    pub fn without_checksum_offload(&self) {
        // SIOCETHTOOL with ETHTOOL_STXCSUM: there may be no ethtool.
        let script = "
import array, fcntl, socket, struct
command = array.array('B', struct.pack('II', 0x17, 0))
request = struct.pack('16sP', b'eth0', command.buffer_info()[0])
fcntl.ioctl(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0x8946, request)
";
        let output = self.command("python3".as_ref(), &["-c", script]).output().expect("python3");
        assert!(output.status.success(), "{output:?}");
    }

    fn wait_for_world(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        // IPv6 as well: its neighbour discovery takes a second where the namespaces are new.
        while self.connect(&["tcp://198.18.0.80:9000", "tcp://[2001:db8:18::80]:9000"]) != ["ok", "ok"] {
            assert!(Instant::now() < deadline, "the test world does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        // What is left of these sends yet, which a test that counts would count.
        while self.connections(&[]) > 0 {
            assert!(Instant::now() < deadline, "connections to the test world are not closed");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.world.kill();
        let _ = self.world.wait();
        self.end_sandbox();
        let _ = fs::write(self.cgroup.join("cgroup.kill"), "1");
        let node = self.cgroup.ancestors().nth(2).expect("the node's cgroup");
        // A directory that stays is one with pods for every agent on this machine.
        if !remove_within(node, Duration::from_secs(30)) {
            eprintln!("cgroup {} cannot be removed", node.display());
        }
        let namespaces: &[&str] = if self.link.has_node() { &["p", "n", "w"] } else { &["p", "w"] };
        ip::remove_netns(&namespaces.iter().map(|ns| format!("{}{ns}", self.name)).collect::<Vec<_>>());
        let _ = fs::remove_dir_all(PathBuf::from("/etc/netns").join(format!("{}p", self.name)));
    }
}

/// First it is the shell, then ip, which enters the namespace and becomes sleep.
fn wait_until_asleep(child: &mut Child) {
    let name = PathBuf::from(format!("/proc/{}/comm", child.id()));
    while fs::read_to_string(&name).is_ok_and(|comm| comm.trim() != "sleep") {
        assert!(matches!(child.try_wait(), Ok(None)), "it ended before it was asleep");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Removes a cgroup and those below it, as soon as their processes have ended; whether it could.
pub fn remove_within(cgroup: &Path, time: Duration) -> bool {
    let deadline = Instant::now() + time;
    while !remove(cgroup) {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

/// Whether it could.
fn remove(cgroup: &Path) -> bool {
    let below = fs::read_dir(cgroup).into_iter().flatten().flatten().map(|entry| entry.path());
    below.filter(|path| path.is_dir()).for_each(|path| {
        remove(&path);
    });
    fs::remove_dir(cgroup).is_ok()
}

/// What the probe is told to try connections. A machine may stand still for a while, so that they have time for a second SYN: see
/// [`outcome`].
fn connecting<'a>(targets: &[&'a str]) -> Vec<&'a str> {
    [&["connect", "--timeout-ms", "3000"], targets].concat()
}

/// What the probe is told to hold a connection.
fn holding(target: &str) -> [&str; 5] {
    let patience_ms = if is_emulated() { "10000" } else { "5000" };
    ["hold", target, "--until-line", "--patience-ms", patience_ms]
}

/// One that needed a second SYN, or whose message was lost, does not pass for a good one; but where the processor is emulated, timers
/// run out while what they wait for is under way.
fn outcome(report: &Value) -> String {
    match (&report["outcome"], &report["later"]) {
        (Value::String(outcome), Value::String(later))
            if !is_emulated() && (outcome == "ok" || outcome == "refused") =>
        {
            format!("{outcome}, by a later {later}")
        }
        (Value::String(outcome), _) => outcome.clone(),
        (other, _) => other.to_string(),
    }
}

pub fn cgroup2_root() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc/self/mounts");
    let line = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"));
    PathBuf::from(line.expect("a cgroup2 mount").split(' ').nth(1).expect("its mount point"))
}
