//! Three pods, one that is enforced, one in which a container is, and one that is free; and the referee between them and the world.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::attacker::{Attacker, Target};
use crate::harness::{Link, POD4, POD6, Pod, Recorder, Setup};
use crate::way::{Stage, Way};

/// What the attackers' pod may do. `ways/attack.py` knows it.
const POLICY: &str = r#"
egress:
- to: [{domainNames: [api.shop.test, n1.fresh.test]}]
- to: [{cidr: 198.18.1.0/24}, {cidr: "2001:db8:18:1::/64"}]
- to: [{cidr: 198.18.2.0/24}, {cidr: "2001:db8:18:2::/64"}]
  ports: [{protocol: TCP, port: 80}, {protocol: UDP, port: 123}]
- to: [{cidr: 10.77.0.255/32}, {cidr: "ff02::1/128"}]
  ports: [{protocol: UDP, port: 5000, endPort: 5999}]
"#;
/// The same, where names that no rule matches are refused.
const REFUSING_POLICY: &str = r#"
dns: {refuseUnmatched: true}
egress:
- to: [{domainNames: [api.shop.test, n1.fresh.test]}]
"#;
/// Another one that allows the attackers no more.
const OTHER_POLICY: &str = r#"
egress:
- to: [{domainNames: [api.shop.test, "*.fresh.test"]}]
- to: [{cidr: 198.18.1.0/24}, {cidr: 203.0.113.0/25}]
"#;
const EVERYTHING: &str = r#"{egress: [{to: [{cidr: 0.0.0.0/0}, {cidr: "::/0"}]}]}"#;
const NAMES: &str = "api.shop.test. 300 IN A 198.18.1.80\n";
/// A busy machine may keep an attacker from what nothing else does: so often is a way tried in the pod without a policy.
const TRIES: usize = 3;

/// What became of an attempt.
pub enum Attempt {
    /// Nothing got out.
    Held,
    /// Nothing gets out of a pod without a policy either.
    NoWay {
        /// What the attacker said.
        said: String,
    },
    /// Something got out.
    Escaped {
        /// What arrived in the world.
        evidence: Vec<String>,
        /// What the attacker said.
        said: String,
    },
}

/// The container in which attackers are, and one beside it that is free.
const CONTAINER: &str = "app";
const BESIDE: &str = "free";

/// The pods and who listens to them.
pub struct Arena {
    enforced: [Enforced; 2],
    open: Pod,
    open_world: Recorder,
    number: u16,
}

impl Arena {
    /// Starts all.
    pub fn new() -> Self {
        let enforced = [false, true].map(Enforced::new);
        let open = Pod::with_link(Link::ByNode);
        prepare(&open);
        let open_world = Recorder::new(&open.world_netns());
        Self { enforced, open, open_world, number: 0 }
    }

    /// Tries a way out, without a policy and with one, of the pod and of a container of it.
    pub fn try_way(&mut self, way: &Way) -> Attempt {
        let mut left = TRIES;
        let target = loop {
            left -= 1;
            self.number += 1;
            let target = Target::number(self.number);
            let said = self.attack_open(way, &target);
            if !evidence(&self.open_world.frames(), &target, way.helped).is_empty() {
                break target;
            }
            if left == 0 || way.is_lacking(&said) {
                return Attempt::NoWay { said };
            }
        };

        for enforced in &mut self.enforced {
            let said = enforced.attack(way, &target);
            enforced.world.wait_for_quiet();
            let mut evidence = evidence(&enforced.world.frames(), &target, way.helped);
            if !evidence.is_empty() {
                if enforced.is_divided {
                    evidence.push("(out of a container with a policy of its own)".into());
                }
                return Attempt::Escaped { evidence, said };
            }
        }
        Attempt::Held
    }

    fn attack_open(&self, way: &Way, target: &Target) -> String {
        self.open_world.clear();
        let mut attacker = Attacker::start(way, &self.open, self.open.cgroup(), target);
        if way.stage != Stage::Enforced && attacker.wait_until_ready() {
            self.open_world.clear();
            attacker.go_on();
        }
        let said = attacker.end();
        self.open_world.wait_for_quiet();
        said
    }
}

/// A pod with policies.
struct Enforced {
    setup: Setup,
    world: Recorder,
    /// The policies are those of a container.
    is_divided: bool,
}

fn prepare(pod: &Pod) {
    pod.set_names(NAMES);
    // As container runtimes set it: everybody may ping.
    pod.sysctl("net.ipv4.ping_group_range=0 2147483647");
    // Where there is br_netfilter, the node's bridge drops packets with a wrong header itself, and nothing would be shown by them.
    let unfiltered = pod.node_netns().run(|| {
        for of in ["iptables", "ip6tables"].map(|of| format!("/proc/sys/net/bridge/bridge-nf-call-{of}")) {
            if std::fs::exists(&of).is_ok_and(|is_there| is_there) {
                std::fs::write(&of, "0").expect("a setting of the bridge");
            }
        }
    });
    unfiltered.expect("to work in the node's namespace");
}

impl Enforced {
    fn new(is_divided: bool) -> Self {
        let setup = Setup::with_link(Link::ByNode);
        prepare(&setup.pod);
        let world = Recorder::new(&setup.pod.world_netns());
        Self { setup, world, is_divided }
    }

    fn attack(&mut self, way: &Way, target: &Target) -> String {
        let policy = if way.refusing { REFUSING_POLICY } else { POLICY };
        match way.stage {
            Stage::Enforced => self.enforce(policy),
            Stage::Attach => self.setup.release(),
            Stage::Change => self.put_in_force(EVERYTHING),
        }
        self.world.clear();
        let pod = &self.setup.pod;
        let cgroup = if self.is_divided { pod.container(CONTAINER) } else { pod.cgroup().to_owned() };
        let mut attacker = Attacker::start(way, pod, &cgroup, target);
        if way.stage != Stage::Enforced && attacker.wait_until_ready() {
            self.enforce(policy);
            self.world.wait_for_quiet();
            self.world.clear();
            attacker.go_on();
        }
        for turn in 0.. {
            if !way.flood || !attacker.is_running() {
                break;
            }
            self.put_in_force(if turn % 2 == 0 { OTHER_POLICY } else { POLICY });
            if turn % 10 == 9 {
                self.setup.restart_agent();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        attacker.end()
    }

    /// As the agent does it: then it looks at the connections that there are.
    fn enforce(&mut self, policy: &str) {
        self.put_in_force(policy);
        if self.is_divided {
            self.setup.settle_container(CONTAINER, policy);
        } else {
            self.setup.settle(policy);
        }
    }

    fn put_in_force(&mut self, policy: &str) {
        if self.is_divided {
            self.setup.divide(&[(CONTAINER, Some(policy)), (BESIDE, None)]);
        } else {
            self.setup.enforce(policy);
        }
    }
}

/// What a pod must not have sent: the secret, anything that has an evil address in it wherever, anything in
/// somebody else's name, and frames that are neither IP nor ARP. Where the world had a part in it, the pod's kernel
/// may tell it by an ICMP error, and quote what it had sent.
fn evidence(frames: &[Vec<u8>], target: &Target, helped: bool) -> Vec<String> {
    let mut found: Vec<String> = frames
        .iter()
        .filter(|frame| !(helped && is_unreachable(frame)))
        .filter_map(|frame| why(frame, target).map(|why| format!("{why} in {}", hex(frame))))
        .collect();
    let more = found.len().saturating_sub(3);
    if more > 0 {
        found.truncate(3);
        found.push(format!("and {more} more frames"));
    }
    found
}

fn why(frame: &[u8], target: &Target) -> Option<&'static str> {
    let has = |bytes: &[u8]| frame.windows(bytes.len()).any(|window| window == bytes);
    if has(target.secret.as_bytes()) {
        return Some("the secret");
    }
    if has(&target.evil4.octets()) || has(&target.evil6.octets()) {
        return Some("the evil address");
    }
    match frame.get(12..14)? {
        [0x08, 0x00] => {
            let source: [u8; 4] = frame.get(26..30)?.try_into().ok()?;
            let own: Ipv4Addr = POD4.parse().expect("an address");
            (source != own.octets() && source != [0; 4]).then_some("somebody else's address")
        }
        [0x86, 0xdd] => {
            let source: [u8; 16] = frame.get(22..38)?.try_into().ok()?;
            let source = Ipv6Addr::from(source);
            let own: Ipv6Addr = POD6.parse().expect("an address");
            let is_own = source == own || source.is_unicast_link_local() || source.is_unspecified();
            (!is_own).then_some("somebody else's address")
        }
        [0x08, 0x06] => None,
        _ => Some("a frame of another kind"),
    }
}

/// ICMP "destination unreachable" (RFC 792), or that of ICMPv6 (RFC 4443 §3.1).
fn is_unreachable(frame: &[u8]) -> bool {
    let has = |at: usize, bytes: &[u8]| frame.get(at..at + bytes.len()) == Some(bytes);
    has(12, &[0x08, 0x00]) && has(23, &[1]) && has(34, &[3])
        || has(12, &[0x86, 0xdd]) && has(20, &[58]) && has(54, &[1])
}

fn hex(frame: &[u8]) -> String {
    frame.iter().take(96).map(|byte| format!("{byte:02x}")).collect()
}
