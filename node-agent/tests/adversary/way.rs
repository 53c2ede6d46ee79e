//! The ways out, as the attackers tell of them.

use std::path::PathBuf;
use std::process::Command;

use serde::Deserialize;

/// When an attacker's policy comes into force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Before it starts.
    Enforced,
    /// While it waits; until then no policy is enforced.
    Attach,
    /// While it waits; until then a policy is that allows everything.
    Change,
}

/// A way out.
#[derive(Clone, Debug, Deserialize)]
pub struct Way {
    /// `family::name`.
    pub name: String,
    /// What the attacker does.
    pub what: String,
    /// Capabilities that it keeps.
    pub caps: Vec<String>,
    /// See there.
    pub stage: Stage,
    /// It starts outside the pod's cgroup.
    pub outside: bool,
    /// Policies change and the agent is started anew all the while.
    pub flood: bool,
    /// Names that no rule matches are refused.
    pub refusing: bool,
    /// It has an accomplice in the world.
    pub helped: bool,
    /// Why it is not tried.
    pub out_of_scope: Option<String>,
}

/// Ways that some kernels have not, and what attackers are told there. No other may be without effect in a pod without a policy: it
/// would show nothing.
const LACKING: [(&str, &str); 9] = [
    ("sockets::sctp", "Protocol not supported"),
    ("sockets::sctp_multihoming", "Protocol not supported"),
    ("sockets::dccp", "Socket type not supported"),
    ("sockets::mptcp_fast_open", "Operation not supported"),
    ("admin::rewritten_behind_the_programs", "We have an error talking to the kernel"),
    ("admin::tunnel_of_ip", "Unknown device type"),
    ("admin::tunnel_of_gre", "Unknown device type"),
    ("admin::tun_forwarded", "/dev/net/tun"),
    ("admin::connection_that_never_came_in", "/dev/net/tun"),
];

impl Way {
    /// Whether it is one that this kernel has not, by what the attacker said.
    pub fn is_lacking(&self, said: &str) -> bool {
        LACKING.iter().any(|(name, told)| *name == self.name && said.contains(told))
    }
}

/// The program that all attackers are.
pub fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/adversary/ways/attack.py")
}

/// Every way.
pub fn all() -> Vec<Way> {
    let output = Command::new("python3")
        .arg("-B")
        .arg(program())
        .arg("list")
        .output()
        .expect("python3 (Debian package python3)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().map(|line| serde_json::from_str(line).expect("a way")).collect()
}
