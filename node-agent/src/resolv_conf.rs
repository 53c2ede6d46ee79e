//! The DNS servers that a resolv.conf names, followed. What it says changes while a machine runs: DHCP writes it, sometimes after
//! the programs here have begun.

use std::{io, net::IpAddr, sync::mpsc, thread, time::Duration};

use l7egg_policy::DomainName;

use crate::{
    given::{self, Past},
    host_file::HostFile,
    reconcile::Input,
    resolvers::{NodeResolvers, nameservers, search_domains},
};

/// The file is looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where systemd-resolved writes the servers that it asks. `kubeadm` gives kubelets this file where it runs.
const OF_RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// Who goes by the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// The host's own programs, which read it anew. What servers on the host itself answer comes over loopback, and teaches
    /// nothing.
    Host,
    /// Pods. Each keeps what it said when the pod began, so what it said before stays good for those that run. Servers on the
    /// host itself are out of their reach: where the file names no others, it is not the kubelet's, and the one that
    /// systemd-resolved writes beside it counts.
    Pods,
}

/// What is in a resolv.conf, followed.
#[derive(Debug)]
pub struct FollowedResolvConf {
    file: HostFile,
    readers: Readers,
    known: NodeResolvers,
    /// What it said at the last look. What is heeded is what two looks have found: somebody may be writing it.
    seen: Option<String>,
    /// What is wrong with it now, as it was told.
    problem: Option<String>,
    past: Option<Box<dyn Past>>,
}

/// Why no server is believed by what a resolv.conf says.
#[derive(Debug, thiserror::Error)]
pub enum ResolversError {
    /// It is not there yet, for example.
    #[error(
        "{file} cannot be read ({source}): give the file that names the DNS servers here as --resolv-conf"
    )]
    Unreadable {
        /// Which.
        file: HostFile,
        /// Why.
        source: io::Error,
    },
    /// It is empty while the network is down, for example.
    #[error("{file} names no DNS servers")]
    Empty {
        /// Which.
        file: HostFile,
    },
    /// What servers on the host itself answer comes over loopback, and teaches nothing.
    #[error(
        "{file} names DNS servers on this host only ({stubs:?}), whose answers come over loopback and teach nothing: give the file with the servers that these ask as --resolv-conf, for systemd-resolved {OF_RESOLVED}"
    )]
    OnlyHere {
        /// Which.
        file: HostFile,
        /// All that it names.
        stubs: Vec<IpAddr>,
    },
}

impl FollowedResolvConf {
    /// What this file says now, beside what is known of the cluster's DNS. If that is nothing, it may be written later. That it names no
    /// server that can be believed is told, and no reason not to begin: what is to be in force besides names does not depend on it.
    #[must_use]
    pub fn read(file: HostFile, readers: Readers, cluster: NodeResolvers) -> Self {
        let mut followed =
            FollowedResolvConf { file, readers, known: cluster, seen: None, problem: None, past: None };
        let found = followed.text().and_then(|text| followed.servers(&text));
        followed.heed(found);
        followed
    }

    /// With what was given before this program began. The cluster's DNS always was what it is now if somebody has said so.
    #[must_use]
    pub fn with_past(mut self, past: Box<dyn Past>, is_cluster_said: bool) -> Self {
        if let Some(text) = past.recall() {
            match given::read(&text) {
                Some(before) => self.go_on(before, is_cluster_said),
                None => tracing::warn!(
                    "the DNS servers from before are not understood: pods that began with others than those of now cannot ask them"
                ),
            }
        }
        self.past = Some(past);
        self.look_at_pods();
        self.keep();
        self
    }

    fn go_on(&mut self, mut before: NodeResolvers, is_cluster_said: bool) {
        if is_cluster_said {
            let givens = before.former.iter_mut().map(|former| &mut former.given);
            givens.for_each(|given| given.cluster.clone_from(&self.known.cluster));
            before.cluster.clone_from(&self.known.cluster);
        }
        let mut now = std::mem::take(&mut self.known);
        // As while it runs: what the file said last stays until it says something.
        if now.node.is_empty() {
            now.node.clone_from(&before.node);
            now.node_search.clone_from(&before.node_search);
        }
        self.known = now.after(&before);
    }

    /// Finds out for which pods what was given before still counts. True if that is news.
    fn look_at_pods(&mut self) -> bool {
        let Some(pods) = self.past.as_ref().and_then(|past| past.pods()) else { return false };
        let before = self.known.former.clone();
        self.known.look_at_pods(&pods);
        self.known.former != before
    }

    fn keep(&self) {
        self.past.iter().for_each(|past| past.keep(&given::write(&self.known)));
    }

    /// The servers, and the search domains.
    #[must_use]
    pub fn known(&self) -> &NodeResolvers {
        &self.known
    }

    /// Reads the file again; what is known by it if that is news. While it names no server that can be believed, those that it named
    /// last stay.
    pub fn look(&mut self) -> Option<NodeResolvers> {
        let text = self.text();
        let seen = std::mem::replace(&mut self.seen, text.as_ref().ok().cloned());
        if text.is_ok() && seen != self.seen {
            return None;
        }
        let found = text.and_then(|text| self.servers(&text));
        let is_news = self.heed(found);
        let is_open = self.known.former.iter().any(|former| former.until.is_none());
        if is_open && self.look_at_pods() || is_news {
            self.keep();
            return Some(self.known.clone());
        }
        None
    }

    fn text(&self) -> Result<String, ResolversError> {
        let unreadable = |source| ResolversError::Unreadable { file: self.file.clone(), source };
        let text = self.file.read().map_err(unreadable)?;
        if are_here(&nameservers(&text)) {
            let of_resolved = self.file.beside(OF_RESOLVED).read();
            return Ok(of_resolved.unwrap_or(text));
        }
        Ok(text)
    }

    fn servers(&self, text: &str) -> Result<Found, ResolversError> {
        let servers = nameservers(text);
        let file = || self.file.clone();
        if servers.is_empty() {
            return Err(ResolversError::Empty { file: file() });
        }
        if self.readers == Readers::Host && are_here(&servers) {
            return Err(ResolversError::OnlyHere { file: file(), stubs: servers });
        }
        Ok(Found { servers, search: search_domains(text) })
    }

    /// Whether it is news.
    fn heed(&mut self, found: Result<Found, ResolversError>) -> bool {
        match found {
            Ok(Found { servers, search }) => {
                self.problem = None;
                let before = std::mem::take(&mut self.known);
                let now = NodeResolvers { node: servers, node_search: search, ..before.clone() };
                self.known = match self.readers {
                    Readers::Host => now,
                    Readers::Pods => now.after(&before),
                };
                let is_news = self.known != before;
                if is_news {
                    tracing::info!(servers = ?self.known.node, "DNS servers whose answers are believed");
                }
                is_news
            }
            Err(error) => {
                let problem = error.to_string();
                if self.problem.as_ref() != Some(&problem) {
                    let stays = match self.known.node.is_empty() {
                        true => match self.readers {
                            Readers::Pods => "no name is learned until it does",
                            Readers::Host => {
                                "no name is learned until it does, and what the stub asks is judged like any other traffic"
                            }
                        },
                        false => "those before stay",
                    };
                    tracing::warn!("{problem}; {stays}");
                }
                self.problem = Some(problem);
                false
            }
        }
    }
}

/// What is wrong with this file for a host that is to know names, if it does not become better: that is known beforehand.
#[must_use]
pub fn only_here(file: HostFile) -> Option<ResolversError> {
    let said = file.read().ok()?;
    let servers = nameservers(&said);
    if are_here(&servers) && file.beside(OF_RESOLVED).read().is_ok_and(|text| !are_here(&nameservers(&text)))
    {
        return None;
    }
    (!servers.is_empty() && are_here(&servers)).then_some(ResolversError::OnlyHere { file, stubs: servers })
}

/// Whether all of them are on the host itself.
fn are_here(servers: &[IpAddr]) -> bool {
    servers.iter().all(|server| server.to_canonical().is_loopback())
}

/// What a file says.
struct Found {
    servers: Vec<IpAddr>,
    search: Vec<DomainName>,
}

/// Looks at the file, in a thread of its own, for as long as somebody listens.
///
/// # Errors
/// There can be no thread.
pub fn follow(mut followed: FollowedResolvConf, inputs: mpsc::Sender<Input>) -> io::Result<()> {
    let look = move || {
        loop {
            thread::sleep(LOOK_EVERY);
            if let Some(resolvers) = followed.look()
                && inputs.send(Input::Resolvers(resolvers)).is_err()
            {
                return;
            }
        }
    };
    thread::Builder::new().name("resolv.conf".into()).spawn(look).map(drop)
}

#[cfg(test)]
mod tests;
