//! `l7egg` on a host without Kubernetes: Eggs from files, for the host itself and for its units.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Link, RESOLVERS, Setup, binary, systemd};

/// An Egg for the service `web`.
pub const WEB: &str = "apiVersion: l7egg.dev/v1alpha1
kind: Egg
metadata: {name: web}
spec:
  podSelector: {matchLabels: {l7egg.dev/unit: web.service}}
  egress: [{to: [{domainNames: ['*.fresh.test']}]}]
";
/// One for the host.
pub const HOST: &str = "apiVersion: l7egg.dev/v1alpha1
kind: ClusterEgg
metadata: {name: host}
spec:
  nodeSelector: {matchLabels: {role: edge}}
  egress: [{to: [{cidr: 198.18.0.81/32}, {cidr: '2001:db8:18::80/128'}]}]
";
/// By name, and two addresses.
const TARGETS: [&str; 4] =
    ["tcp4://n1.fresh.test:80", "tcp://198.18.0.80:80", "tcp://198.18.0.81:80", "tcp://[2001:db8:18::80]:80"];
/// Nothing is enforced.
pub const FREE: [&str; 4] = ["ok", "ok", "ok", "ok"];
/// The service's Egg is.
pub const OF_WEB: [&str; 4] = ["ok", "denied", "denied", "denied"];
/// The host's is.
pub const OF_HOST: [&str; 4] = ["denied", "denied", "ok", "ok"];
const PATIENCE: Duration = Duration::from_secs(60);

/// A host with two services.
pub struct Host {
    setup: Setup,
    root: PathBuf,
    files: tempfile::TempDir,
    l7egg: Option<Child>,
}

impl Host {
    /// One whose services run; l7egg does not yet.
    pub fn new() -> Self {
        let setup = Setup::with_link(Link::IsNode);
        setup.remove_everything();
        let root = setup.pod.cgroup().ancestors().nth(2).expect("the node's cgroup").join("host");
        let files = tempfile::tempdir().expect("a directory");
        let servers: String = RESOLVERS.iter().map(|server| format!("nameserver {server}\n")).collect();
        fs::write(files.path().join("resolv.conf"), servers).expect("a file");
        let host = Self { setup, root, files, l7egg: None };
        for unit in ["web", "other"] {
            host.start_unit(unit);
        }
        host
    }

    /// The host's own cgroup.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where what is enforced is pinned.
    pub fn bpffs(&self) -> &Path {
        self.setup.bpffs()
    }

    /// The cgroup of a service.
    pub fn unit(&self, name: &str) -> PathBuf {
        self.root.join(format!("system.slice/{name}.service"))
    }

    fn start_unit(&self, name: &str) {
        fs::create_dir_all(self.unit(name)).expect("a cgroup");
    }

    /// Writes a file of Eggs.
    pub fn write(&self, file: &str, text: &str) {
        fs::create_dir_all(self.files.path().join("eggs")).expect("a directory");
        fs::write(self.files.path().join("eggs").join(file), text).expect("a file");
    }

    /// The command `l7egg`.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("l7egg"));
        command.args(arguments);
        command
    }

    fn socket(&self) -> PathBuf {
        self.files.path().join("run/agent.sock")
    }

    fn run_command(&self) -> Command {
        let mut l7egg = self.command(&["run", "--label", "role=edge"]);
        l7egg.arg("--eggs").arg(self.files.path().join("eggs")).arg("--cgroup-root").arg(&self.root);
        l7egg.arg("--resolv-conf").arg(self.files.path().join("resolv.conf"));
        l7egg.arg("--bpffs").arg(self.setup.bpffs()).arg("--admin-socket").arg(self.socket());
        l7egg
    }

    /// Starts it, in the host's network.
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// The same with more arguments.
    pub fn start_with(&mut self, arguments: &[&str]) {
        let mut l7egg = self.run_command();
        l7egg.args(arguments).stderr(Stdio::null());
        let started = self.setup.pod.netns().run(|| l7egg.spawn()).expect("to work in the host's network");
        self.l7egg = Some(started.expect("l7egg"));
    }

    /// Ends it as systemd does.
    pub fn stop(&mut self) {
        let Some(mut l7egg) = self.l7egg.take() else { return };
        let _ = Command::new("kill").arg(l7egg.id().to_string()).status();
        assert!(l7egg.wait().expect("l7egg").success());
    }

    /// What becomes of connections of a process in this cgroup.
    pub fn outcomes(&self, cgroup: &Path) -> Vec<String> {
        self.setup.pod.connect_in(cgroup, &TARGETS)
    }

    /// What it says is enforced.
    fn status(&self) -> String {
        let status = self.command(&["status", "--json"]).arg("--admin-socket").arg(self.socket()).output();
        String::from_utf8_lossy(&status.expect("l7egg status").stdout).into_owned()
    }

    /// Waits until it says that it enforces something for a unit: what the one before it enforced is in force all the while.
    fn takes_over(&self, unit: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.status().contains(&format!("system/{unit}.service")) {
            assert!(Instant::now() < deadline, "{unit} is not taken over: {}", self.status());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until that is what becomes of a service's.
    pub fn becomes(&self, unit: &str, expected: [&str; 4]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let outcomes = self.outcomes(&self.unit(unit));
            if outcomes == expected {
                return;
            }
            assert!(Instant::now() < deadline, "{unit}: {outcomes:?} and not {expected:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut l7egg) = self.l7egg.take() {
            let _ = l7egg.kill();
            let _ = l7egg.wait();
        }
        self.setup.remove_everything();
    }
}

#[test]
fn a_unit_has_its_egg_and_all_else_is_the_hosts() {
    let mut host = Host::new();
    host.write("web.yaml", WEB);
    host.start();
    host.becomes("web", OF_WEB);
    host.becomes("other", FREE);
    host.write("host.yaml", HOST);
    host.becomes("other", OF_HOST);
    host.becomes("web", OF_WEB);
    // A process of no unit.
    assert_eq!(host.outcomes(&host.root), OF_HOST);

    // Another program takes over: what only the unit's Egg allows is not the host's to cut.
    let live = host.setup.pod.hold_in(&host.unit("web"), TARGETS[0]);
    host.stop();
    host.start();
    host.takes_over("web");
    host.becomes("other", OF_HOST);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(live.end()["outcome"], "ok");
    assert_eq!(host.outcomes(&host.unit("web")), OF_WEB);

    // It starts again: another cgroup, and the same Egg.
    fs::remove_dir(host.unit("web")).expect("to end the unit");
    host.start_unit("web");
    host.becomes("web", OF_WEB);

    let said = host.status();
    assert!(said.contains("system/web.service") && said.contains("Egg system/web"), "{said}");
}

#[test]
fn whoever_has_its_port_keeps_it_from_nothing_and_a_second_one_leaves_it_alone() {
    let mut host = Host::new();
    let squatter = host.setup.pod.netns().run(|| TcpListener::bind("127.0.0.1:9469"));
    let _squatter = squatter.expect("to work in the host's network").expect("a free port");
    host.write("web.yaml", WEB);
    host.start();
    host.becomes("web", OF_WEB);

    let mut second = host.run_command();
    let ended = host.setup.pod.netns().run(move || second.output()).expect("the host's network");
    let ended = ended.expect("l7egg");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(2), "{said}");
    assert!(said.contains("another l7egg enforces with the bpffs"), "{said}");
    host.write("host.yaml", HOST);
    host.becomes("other", OF_HOST);

    // Killed, it has nothing that the next one would have to wait for.
    let mut l7egg = host.l7egg.take().expect("it runs");
    l7egg.kill().and_then(|()| l7egg.wait().map(drop)).expect("to kill it");
    host.start();
    host.write("host.yaml", WEB.replace("web", "other").as_str());
    host.becomes("other", OF_WEB);
}

#[test]
fn beside_it_nobody_frees_anybody() {
    let mut host = Host::new();
    host.write("web.yaml", WEB);
    host.start();
    host.becomes("web", OF_WEB);
    let detach = host.command(&["detach", "--bpffs"]).arg(host.setup.bpffs()).output().expect("l7egg detach");
    let said = String::from_utf8_lossy(&detach.stderr);
    assert_eq!(detach.status.code(), Some(2), "{said}");
    assert!(said.contains("--on-exit detach"), "{said}");
    assert_eq!(host.outcomes(&host.unit("web")), OF_WEB);

    // Who does it by hand does not for long.
    let deadline = Instant::now() + PATIENCE;
    // What is put back meanwhile is there again before its directory can be removed.
    while let Err(error) = fs::remove_dir_all(host.setup.bpffs().join("l7egg")) {
        assert!(Instant::now() < deadline, "the pins cannot be removed: {error}");
    }
    while host.setup.pins("pods").read_dir().map_or(0, Iterator::count) == 0 {
        assert!(Instant::now() < deadline, "nothing is put back");
        std::thread::sleep(Duration::from_millis(50));
    }
    host.becomes("web", OF_WEB);
    // It sees to its lock by itself every two seconds.
    while !host.setup.bpffs().join("l7egg/lock").exists() {
        assert!(Instant::now() < deadline, "the lock is not put back");
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::sleep(Duration::from_millis(500));
    let mut second = host.run_command();
    let started = host.setup.pod.netns().run(move || second.spawn()).expect("the host's network");
    let mut second = started.expect("l7egg");
    let deadline = Instant::now() + PATIENCE;
    let ended = loop {
        match second.try_wait().expect("its status") {
            Some(ended) => break ended,
            None if Instant::now() > deadline => {
                let _ = second.kill();
                panic!("a second one enforces beside the first");
            }
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    assert_eq!(ended.code(), Some(2), "the first one has its lock again");
}

#[test]
fn the_hosts_dns_servers_may_be_named_later() {
    let mut host = Host::new();
    let servers = host.files.path().join("resolv.conf");
    let later = fs::read(&servers).expect("a file");
    fs::remove_file(&servers).expect("to remove it");
    host.write("web.yaml", WEB);
    host.start();
    host.becomes("web", ["dns_failure", "denied", "denied", "denied"]);
    fs::write(&servers, later).expect("a file");
    host.becomes("web", OF_WEB);
    // As the network goes down.
    fs::write(&servers, "").expect("a file");
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(host.outcomes(&host.unit("web")), OF_WEB);
}

/// As it is with systemd-resolved where nobody has given its file: names wait, and nothing else does.
#[test]
fn a_host_with_a_stub_only_begins_all_the_same() {
    let mut host = Host::new();
    let servers = host.files.path().join("resolv.conf");
    let later = fs::read(&servers).expect("a file");
    fs::write(&servers, "nameserver 127.0.0.53\n").expect("a file");
    host.write("web.yaml", &WEB.replace("egress: [{to: [", "egress: [{to: [{cidr: 198.18.0.80/32}, "));
    host.start();
    host.becomes("web", ["dns_failure", "ok", "denied", "denied"]);
    fs::write(&servers, later).expect("a file");
    host.becomes("web", ["ok", "ok", "denied", "denied"]);
}

#[test]
fn what_is_wrong_changes_nothing_and_what_goes_is_free() {
    let mut host = Host::new();
    host.write("web.yaml", WEB);
    host.start();
    host.becomes("web", OF_WEB);
    for wrong in ["{", &WEB.replace("'*.fresh.test'", "'*.*.*'")] {
        host.write("web.yaml", wrong);
        std::thread::sleep(Duration::from_millis(2500));
        assert_eq!(host.outcomes(&host.unit("web")), OF_WEB, "{wrong}");
        assert!(
            !host.command(&["check"]).arg(host.files.path().join("eggs")).status().expect("check").success()
        );
    }
    // What is enforced outlives the program, and another one takes over.
    host.stop();
    assert_eq!(host.outcomes(&host.unit("web")), OF_WEB);
    host.write("web.yaml", &WEB.replace("domainNames: ['*.fresh.test']", "cidr: 198.18.0.80/32"));
    host.start();
    host.becomes("web", ["denied", "ok", "denied", "denied"]);
    fs::remove_file(host.files.path().join("eggs/web.yaml")).expect("to remove it");
    host.becomes("web", FREE);
}

/// The unit and the Eggs of examples/host, and systemd itself.
#[test]
fn systemd_starts_it_before_the_network_is_up() {
    let programs = binary("l7egg");
    let programs = programs.parent().expect("a directory");
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/host");
    let Some(said) = systemd::boot("host.sh", &[programs, &examples]) else { return };
    for line in [
        "l7egg is active before the network is up",
        "nginx: tcp4://api.example.com:443 ok",
        "nginx: tcp://198.18.0.81:443 denied",
        "nginx, l7egg killed: tcp4://api.example.com:443 ok",
        "nginx, l7egg killed: tcp://198.18.0.81:443 denied",
        "nginx, l7egg back: tcp4://api.example.com:443 ok",
        "nginx, l7egg back: tcp://198.18.0.81:443 denied",
        "other, audited: ok",
        "recorded: some",
        "other, enforced: denied",
        "the end",
    ] {
        assert!(said.lines().any(|said| said == line), "{line}: {said}");
    }
}
