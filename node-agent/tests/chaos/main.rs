//! Chaos: a pod looks up and connects 400 times a second, by turns where it may and where it may not, while its agent is killed
//! every second and its policy changes every second, or as often as the machine is quick enough for. Nothing allowed may fail, nothing denied may succeed.
//!
//! Twice: with an agent that is this program again, takes over what the one before it left, as the real one does, and enforces
//! one policy after the other for as long as it lives; and, where there is an API server, with the product's own operator and
//! agent, of which the operator is restarted too. Both times the pod is behind a node, in whose network the agent is, so that all
//! goes by the backstop, too. Needs root and the binaries of the workspace (`cargo xtask test chaos` sees to both).

#[path = "../kernel/harness/mod.rs"]
#[allow(dead_code, unused_imports)] // Shared with the kernel tests, which use all of it.
mod harness;
mod traffic;
mod way_in;
mod whole;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode, Stdio};
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};

use harness::{Link, Setup, fail, policy, settings_in};
use l7egg_node_agent::datapath::{Cover, Datapath, ToldNetwork};
use l7egg_node_agent::kernel::Kernel;
use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use traffic::{SECONDS, Traffic};
use whole::Whole;

/// How long an agent lives at least.
const LIFE: Duration = Duration::from_secs(1);
/// Longest that an agent that nobody kills takes until its first policy is in force.
const PATIENCE: Duration = Duration::from_secs(20);
/// An operator lives for as many agents.
const OPERATOR_LIVES: u32 = 5;
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
    let trials = vec![
        Trial::test("killed_and_changed_every_second", killed_and_changed),
        Trial::test(
            "operator_and_agent_restarted_while_an_egg_changes_every_second",
            restarted_while_an_egg_changes,
        ),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// One trial at a time: both want the whole machine.
static TURN: Mutex<()> = Mutex::new(());

fn killed_and_changed() -> Result<(), Failed> {
    let _turn = TURN.lock();
    let setup = Setup::on_node(POLICIES[0]);
    setup.pod.set_names(NAMES);
    is_covered(&setup, setup.pod.uid())?;
    let start = || {
        let mut agent = setup.pod.in_node(&std::env::current_exe()?);
        agent.env(AGENT[0], setup.bpffs()).env(AGENT[1], setup.pod.uid()).env(AGENT[2], setup.pod.cgroup());
        agent.spawn()
    };
    let traffic = Traffic::start(&setup, setup.pod.cgroup())?;
    let mut first = start()?;
    let life = life(&setup, setup.last_policy());
    first.kill()?;
    first.wait()?;
    let (life, before) = (life?, setup.last_policy());
    let result = traffic.until_end("", |_| {
        let mut agent = start()?;
        sleep(life);
        // SIGKILL, wherever it is.
        agent.kill()?;
        agent.wait()?;
        Ok(())
    });
    let policies = setup.last_policy() - before;
    println!("chaos: {policies} policies put in force meanwhile");
    result.and(is_covered(&setup, setup.pod.uid())).and(enough(policies))
}

/// How long agents are to live: half as long again as it takes one that nobody kills, and that has just been started beside the
/// traffic, to put a policy in force after this one.
fn life(setup: &Setup, last: u32) -> Result<Duration, Failed> {
    let started = Instant::now();
    while setup.last_policy() == last {
        if started.elapsed() > PATIENCE {
            return Err(format!("an agent put no policy in force within {} s", PATIENCE.as_secs()).into());
        }
        sleep(Duration::from_millis(10));
    }
    let life = LIFE.max(started.elapsed() * 3 / 2);
    println!("chaos: agents live for {} ms", life.as_millis());
    Ok(life)
}

/// The agents put the backstop there, or took over what the one before them had put there.
fn is_covered(setup: &Setup, uid: &str) -> Result<(), Failed> {
    let is_there = |name| setup.pins(&format!("interfaces/{uid}/{name}")).is_dir();
    if !["entering", "leaving"].into_iter().all(is_there) {
        return Err("the pod is without the backstop".into());
    }
    Ok(())
}

/// An agent that lives for so long gets to it most of the time; if none did, nothing was tried.
fn enough(policies: u32) -> Result<(), Failed> {
    if u64::from(policies) < SECONDS / 6 {
        return Err(format!("only {policies} policies were put in force").into());
    }
    Ok(())
}

fn restarted_while_an_egg_changes() -> Result<(), Failed> {
    if std::env::var_os("KUBECONFIG").is_none() {
        println!("skipped: no API server: set KUBECONFIG, or run `cargo xtask test chaos`");
        return Ok(());
    }
    let _turn = TURN.lock();
    let setup = Setup::with_link(Link::ByNode);
    setup.pod.set_names(NAMES);
    let whole = Whole::new(&setup, POLICIES[0])?;
    let mut sandbox = sandbox(&setup, &whole.cgroup)?;
    let (mut operator, mut agent) = (whole.operator()?, whole.agent(&setup)?);
    let result = restart_both(&setup, &whole, &mut operator, &mut agent);
    for program in [&mut operator, &mut agent, &mut sandbox] {
        let _ = program.kill();
        let _ = program.wait();
    }
    result.map_err(|error| {
        let counters = setup.kernel.counters();
        format!("{}\ncounters: {counters:?}\n{}", error.message().unwrap_or_default(), whole.explain()).into()
    })
}

/// The process that every pod begins with, and by which the agent finds the pod's network.
fn sandbox(setup: &Setup, cgroup: &Path) -> Result<Child, Failed> {
    let mut sandbox = setup.pod.command_in(cgroup, "sh".as_ref(), &["-c", "echo begun; exec sleep infinity"]);
    let mut sandbox = sandbox.stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(sandbox.stdout.take().ok_or("no output")?).read_line(&mut line)?;
    Ok(sandbox)
}

fn restart_both(setup: &Setup, whole: &Whole, operator: &mut Child, agent: &mut Child) -> Result<(), Failed> {
    whole.wait()?;
    is_covered(setup, &whole.uid)?;
    let traffic = Traffic::start(setup, &whole.cgroup)?;
    let mut restarts = 0;
    agent.kill()?;
    agent.wait()?;
    let last = setup.last_policy();
    whole.apply(POLICIES[1])?;
    *agent = whole.agent(setup)?;
    let (life, before) = (life(setup, last)?, setup.last_policy());
    let result = traffic.until_end("with operator, ", |turn| {
        sleep(life / 2);
        whole.apply(POLICIES[turn as usize % POLICIES.len()])?;
        sleep(life / 2);
        agent.kill()?;
        agent.wait()?;
        *agent = whole.agent(setup)?;
        if (turn + 1) % OPERATOR_LIVES == 0 {
            // By turns as the kubelet stops it, and as the kernel does when memory is short.
            let signal = if turn % 2 == 0 { Signal::SIGTERM } else { Signal::SIGKILL };
            kill(Pid::from_raw(operator.id() as i32), signal)?;
            operator.wait()?;
            *operator = whole.operator()?;
            restarts += 1;
        }
        Ok(())
    });
    let policies = setup.last_policy() - before;
    println!(
        "chaos: with operator, {restarts} operators restarted, {policies} policies put in force meanwhile"
    );
    result.and(is_covered(setup, &whole.uid)).and(enough(policies))
}

/// Takes over, and changes the policy for as long as it lives: first after a part of a second that differs each time, so
/// that it is killed in the middle of anything.
fn agent(bpffs: PathBuf, uid: &str, cgroup: PathBuf) -> ! {
    let started = Instant::now();
    let mut kernel = Kernel::open(&settings_in(&bpffs)).unwrap_or_else(fail);
    for turn in std::process::id() as usize.. {
        kernel.enforce(uid, &cgroup, &policy(POLICIES[turn % POLICIES.len()])).unwrap_or_else(fail);
        assert_eq!(kernel.cover(uid, &cgroup, &ToldNetwork::default()).unwrap_or_else(fail), Cover::Whole);
        kernel.collect().unwrap_or_else(fail);
        let pause = Duration::from_millis(200 + started.elapsed().subsec_micros() as u64 % 800);
        sleep(pause);
    }
    std::process::exit(0)
}
