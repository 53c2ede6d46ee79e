//! Chaos: an agent that is killed every second, and a policy that changes every second, while a pod looks up and connects
//! 200 times a second, by turns where it may and where it may not. Nothing allowed may fail, nothing denied may succeed.
//!
//! The agent is this program again: it takes over what the one before it left, as the real one does, and enforces the next
//! policy. Needs root and the binaries of the e2e crate (`cargo xtask test chaos` sees to both).

#[path = "../kernel/harness/mod.rs"]
#[allow(dead_code, unused_imports)] // Shared with the kernel tests, which use all of it.
mod harness;

use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use harness::{Setup, fail, policy, settings_in};
use l7egg_node_agent::datapath::Datapath;
use l7egg_node_agent::kernel::Kernel;
use libtest_mimic::{Arguments, Failed, Trial};

/// Seconds of traffic.
const SECONDS: u64 = 60;
/// Connections a second.
const RATE: u32 = 200;
/// How long an agent lives.
const LIFE: Duration = Duration::from_secs(1);
/// Set for the agent: where bpffs is, the pod's uid and cgroup.
const AGENT: [&str; 3] = ["L7EGG_CHAOS_BPFFS", "L7EGG_CHAOS_POD", "L7EGG_CHAOS_CGROUP"];

/// Both allow and deny the same of what the pod does; all else differs.
const POLICIES: [&str; 2] = [
    r#"{egress: [
        {to: [{domainNames: ["*.fresh.test"]}]},
        {to: [{cidr: 198.18.1.0/24}, {cidr: "2001:db8:18:7::/64"}], ports: [{protocol: TCP, port: 80}]},
        {action: Deny, to: [{cidr: 198.18.1.128/25}]}]}"#,
    r#"{egress: [
        {to: [{domainNames: ["**.test"]}, {cidr: 198.18.1.0/24}, {cidr: "2001:db8:18:7::/64"}], ports: [{protocol: TCP}]},
        {action: Deny, to: [{cidr: 198.18.1.128/25}, {domainNames: ["*.denied.test"]}, {cidr: 203.0.113.0/24}]}]}"#,
];
const NAMES: &str = "*.denied.test. 30 IN A 198.18.9.9\n*.denied.test. 30 IN AAAA 2001:db8:18:9::9\n";

fn main() -> ExitCode {
    if let [Ok(bpffs), Ok(uid), Ok(cgroup)] = AGENT.map(std::env::var) {
        agent(bpffs.into(), &uid, cgroup.into());
    }
    let trial = Trial::test("killed_and_changed_every_second", chaos);
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit_code()
}

fn chaos() -> Result<(), Failed> {
    let mut setup = Setup::new();
    setup.pod.set_names(NAMES);
    setup.enforce(POLICIES[0]);
    let allowed = [
        "tcp4://n{}.fresh.test:80",
        "tcp://198.18.1.{}:80",
        "tcp6://n{}.fresh.test:443",
        "tcp://[2001:db8:18:7::{}]:80",
    ];
    let denied = [
        "tcp4://n{}.denied.test:80",
        "tcp://198.18.1.200:80",
        "tcp6://n{}.denied.test:443",
        "udp://198.18.9.1:123",
    ];
    let mut arguments = vec!["load".to_owned(), format!("--rate={RATE}"), format!("--seconds={SECONDS}")];
    // Indices grow past what fits into an address, so that these have one each.
    arguments.extend(
        allowed.map(|target| format!("--allowed={}", target.replace(".{}:", ".7:").replace("::{}]", "::7]"))),
    );
    arguments.extend(denied.map(|target| format!("--denied={target}")));
    let held = setup.pod.hold("tcp://198.18.1.1:80");
    let traffic = setup
        .pod
        .command(&harness::binary("probe"), &arguments.iter().map(String::as_str).collect::<Vec<_>>())
        .stdout(Stdio::piped())
        .spawn()?;
    let (kills, output) = kill_agents(&setup, traffic);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let report: serde_json::Value = serde_json::from_str(&text)?;
    let held = held.end();
    println!(
        "chaos: {} allowed, {} of them failed; {} denied, {} of them succeeded; {kills} agents killed; longest allowed {} ms",
        report["allowed"],
        report["allowed_failures"],
        report["denied"],
        report["denied_successes"],
        report["longest_allowed"].as_u64().unwrap_or(0) / 1000,
    );
    println!("chaos: a connection that was open all the while: {}", held["outcome"]);
    let is_right =
        report["allowed_failures"] == 0 && report["denied_successes"] == 0 && held["outcome"] == "ok";
    if is_right { Ok(()) } else { Err(format!("{:#}", report["samples"]).into()) }
}

/// Starts an agent, kills it after its second, and so on until the traffic ends.
fn kill_agents(setup: &Setup, mut traffic: Child) -> (u32, std::process::Output) {
    let mut kills = 0;
    while matches!(traffic.try_wait(), Ok(None)) {
        let mut agent = Command::new(std::env::current_exe().expect("this program"))
            .env(AGENT[0], setup.bpffs())
            .env(AGENT[1], setup.pod.uid())
            .env(AGENT[2], setup.pod.cgroup())
            .spawn()
            .expect("an agent");
        std::thread::sleep(LIFE);
        // SIGKILL, wherever it is.
        let _ = agent.kill();
        let _ = agent.wait();
        kills += 1;
    }
    (kills, traffic.wait_with_output().expect("the traffic's report"))
}

/// Takes over, and changes the policy for as long as it lives: first after a part of a second that differs each time, so
/// that it is killed in the middle of anything.
fn agent(bpffs: PathBuf, uid: &str, cgroup: PathBuf) -> ! {
    let started = Instant::now();
    let mut kernel = Kernel::open(&settings_in(&bpffs)).unwrap_or_else(fail);
    for turn in std::process::id() as usize.. {
        kernel.enforce(uid, &cgroup, &policy(POLICIES[turn % POLICIES.len()])).unwrap_or_else(fail);
        kernel.collect().unwrap_or_else(fail);
        let pause = Duration::from_millis(200 + started.elapsed().subsec_micros() as u64 % 800);
        std::thread::sleep(pause);
    }
    std::process::exit(0)
}
