//! Runs packets through the programs by `BPF_PROG_TEST_RUN`.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::Arc;

use aya::maps::{HashMap, Map, MapData, PerCpuArray};
use aya::programs::{Program, TestRun, TestRunOptions};
use l7egg_ebpf_common::abi::{
    ABI_VERSION, Address, AddressKey, Attached, Container, Counter, DNS_PORT, Learned, LearnedKey,
};
use l7egg_node_agent::datapath::{ContainerPolicy, Datapath, DatapathSettings, Wanted};
use l7egg_node_agent::kernel::Kernel;
use l7egg_policy::{CompiledPolicy, Verdict};

use super::calls::Calls;
use super::case::{Answer, Packet, Query};
use super::exchange::Exchange;
use super::meaning::CONTAINERS;
use super::packets::{first_of, frame, pod, udp};
use crate::harness::{POD4, POD6, fail, policy};

/// Offset of `ifindex` in `struct __sk_buff`, include/uapi/linux/bpf.h.
const IFINDEX: usize = 40;
/// The subject that programs run for which are not attached.
const SUBJECT: u32 = 0;
/// What `leaving` says of a frame that goes on (`TC_ACT_UNSPEC`), that goes no further (`TC_ACT_SHOT`), and that goes back as the
/// answer to what it was (`TC_ACT_REDIRECT`; include/uapi/linux/pkt_cls.h).
const NEXT: u32 = u32::MAX;
const SHOT: u32 = 2;
const REDIRECT: u32 = 7;

/// The programs, run for subject 0.
pub struct Runner {
    kernel: Kernel,
    learned: HashMap<MapData, LearnedKey, Learned>,
    addresses: HashMap<MapData, AddressKey, u8>,
    counts: PerCpuArray<MapData, u64>,
    containers: HashMap<MapData, u64, Container>,
    context: Vec<u8>,
    local_port: u16,
    /// How often all ports have been used.
    rounds: u16,
}

impl Runner {
    /// In a network namespace of its own, of this thread: packets are to seem to use an interface that is not
    /// loopback.
    pub fn new(settings: &DatapathSettings) -> Self {
        // SAFETY: changes the network namespace of this thread only.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "these tests need root");
        let made =
            Command::new("ip").args(["link", "add", "eth0", "type", "veth", "peer", "name", "eth1"]).status();
        assert!(made.expect("ip").success());
        // SAFETY: a valid C string.
        let ifindex = unsafe { libc::if_nametoindex(c"eth0".as_ptr()) };
        assert!(ifindex > 1);
        let mut context = vec![0; 192];
        context[IFINDEX..IFINDEX + 4].copy_from_slice(&ifindex.to_ne_bytes());
        let kernel = Kernel::open(settings).unwrap_or_else(fail);
        let map = |name: &str| {
            let pin = settings.bpffs.join(format!("l7egg/v{ABI_VERSION}/maps/{name}"));
            Map::from_map_data(MapData::from_pin(pin).expect("the pin")).expect("the map")
        };
        let mut attached: HashMap<_, u32, Attached> = map("ATTACHED").try_into().expect("a hash map");
        attached
            .insert(ifindex, Attached { subject: SUBJECT, reserved: 0 }, 0)
            .expect("room for an interface");
        let learned = map("LEARNED").try_into().expect("a hash map");
        let addresses = map("ADDRESSES").try_into().expect("a hash map");
        let counts = map("COUNTS").try_into().expect("an array");
        let containers = map("CONTAINERS").try_into().expect("a hash map");
        Self { kernel, learned, addresses, counts, containers, context, local_port: 1024, rounds: 0 }
    }

    /// Starts anew under a policy.
    pub fn enforce(&mut self, policy: &CompiledPolicy) {
        self.kernel.enforce_test_subject(policy).unwrap_or_else(fail);
        for own in [POD4, POD6] {
            let key = AddressKey { subject: SUBJECT, address: address(own.parse().expect("an address")) };
            self.addresses.insert(key, 1, 0).expect("room for an address");
        }
    }

    /// Asks for a name and gets an answer.
    pub fn resolve(&mut self, answer: &Answer) {
        let Answer { query, aliases, ttl, addresses } = answer;
        let mut exchange = self.exchange(query);
        exchange.replace_records(aliases, *ttl, addresses);
        if self.asked(&exchange) != Verdict::Deny {
            assert_eq!(self.answer(&exchange), Verdict::Allow, "whole answers pass");
        }
    }

    /// Asks for a name; whether the query may leave.
    pub fn query(&mut self, query: &Query) -> Verdict {
        let exchange = self.exchange(query);
        self.asked(&exchange)
    }

    /// The same at the backstop.
    pub fn query_leaves(&mut self, query: &Query) -> Verdict {
        let exchange = self.exchange(query);
        self.frame_leaves(&question(&exchange))
    }

    /// Sends a question that may leave.
    pub fn ask(&mut self, exchange: &Exchange) {
        assert_eq!(self.asked(exchange), Verdict::Allow, "DNS passes");
    }

    /// The same of a question in these bytes.
    pub fn ask_bytes(&mut self, exchange: &Exchange, bytes: &[u8]) {
        let query = udp(exchange.local_port, DNS_PORT, bytes);
        let said = self.packet_leaves(&frame(pod(exchange.resolver), exchange.resolver, 17, &query));
        assert_eq!(said, Verdict::Allow, "DNS passes");
    }

    /// Receives the answer; whether it goes on to the pod.
    pub fn answer(&mut self, exchange: &Exchange) -> Verdict {
        self.answer_bytes(exchange, &exchange.answer.to_vec().expect("an answer"))
    }

    /// Receives these bytes as the answer; whether they go on to the pod.
    pub fn answer_bytes(&mut self, exchange: &Exchange, bytes: &[u8]) -> Verdict {
        let answer = udp(exchange.remote_port, exchange.local_port, bytes);
        let resolver = exchange.resolver;
        let usual = self.context.clone();
        if exchange.over_loopback {
            self.context.fill(0);
        }
        let said = self.run("ingress", &frame(resolver, pod(resolver), 17, &answer));
        self.context = usual;
        passes(said)
    }

    /// Sends the first packet of a flow.
    pub fn send(&mut self, packet: Packet) -> Verdict {
        let frame = self.first(packet);
        self.packet_leaves(&frame)
    }

    /// The same at the backstop.
    pub fn leaves(&mut self, packet: Packet) -> Verdict {
        let frame = self.first(packet);
        self.frame_leaves(&frame)
    }

    /// The addresses that are known by some name.
    pub fn known(&self) -> BTreeSet<Address> {
        let keys = self.learned.keys().map(|key| key.expect("a key"));
        keys.filter(|key| key.subject == SUBJECT).map(|key| key.address).collect()
    }

    /// Puts a policy in force for the pod whose process makes calls.
    pub fn enforce_for(&mut self, calls: &Calls, policy: &CompiledPolicy) {
        self.kernel.enforce(calls.uid(), calls.cgroup(), policy).unwrap_or_else(fail);
    }

    /// The same for each of its containers; one without a policy is free.
    pub fn divide(&mut self, calls: &Calls, policies: &[Option<CompiledPolicy>; 2]) {
        let containers = CONTAINERS.iter().zip(policies).map(|(name, policy)| ContainerPolicy {
            cgroup: container(calls, name),
            name: (*name).to_owned(),
            wanted: policy.as_ref().map_or(Wanted::Free, |policy| Wanted::Policy(Arc::new(policy.clone()))),
        });
        let containers: Vec<ContainerPolicy> = containers.collect();
        let rest = policy("{egress: []}");
        self.kernel.divide(calls.uid(), calls.cgroup(), &rest, &containers).unwrap_or_else(fail);
    }

    /// Has who makes the calls know what the answers taught.
    pub fn teach(&mut self, calls: &Calls, history: &[Answer]) {
        let subject = self.subject(calls);
        for known in history.iter().flat_map(|answer| &answer.addresses) {
            let key = LearnedKey { subject: SUBJECT, address: address(*known) };
            if let Ok(learned) = self.learned.get(&key, 0) {
                self.learned.insert(LearnedKey { subject, ..key }, learned, 0).expect("room for an address");
            }
        }
    }

    /// Has them forget it.
    pub fn forget(&mut self, calls: &Calls, history: &[Answer]) {
        let subject = self.subject(calls);
        for known in history.iter().flat_map(|answer| &answer.addresses) {
            let _ = self.learned.remove(&LearnedKey { subject, address: address(*known) });
        }
    }

    /// Who makes calls.
    fn subject(&self, calls: &Calls) -> u32 {
        let enforced = self.kernel.enforced().expect("what is enforced");
        let pod = enforced.iter().find(|pod| pod.uid == calls.uid()).expect("the pod").subject;
        if !calls.cgroup().join(CONTAINERS[0]).exists() {
            return pod;
        }
        self.containers.get(&container(calls, CONTAINERS[0]), 0).expect("the container").subject
    }

    /// How often what would have been denied passed.
    pub fn audited(&self) -> u64 {
        // The agent reads all counters, which takes longer than to run a program.
        self.counts.get(&(Counter::AuditDenied as u32), 0).expect("a counter").iter().sum()
    }

    fn exchange(&mut self, query: &Query) -> Exchange {
        let mut exchange = Exchange::new(&query.name, &[]);
        exchange.local_port = self.next_port();
        // Queries of earlier cases are noted until they are answered, which most are not: no two have the same port and ID.
        exchange.set_id(exchange.local_port.wrapping_add(self.rounds));
        exchange.resolver = query.resolver;
        exchange
    }

    fn asked(&mut self, exchange: &Exchange) -> Verdict {
        self.packet_leaves(&question(exchange))
    }

    fn first(&mut self, packet: Packet) -> Vec<u8> {
        let transport = first_of(packet.protocol, self.next_port(), packet.port);
        frame(pod(packet.address), packet.address, packet.protocol, &transport)
    }

    fn packet_leaves(&mut self, frame: &[u8]) -> Verdict {
        self.unless_audited(|runner| passes(runner.run("egress", frame)))
    }

    fn frame_leaves(&mut self, frame: &[u8]) -> Verdict {
        self.unless_audited(|runner| match runner.run("leaving", frame) {
            NEXT => Verdict::Allow,
            SHOT | REDIRECT => Verdict::Deny,
            other => panic!("leaving returned {other}"),
        })
    }

    fn unless_audited(&mut self, run: impl FnOnce(&mut Self) -> Verdict) -> Verdict {
        let before = self.audited();
        match run(self) {
            Verdict::Allow if self.audited() > before => Verdict::Audit,
            verdict => verdict,
        }
    }

    fn run(&mut self, name: &str, frame: &[u8]) -> u32 {
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.ctx_in = Some(&self.context);
        let result = match self.kernel.program(name) {
            Some(Program::CgroupSkb(program)) => program.test_run(options),
            Some(Program::SchedClassifier(program)) => program.test_run(options),
            _ => panic!("no program {name}"),
        };
        result.expect("a test run").return_value
    }

    fn next_port(&mut self) -> u16 {
        if self.local_port == u16::MAX {
            (self.local_port, self.rounds) = (1024, self.rounds.wrapping_add(1));
        } else {
            self.local_port += 1;
        }
        self.local_port
    }
}

/// Id of a container's cgroup, which is made now if there is none.
fn container(calls: &Calls, name: &str) -> u64 {
    let cgroup = calls.cgroup().join(name);
    fs::create_dir_all(&cgroup).expect("a cgroup");
    fs::metadata(cgroup).expect("a cgroup").ino()
}

fn address(of: IpAddr) -> Address {
    Address::from(of)
}

fn question(exchange: &Exchange) -> Vec<u8> {
    let bytes = exchange.query.to_vec().expect("a query");
    let query = udp(exchange.local_port, DNS_PORT, &bytes);
    frame(pod(exchange.resolver), exchange.resolver, 17, &query)
}

fn passes(value: u32) -> Verdict {
    match value {
        0 => Verdict::Deny,
        1 => Verdict::Allow,
        other => panic!("a program returned {other}"),
    }
}
