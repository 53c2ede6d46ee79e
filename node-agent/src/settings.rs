//! The command line.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum, builder::BoolishValueParser};
use l7egg_daemon::log::LogSettings;
use l7egg_policy::DomainName;

use crate::{admin::AdminPlaces, datapath::DatapathSettings, hold::HoldSettings};

/// Where the admin endpoint is unless told otherwise.
pub const ADMIN_ADDRESS: &str = "127.0.0.1:9469";
/// Where agents answer root, unless told otherwise.
pub const ADMIN_SOCKET: &str = "/run/l7egg/agent.sock";

/// Enforces the Eggs that select this node's pods.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "l7egg-node-agent",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Examples:
  l7egg-node-agent --node-name node1                       run, as in the DaemonSet
  l7egg-node-agent run --node-name node1 --cluster-dns 10.96.0.10,fd00:96::a
  l7egg-node-agent --node-name node1 --strict              hold new pods until it is known what is to be in force for them
  l7egg-node-agent status                                  what is enforced for which pod
  l7egg-node-agent status --json | jq '.pods[] | select(.state != \"Enforced\")'
  l7egg-node-agent denied -f                               what is denied, and what would be in mode Audit, as it comes
  l7egg-node-agent denied --json --pod shop/checkout-1 | jq -r .why
  l7egg-node-agent detach                                  take everything off this node
  l7egg-node-agent gate install                            have pods wait for the agent from the moment the node boots"
)]
pub struct Cli {
    /// What to do; run if nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Settings of run.
    #[command(flatten)]
    pub run: Option<RunSettings>,
    /// Settings of the log.
    #[command(flatten)]
    pub log: LogSettings,
}

/// What the program can do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Enforce, until told to stop by SIGTERM or SIGINT.
    Run(Box<RunSettings>),
    /// Show what a running agent enforces. Exit code 1 if some pod failed, 2 if the agent cannot be asked. What an agent waits for that
    /// is not ready yet is said, and changes no exit code: /readyz tells.
    Status(StatusSettings),
    /// Show what was denied, or would have been in mode Audit: the last 4,096 flows. Exit code 0 if there is
    /// nothing, 1 if there is something, 2 if the agent cannot be asked, or does not know the pod.
    Denied(DeniedSettings),
    /// Stop enforcing on this node and remove every trace from the kernel. Fails while the agent runs, which would enforce again:
    /// stop it first, or give it --on-exit detach.
    Detach(DetachSettings),
    /// For a node that boots, before its kubelet starts: have new pods wait until an agent with --strict has decided about them. Ends
    /// when there is a cgroup of pods. Does nothing where an agent has run since the node booted.
    Gate(GateSettings),
}

/// Settings of `run`.
#[derive(Clone, Debug, Args)]
pub struct RunSettings {
    /// Name of this node, as the API server knows it.
    #[arg(long, env = "NODE_NAME")]
    pub node_name: String,
    /// Addresses of the cluster's DNS, which pods of dnsPolicy ClusterFirst ask: the kubelet's clusterDNS. Not
    /// given: the nameservers of the agent's own /etc/resolv.conf, which are the same if its pod has
    /// dnsPolicy ClusterFirst or ClusterFirstWithHostNet; those that an earlier agent found there count for pods that were there then.
    #[arg(long, value_delimiter = ',', env = "L7EGG_CLUSTER_DNS")]
    pub cluster_dns: Vec<IpAddr>,
    /// The domain that Services are below: the kubelet's clusterDomain. Not given: what follows `svc.` in the search
    /// list of the agent's own /etc/resolv.conf, else cluster.local.
    #[arg(long, env = "L7EGG_CLUSTER_DOMAIN", value_parser = DomainName::parse)]
    pub cluster_domain: Option<DomainName>,
    /// Where the node's root is to be seen, for an agent in a container: its files are looked for there, and their links followed as on
    /// the node. /proc/1/root where the container sees the node's processes.
    #[arg(long, value_name = "DIR", env = "L7EGG_HOST_ROOT")]
    pub host_root: Option<PathBuf>,
    /// The file on the node that pods of dnsPolicy Default get their nameservers from: the kubelet's resolvConf. Where it names servers
    /// on the node itself only, the file that systemd-resolved writes counts. Changes are followed; pods that run keep what it said
    /// before.
    #[arg(long, default_value = "/etc/resolv.conf", env = "L7EGG_RESOLV_CONF")]
    pub resolv_conf: PathBuf,
    /// A cgroup2 directory to find pods in. Not given: every mount of cgroup2. Can be repeated.
    #[arg(long)]
    pub cgroup_root: Vec<PathBuf>,
    /// The cgroup2 directory of the node itself, for ClusterEggs with a nodeSelector: they are for all processes below
    /// it that are in no pod. Not given: the root of cgroup2. For nodes that share a machine.
    #[arg(long, env = "L7EGG_HOST_CGROUP")]
    pub host_cgroup: Option<PathBuf>,
    /// Other addresses by which this node's programs reach the API server, such as a load balancer's, which stay
    /// reachable whatever a ClusterEgg with a nodeSelector says: ADDRESS:PORT. Those of the Service `kubernetes` and of
    /// its endpoints do anyway.
    #[arg(long, value_delimiter = ',', env = "L7EGG_API_SERVER")]
    pub api_server: Vec<SocketAddr>,
    /// Where bpffs is mounted.
    #[arg(long, default_value = "/sys/fs/bpf")]
    pub bpffs: PathBuf,
    /// Where /healthz, /readyz and /metrics are served.
    #[arg(long, default_value = ADMIN_ADDRESS, env = "L7EGG_ADMIN_ADDRESS")]
    pub admin_address: String,
    /// A Unix socket where root is told all of this, and what `status` and `denied` ask for.
    #[arg(long, default_value = ADMIN_SOCKET, env = "L7EGG_ADMIN_SOCKET")]
    pub admin_socket: PathBuf,
    /// A DNS answer is believed at least so long, in seconds, whatever its TTL. An Egg's dns.minTTL comes before it.
    #[arg(long, default_value = "0", value_parser = seconds)]
    pub min_ttl: Duration,
    /// A DNS answer is believed at most so long, in seconds. An Egg's dns.maxTTL comes before it.
    #[arg(long, default_value = "86400", value_parser = seconds)]
    pub max_ttl: Duration,
    /// New connections may be opened so long after the TTL, in seconds: programs use addresses a little longer. An
    /// Egg's dns.ttlGrace comes before it.
    #[arg(long, default_value = "30", value_parser = seconds)]
    pub ttl_grace: Duration,
    /// Take every Egg as one in mode Audit: nothing is denied on this node, and what would be denied is recorded.
    /// For the whole cluster, set it in the DaemonSet.
    #[arg(long, env = "L7EGG_AUDIT", value_parser = BoolishValueParser::new())]
    pub audit: bool,
    /// A new pod that an Egg in mode Enforce selects is held, so that nothing leaves it, until the operator has assigned it
    /// and its policy is in force; usually milliseconds, before its first container. So is one that the API server is late to tell
    /// this agent about. For at most so long, in seconds; then it is let go with a warning. 0: none is held, unless --strict says so.
    #[arg(long, default_value = "10", value_parser = seconds, env = "L7EGG_HOLD_FOR")]
    pub hold_for: Duration,
    /// Hold new pods until it is known what is to be in force for them, however long that takes; those as well that run already
    /// when it starts. Never held are static pods and, once the API server has told of them, pods in
    /// the node's network and l7egg's own. Other pods that Eggs select cannot start working while the
    /// operator is away, and no other pod at all can while this agent is: programs stay behind that keep new ones waiting
    /// for it, until an agent without this runs, or `detach`.
    #[arg(long, env = "L7EGG_STRICT", value_parser = BoolishValueParser::new())]
    pub strict: bool,
    /// Whether a pod's annotation kubernetes.io/egress-bandwidth limits it, where no Egg selects it: `false` leaves that to CNI
    /// plugins. Give the operator the same, which says it of pods that Eggs select.
    #[arg(long, env = "L7EGG_EGRESS_BANDWIDTH_ANNOTATION", default_value_t = true, action = clap::ArgAction::Set, value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    pub egress_bandwidth_annotation: bool,
    /// Whether enforcement stays when the agent is told to stop. keep is for restarts and upgrades.
    #[arg(long, value_enum, default_value_t = OnExit::Keep, env = "L7EGG_ON_EXIT")]
    pub on_exit: OnExit,
}

impl RunSettings {
    /// Where it can be asked.
    #[must_use]
    pub fn admin(&self) -> AdminPlaces {
        AdminPlaces { address: self.admin_address.clone(), socket: self.admin_socket.clone() }
    }

    /// Whether new pods are held. With --audit none is.
    #[must_use]
    pub fn hold(&self) -> HoldSettings {
        match (self.audit, self.strict, self.hold_for) {
            (true, ..) | (false, false, Duration::ZERO) => HoldSettings::Never,
            (false, true, _) => HoldSettings::Strict,
            (false, false, limit) => HoldSettings::AtMost(limit),
        }
    }

    /// The kernel's part of the settings.
    #[must_use]
    pub fn datapath(&self, tell_learned: bool) -> DatapathSettings {
        DatapathSettings {
            bpffs: self.bpffs.clone(),
            min_ttl: self.min_ttl,
            max_ttl: self.max_ttl,
            ttl_grace: self.ttl_grace,
            tell_learned,
        }
    }
}

/// Settings of `status`.
#[derive(Clone, Debug, Args)]
pub struct StatusSettings {
    /// The Unix socket of the running agent.
    #[arg(long, default_value = ADMIN_SOCKET, env = "L7EGG_ADMIN_SOCKET")]
    pub admin_socket: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Settings of `denied`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  l7egg-node-agent denied                      what was denied lately, oldest first
  l7egg-node-agent denied -f                   and what comes after, until Ctrl-C
  l7egg-node-agent denied --pod shop/web-1     of one pod
  l7egg-node-agent denied --pod 'node node1'   of the node itself
  l7egg-node-agent denied --json | jq 'select(.verdict == \"audit\") | [.pod, .destination, .port, .names]'")]
pub struct DeniedSettings {
    /// The Unix socket of the running agent.
    #[arg(long, default_value = ADMIN_SOCKET, env = "L7EGG_ADMIN_SOCKET")]
    pub admin_socket: PathBuf,
    /// Print JSON, one object a line.
    #[arg(long)]
    pub json: bool,
    /// Go on: print a flow whenever it is seen.
    #[arg(long, short)]
    pub follow: bool,
    /// Only flows of this pod: NAMESPACE/NAME; of the node itself: `node NAME`; of `l7egg run` a unit's: SLICE/UNIT, such as
    /// system/web.service. As `status` calls them.
    #[arg(long)]
    pub pod: Option<String>,
}

/// Settings of `detach`.
#[derive(Clone, Debug, Args)]
pub struct DetachSettings {
    /// Where bpffs is mounted.
    #[arg(long, default_value = "/sys/fs/bpf")]
    pub bpffs: PathBuf,
}

/// Settings of `gate`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  l7egg-node-agent gate                          as the unit does that is installed
  l7egg-node-agent gate install                  from the next boot on, on this node
  l7egg-node-agent gate install --root /mnt      in an image for nodes
  l7egg-node-agent gate remove                   not any more")]
pub struct GateSettings {
    /// What to do; close the gate if nothing is said.
    #[command(subcommand)]
    pub command: Option<GateCommand>,
    /// Where bpffs is mounted.
    #[arg(long, default_value = "/sys/fs/bpf")]
    pub bpffs: PathBuf,
    /// A cgroup2 directory to find pods in. Not given: every mount of cgroup2. Can be repeated.
    #[arg(long)]
    pub cgroup_root: Vec<PathBuf>,
}

/// What `gate` can do besides.
#[derive(Clone, Debug, Subcommand)]
pub enum GateCommand {
    /// Install a unit of systemd that closes the gate when the node boots, before the kubelet.
    Install {
        /// The root of the node, or of an image for nodes.
        #[arg(long, default_value = "/")]
        root: PathBuf,
    },
    /// Take the unit away.
    Remove {
        /// The root of the node, or of an image for nodes.
        #[arg(long, default_value = "/")]
        root: PathBuf,
    },
}

/// What becomes of enforcement when the agent is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnExit {
    /// It stays as it is.
    Keep,
    /// Every pod is let go of, and every trace removed.
    Detach,
}

/// A number of seconds: `30` or `30s`.
///
/// # Errors
/// It is none.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix('s').unwrap_or(text).parse();
    number.map(Duration::from_secs).map_err(|_| "write a number of seconds, such as 30".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_is_the_default() {
        let cli = parse("agent --node-name n1 --cluster-dns 10.0.0.10,fd00::a --min-ttl 5s --on-exit detach")
            .unwrap();
        let run = cli.run.unwrap();
        assert_eq!(run.cluster_dns.len(), 2);
        assert_eq!(run.min_ttl, Duration::from_secs(5));
        assert_eq!(run.on_exit, OnExit::Detach);
        assert!(cli.command.is_none());
        assert!(matches!(parse("agent run --node-name n1").unwrap().command, Some(Command::Run(_))));
    }

    #[test]
    fn whether_pods_are_held() {
        let hold = |line: &str| parse(line).unwrap().run.unwrap().hold();
        assert_eq!(hold("agent --node-name n"), HoldSettings::AtMost(Duration::from_secs(10)));
        assert_eq!(
            hold("agent --node-name n"),
            HoldSettings::AtMost(l7egg_crds::HOLD_FOR),
            "operators go by that"
        );
        assert_eq!(hold("agent --node-name n --hold-for 3s"), HoldSettings::AtMost(Duration::from_secs(3)));
        assert_eq!(hold("agent --node-name n --hold-for 0"), HoldSettings::Never);
        assert_eq!(hold("agent --node-name n --hold-for 0 --strict"), HoldSettings::Strict);
        let help = Cli::command().render_long_help().to_string();
        assert!(help.contains("0: none is held, unless --strict"), "{help}");
        assert_eq!(hold("agent --node-name n --strict --audit"), HoldSettings::Never);
    }

    #[test]
    fn other_commands_need_no_node_name() {
        assert!(matches!(parse("agent status --json").unwrap().command, Some(Command::Status(_))));
        assert!(matches!(parse("agent detach --log-format json").unwrap().command, Some(Command::Detach(_))));
    }

    #[test]
    fn booleans_are_written_as_people_do() {
        let annotation = |value: &str| {
            let line = format!("agent --node-name n --egress-bandwidth-annotation {value}");
            parse(&line).map(|cli| cli.run.unwrap().egress_bandwidth_annotation)
        };
        for (written, meant) in [("1", true), ("yes", true), ("true", true), ("0", false), ("off", false)] {
            assert_eq!(annotation(written).unwrap(), meant, "{written}");
        }
        assert!(annotation("maybe").is_err());
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        assert!(parse("agent --node-name n1 --min-ttl soon").is_err());
        assert!(parse("agent --node-name n1 --cluster-dns dns.local").is_err());
    }
}
