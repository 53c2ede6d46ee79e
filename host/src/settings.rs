//! The command line.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use l7egg_daemon::log::LogSettings;
use l7egg_node_agent::{
    admin::AdminPlaces,
    datapath::DatapathSettings,
    settings::{
        ADMIN_ADDRESS, ADMIN_SOCKET, DeniedSettings, DetachSettings, OnExit, StatusSettings, seconds,
    },
};

/// Where Eggs are unless told otherwise.
pub const EGGS: &str = "/etc/l7egg";

/// Enforces Eggs on this host: what the host itself, and its systemd units, may reach.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "l7egg",
    version,
    after_help = "\
A ClusterEgg with a nodeSelector is for the host; other Eggs are for systemd units, by the labels that `l7egg units` shows.

Examples:
  l7egg check /etc/l7egg                        whether the Eggs there can be enforced
  l7egg units                                   the units of this host, with their labels
  l7egg run                                     enforce what is in /etc/l7egg, and follow changes
  l7egg run --eggs web.yaml --eggs common/      the same of these
  l7egg status                                  what is enforced for which unit
  l7egg denied -f                               what is denied, as it comes
  l7egg detach                                  take everything off this host"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Settings of the log.
    #[command(flatten)]
    pub log: LogSettings,
}

/// What the program can do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Enforce, until told to stop by SIGTERM or SIGINT.
    Run(Box<RunSettings>),
    /// Say of each Egg in these files whether it can be enforced. Exit code 1 if one cannot, or there is none, or if the names in it
    /// could not be learned here.
    Check(CheckSettings),
    /// Show the units of this host, with the labels that Eggs select them by.
    Units(UnitsSettings),
    /// Show what is enforced. Exit code 1 if something failed, 2 if nobody can be asked.
    Status(StatusSettings),
    /// Show what was denied, or would have been in mode Audit: the last 4,096 flows. Exit code 0 if there is
    /// nothing, 1 if there is something, 2 if nobody can be asked, or the unit is not known.
    #[command(after_help = "\
Examples:
  l7egg denied                                 what was denied lately, oldest first
  l7egg denied -f                              and what comes after, until Ctrl-C
  l7egg denied --pod system/nginx.service      of one unit
  l7egg denied --json | jq 'select(.verdict == \"audit\") | [.pod, .destination, .port, .names]'")]
    Denied(DeniedSettings),
    /// Stop enforcing on this host and remove every trace from the kernel. Fails while `l7egg run` does, which would enforce again:
    /// stop it first, or give it --on-exit detach.
    Detach(DetachSettings),
}

/// Settings of `run`.
#[derive(Clone, Debug, Args)]
pub struct RunSettings {
    /// A file with Eggs, or a directory with such files (*.yaml, *.yml). Can be repeated. Changes are followed.
    #[arg(long, default_value = EGGS)]
    pub eggs: Vec<PathBuf>,
    /// Labels of this host, for nodeSelectors: KEY=VALUE. `kubernetes.io/hostname` it has anyway.
    #[arg(long, value_parser = label, value_delimiter = ',')]
    pub label: Vec<(String, String)>,
    /// The file that names the DNS servers whose answers are believed. With systemd-resolved,
    /// /run/systemd/resolve/resolv.conf. Changes are followed; it need not be there yet.
    #[arg(long, default_value = "/etc/resolv.conf")]
    pub resolv_conf: PathBuf,
    /// The cgroup2 directory of the host. Not given: where cgroup2 is mounted.
    #[arg(long)]
    pub cgroup_root: Option<PathBuf>,
    /// Where bpffs is mounted.
    #[arg(long, default_value = "/sys/fs/bpf")]
    pub bpffs: PathBuf,
    /// Where /healthz, /readyz and /metrics are served.
    #[arg(long, default_value = ADMIN_ADDRESS)]
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
    /// Take every Egg as one in mode Audit: nothing is denied, and what would be denied is recorded.
    #[arg(long)]
    pub audit: bool,
    /// Whether enforcement stays when the program is told to stop. keep is for restarts and upgrades.
    #[arg(long, value_enum, default_value_t = OnExit::Keep, env = "L7EGG_ON_EXIT")]
    pub on_exit: OnExit,
}

impl RunSettings {
    /// Where it can be asked.
    #[must_use]
    pub fn admin(&self) -> AdminPlaces {
        AdminPlaces { address: self.admin_address.clone(), socket: self.admin_socket.clone() }
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

    /// The host's labels.
    #[must_use]
    pub fn labels(&self, host: &str) -> BTreeMap<String, String> {
        let mut labels: BTreeMap<String, String> = self.label.iter().cloned().collect();
        labels.entry("kubernetes.io/hostname".into()).or_insert_with(|| host.to_owned());
        labels
    }
}

/// Settings of `check`.
#[derive(Clone, Debug, Args)]
pub struct CheckSettings {
    /// Files with Eggs, or directories with such files (*.yaml, *.yml).
    #[arg(default_value = EGGS)]
    pub eggs: Vec<PathBuf>,
    /// The file that `run` is to take its DNS servers from: an error if that names servers on this host only, and some Egg names.
    #[arg(long, default_value = "/etc/resolv.conf")]
    pub resolv_conf: PathBuf,
    /// Print JSON: what is accepted, ignored, and wrong.
    #[arg(long)]
    pub json: bool,
}

/// Settings of `units`.
#[derive(Clone, Debug, Args)]
pub struct UnitsSettings {
    /// The cgroup2 directory of the host. Not given: where cgroup2 is mounted.
    #[arg(long)]
    pub cgroup_root: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE, such as role=edge")?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn eggs_and_labels() {
        let line = ["l7egg", "run", "--eggs", "a.yaml", "--eggs", "b", "--label", "role=edge,zone=a"];
        let Command::Run(run) = Cli::try_parse_from(line).unwrap().command else { panic!("not run") };
        assert_eq!(run.eggs.len(), 2);
        let labels = run.labels("web1");
        assert_eq!((labels["role"].as_str(), labels["kubernetes.io/hostname"].as_str()), ("edge", "web1"));
        assert!(Cli::try_parse_from(["l7egg", "run", "--label", "role"]).is_err());
    }
}
