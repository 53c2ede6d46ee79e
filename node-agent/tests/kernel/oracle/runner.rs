//! Runs packets through the programs by `BPF_PROG_TEST_RUN`.

use std::net::IpAddr;
use std::process::Command;
use std::str::FromStr;

use aya::programs::{Program, TestRun, TestRunOptions};
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use l7egg_ebpf_common::abi::{Counter, DNS_PORT};
use l7egg_node_agent::datapath::Datapath;
use l7egg_node_agent::kernel::Kernel;
use l7egg_policy::{CompiledPolicy, Flow, Verdict};

use super::packets::{first_of, frame, pod, udp};
use crate::harness::{RESOLVERS, fail};

/// Offset of `ifindex` in `struct __sk_buff`, include/uapi/linux/bpf.h.
const IFINDEX: usize = 40;

/// The programs, run for subject 0.
pub struct Runner {
    kernel: Kernel,
    context: Vec<u8>,
    local_port: u16,
}

/// A question and its answer.
pub struct Exchange {
    /// The question.
    pub query: Message,
    /// The answer.
    pub answer: Message,
    /// Who is asked, and who answers.
    pub resolver: IpAddr,
    /// The pod's port.
    pub local_port: u16,
    /// The port that the answer comes from.
    pub remote_port: u16,
    /// The answer comes over the loopback interface.
    pub over_loopback: bool,
}

impl Exchange {
    /// Of a name and its addresses.
    pub fn new(name: &str, addresses: &[IpAddr]) -> Self {
        let mut query = Message::new(7, MessageType::Query, OpCode::Query);
        query.add_query(Query::query(fully_qualified(name), RecordType::A));
        let mut answer = query.clone();
        answer.metadata.message_type = MessageType::Response;
        let resolver = RESOLVERS[0].parse().expect("an address");
        let mut exchange =
            Self { query, answer, resolver, local_port: 1024, remote_port: DNS_PORT, over_loopback: false };
        exchange.replace_addresses(addresses);
        exchange
    }

    /// Gives the answer other addresses.
    pub fn replace_addresses(&mut self, addresses: &[IpAddr]) {
        let name = self.answer.queries[0].name().clone();
        self.answer.answers.clear();
        for address in addresses {
            let data = match address {
                IpAddr::V4(address) => RData::A(A(*address)),
                IpAddr::V6(address) => RData::AAAA(AAAA(*address)),
            };
            self.answer.add_answer(Record::from_rdata(name.clone(), 300, data));
        }
    }

    /// Makes the answer one to the question for another name.
    pub fn rename(&mut self, name: &str) {
        self.answer.queries[0].set_name(fully_qualified(name));
    }
}

fn verdict(value: u32) -> Verdict {
    match value {
        0 => Verdict::Deny,
        1 => Verdict::Allow,
        other => panic!("a program returned {other}"),
    }
}

fn fully_qualified(name: &str) -> Name {
    Name::from_str(&format!("{}.", name.trim_end_matches('.'))).expect("a name")
}

impl Runner {
    /// In a network namespace of its own, of this thread: packets are to seem to use an interface that is not
    /// loopback.
    pub fn new(kernel: Kernel) -> Self {
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
        Self { kernel, context, local_port: 1024 }
    }

    /// Starts anew under a policy.
    pub fn enforce(&mut self, policy: &CompiledPolicy) {
        self.kernel.enforce_test_subject(policy).unwrap_or_else(fail);
    }

    /// Asks for a name and gets these addresses.
    pub fn resolve(&mut self, name: &str, addresses: &[IpAddr]) {
        let mut exchange = Exchange::new(name, addresses);
        exchange.local_port = self.next_port();
        exchange.answer.metadata.id = exchange.local_port;
        exchange.query.metadata.id = exchange.local_port;
        exchange.resolver = RESOLVERS[usize::from(exchange.local_port) % 2].parse().expect("an address");
        if self.asked(&exchange) == Verdict::Allow {
            assert_eq!(self.answer(&exchange), Verdict::Allow, "whole answers pass");
        }
    }

    /// Asks for a name; whether the query may leave.
    pub fn query(&mut self, name: &str) -> Verdict {
        let mut exchange = Exchange::new(name, &[]);
        exchange.local_port = self.next_port();
        self.asked(&exchange)
    }

    /// Sends a question that may leave.
    pub fn ask(&mut self, exchange: &Exchange) {
        assert_eq!(self.asked(exchange), Verdict::Allow, "DNS passes");
    }

    fn asked(&mut self, exchange: &Exchange) -> Verdict {
        let bytes = exchange.query.to_vec().expect("a query");
        let query = udp(exchange.local_port, DNS_PORT, &bytes);
        let resolver = exchange.resolver;
        verdict(self.run("egress", &frame(pod(resolver), resolver, 17, &query)))
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
        let verdict = verdict(self.run("ingress", &frame(resolver, pod(resolver), 17, &answer)));
        self.context = usual;
        verdict
    }

    /// Sends the first packet of a flow.
    pub fn send(&mut self, flow: &Flow) -> Verdict {
        let transport = first_of(flow.protocol, self.next_port(), flow.port);
        let audited =
            |kernel: &Kernel| kernel.counters().expect("the counters")[Counter::AuditDenied as usize];
        let before = audited(&self.kernel);
        let frame = frame(pod(flow.address), flow.address, flow.protocol, &transport);
        match verdict(self.run("egress", &frame)) {
            Verdict::Allow if audited(&self.kernel) > before => Verdict::Audit,
            verdict => verdict,
        }
    }

    fn run(&mut self, name: &str, frame: &[u8]) -> u32 {
        let Some(Program::CgroupSkb(program)) = self.kernel.program(name) else {
            panic!("no program {name}")
        };
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.ctx_in = Some(&self.context);
        program.test_run(options).expect("a test run").return_value
    }

    fn next_port(&mut self) -> u16 {
        self.local_port = if self.local_port == u16::MAX { 1024 } else { self.local_port + 1 };
        self.local_port
    }
}
