//! What can be chosen when the operator is started.

use std::net::SocketAddr;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};
use l7egg_crds::SYSTEM_NAMESPACE;

/// The operator's settings.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// Write only while holding the Lease `l7egg-operator`: needed for more than one replica.
    #[arg(long)]
    pub leader_elect: bool,

    /// Namespace of the Lease, and of the agents.
    #[arg(long, default_value = SYSTEM_NAMESPACE, value_name = "NAMESPACE")]
    pub lease_namespace: String,

    /// Name of this operator in the Lease and in events; the pod's name in a cluster.
    #[arg(long, env = "POD_NAME", default_value = "l7egg-operator", value_name = "NAME")]
    pub identity: String,

    /// Address for /metrics, /healthz and /readyz. `[::]` is for IPv4 as well, and for IPv4 alone where IPv6 is off.
    #[arg(long, env = "L7EGG_METRICS_ADDRESS", default_value = "[::]:9468", value_name = "ADDRESS:PORT")]
    pub metrics_address: SocketAddr,

    /// Whether a pod's annotation kubernetes.io/egress-bandwidth limits it, where no Egg does: `false` leaves that to
    /// CNI plugins.
    #[arg(long, env = "L7EGG_EGRESS_BANDWIDTH_ANNOTATION", default_value_t = true, action = ArgAction::Set, value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    pub egress_bandwidth_annotation: bool,

    /// Keep the taint l7egg.dev/agent-not-ready (NoSchedule) on nodes whose agent is not ready, so that no pod starts there before
    /// it can be held and enforced.
    #[arg(long, env = "L7EGG_AGENT_TAINT", default_value_t = false, action = ArgAction::Set, value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    pub agent_taint: bool,

    /// Most requests that write at a time.
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub concurrent_writes: u16,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            leader_elect: false,
            lease_namespace: SYSTEM_NAMESPACE.to_owned(),
            identity: "l7egg-operator".to_owned(),
            metrics_address: SocketAddr::from(([127, 0, 0, 1], 0)),
            egress_bandwidth_annotation: true,
            agent_taint: false,
            concurrent_writes: 32,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command, FromArgMatches};

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Settings, clap::Error> {
        let arguments = ["l7egg-operator"].iter().chain(arguments);
        let found = Settings::augment_args(Command::new("l7egg-operator")).try_get_matches_from(arguments)?;
        Settings::from_arg_matches(&found)
    }

    /// As for the agents, which are given one of them as well.
    #[test]
    fn booleans_are_written_as_people_do() {
        for (written, meant) in [("1", true), ("yes", true), ("true", true), ("0", false), ("off", false)] {
            let settings = parse(&["--agent-taint", written, "--egress-bandwidth-annotation", written]);
            let settings = settings.expect(written);
            assert_eq!(
                (settings.agent_taint, settings.egress_bandwidth_annotation),
                (meant, meant),
                "{written}"
            );
        }
        assert!(parse(&["--agent-taint", "maybe"]).is_err());
    }

    #[test]
    fn probes_are_answered_in_clusters_of_either_family() {
        let settings = parse(&[]).unwrap();
        assert_eq!(settings.metrics_address, "[::]:9468".parse().unwrap());
    }
}
