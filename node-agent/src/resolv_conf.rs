//! The DNS servers that a resolv.conf names, followed. What it says changes while a machine runs: DHCP writes it, sometimes after
//! the programs here have begun.

use std::{fs, io, net::IpAddr, path::PathBuf, sync::mpsc, thread, time::Duration};

use l7egg_policy::DomainName;

use crate::{
    reconcile::Input,
    resolvers::{NodeResolvers, nameservers, search_domains},
};

/// The file is looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Of what the file said before, so much is kept for pods that run. The C library takes three servers, the kubelet 32 domains.
const MOST_SERVERS: usize = 9;
const MOST_DOMAINS: usize = 96;

/// Who goes by the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// The host's own programs, which read it anew. What servers on the host itself answer comes over loopback, and teaches
    /// nothing.
    Host,
    /// Pods. Each keeps what it said when the pod began, so what it said before stays good beside what it says now.
    Pods,
}

/// What is in a resolv.conf, followed.
#[derive(Debug)]
pub struct FollowedResolvConf {
    path: PathBuf,
    readers: Readers,
    known: NodeResolvers,
    /// What it said at the last look. What is heeded is what two looks have found: somebody may be writing it.
    seen: Option<String>,
    /// What is wrong with it now, as it was told.
    problem: Option<String>,
}

/// Why no server is believed by what a resolv.conf says.
#[derive(Debug, thiserror::Error)]
pub enum ResolversError {
    /// It is not there yet, for example.
    #[error("{} cannot be read ({source}): give the file that names the DNS servers here as --resolv-conf", path.display())]
    Unreadable {
        /// Where it should be.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is empty while the network is down, for example.
    #[error("{} names no DNS servers", path.display())]
    Empty {
        /// Where it is.
        path: PathBuf,
    },
    /// What servers on the host itself answer comes over loopback, and teaches nothing.
    #[error(
        "{} names DNS servers on this host only ({stubs:?}), whose answers come over loopback and teach nothing: give the file with the servers that these ask as --resolv-conf, for systemd-resolved /run/systemd/resolve/resolv.conf",
        path.display()
    )]
    OnlyHere {
        /// Where it is.
        path: PathBuf,
        /// All that it names.
        stubs: Vec<IpAddr>,
    },
}

impl FollowedResolvConf {
    /// What this file says now, beside what is known of the cluster's DNS. If that is nothing, it may be written later.
    ///
    /// # Errors
    /// What does not become better: [`ResolversError::OnlyHere`] for a host, [`ResolversError::Unreadable`] for pods, whose file has
    /// been there since before their kubelet.
    pub fn read(path: PathBuf, readers: Readers, cluster: NodeResolvers) -> Result<Self, ResolversError> {
        let mut followed = FollowedResolvConf { path, readers, known: cluster, seen: None, problem: None };
        match (followed.text().and_then(|text| followed.servers(&text)), readers) {
            (Err(error @ ResolversError::OnlyHere { .. }), Readers::Host)
            | (Err(error @ ResolversError::Unreadable { .. }), Readers::Pods) => return Err(error),
            (found, _) => followed.heed(found),
        };
        Ok(followed)
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
        self.heed(found).then(|| self.known.clone())
    }

    fn text(&self) -> Result<String, ResolversError> {
        let path = &self.path;
        fs::read_to_string(path).map_err(|source| ResolversError::Unreadable { path: path.clone(), source })
    }

    fn servers(&self, text: &str) -> Result<Found, ResolversError> {
        let servers = nameservers(text);
        let path = || self.path.clone();
        if servers.is_empty() {
            return Err(ResolversError::Empty { path: path() });
        }
        let is_here = |server: &IpAddr| server.to_canonical().is_loopback();
        if self.readers == Readers::Host && servers.iter().all(is_here) {
            return Err(ResolversError::OnlyHere { path: path(), stubs: servers });
        }
        Ok(Found { servers, search: search_domains(text) })
    }

    /// Whether it is news.
    fn heed(&mut self, found: Result<Found, ResolversError>) -> bool {
        match found {
            Ok(Found { servers, search }) => {
                self.problem = None;
                let before = std::mem::take(&mut self.known);
                self.known = match self.readers {
                    Readers::Host => NodeResolvers { node: servers, node_search: search, ..before.clone() },
                    Readers::Pods => NodeResolvers {
                        node: beside(servers, &before.node, MOST_SERVERS),
                        node_search: beside(search, &before.node_search, MOST_DOMAINS),
                        ..before.clone()
                    },
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
                        true => "no name is learned until it does",
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

/// What a file says.
struct Found {
    servers: Vec<IpAddr>,
    search: Vec<DomainName>,
}

/// What is new, and behind it what was before. In the order of before if nothing is new, so that it is no news.
fn beside<T: Clone + PartialEq>(now: Vec<T>, before: &[T], most: usize) -> Vec<T> {
    if now.iter().all(|it| before.contains(it)) {
        return before.to_vec();
    }
    let others = before.iter().filter(|it| !now.contains(it)).cloned();
    now.iter().cloned().chain(others).take(most).collect()
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
mod tests {
    use std::path::Path;

    use super::*;

    fn read(path: &Path, readers: Readers) -> FollowedResolvConf {
        FollowedResolvConf::read(path.to_owned(), readers, NodeResolvers::default()).unwrap()
    }

    fn servers(followed: &FollowedResolvConf) -> Vec<String> {
        followed.known().node.iter().map(ToString::to_string).collect()
    }

    /// Two looks, of which only the second may find news.
    fn look(followed: &mut FollowedResolvConf) -> Option<NodeResolvers> {
        assert_eq!(followed.look(), None, "it may still be written");
        followed.look()
    }

    #[test]
    fn changes_are_news_and_nothing_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        let mut followed = read(&path, Readers::Host);
        assert_eq!(servers(&followed), [""; 0]);
        assert_eq!(look(&mut followed), None);
        fs::write(&path, "nameserver 192.0.2.53\nsearch example.com\n").unwrap();
        assert_eq!(look(&mut followed).unwrap().node_search.len(), 1);
        assert_eq!(look(&mut followed), None);
        for nothing in ["", "nameserver 127.0.0.53\n"] {
            fs::write(&path, nothing).unwrap();
            assert_eq!(look(&mut followed), None);
            assert_eq!(servers(&followed), ["192.0.2.53"]);
        }
        fs::write(&path, "nameserver 127.0.0.1\nnameserver 192.0.2.54\n").unwrap();
        assert!(look(&mut followed).is_some());
        assert_eq!(servers(&followed), ["127.0.0.1", "192.0.2.54"]);
        fs::remove_file(&path).unwrap();
        assert_eq!(look(&mut followed), None);
        assert_eq!(servers(&followed), ["127.0.0.1", "192.0.2.54"]);
    }

    #[test]
    fn what_is_being_written_is_not_heeded() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "nameserver 192.0.2.1\n").unwrap();
        let mut followed = read(file.path(), Readers::Pods);
        for part in ["", "nameserver 192.0", "nameserver 192.0.2.5", "nameserver 192.0.2.53\nsearch exam"] {
            fs::write(file.path(), part).unwrap();
            assert_eq!(followed.look(), None, "{part}");
        }
        fs::write(file.path(), "nameserver 192.0.2.53\nsearch example.com\n").unwrap();
        let found = look(&mut followed).unwrap();
        assert_eq!(found.node_search, [DomainName::parse("example.com").unwrap()]);
        assert_eq!(servers(&followed), ["192.0.2.53", "192.0.2.1"]);
    }

    #[test]
    fn pods_that_run_keep_what_they_began_with() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "nameserver 192.0.2.1\n").unwrap();
        let cluster =
            NodeResolvers { cluster: vec!["10.96.0.10".parse().unwrap()], ..NodeResolvers::default() };
        let path = file.path().to_owned();
        let mut followed = FollowedResolvConf::read(path, Readers::Pods, cluster.clone()).unwrap();
        fs::write(file.path(), "nameserver 127.0.0.53\n").unwrap();
        assert_eq!(look(&mut followed).unwrap().cluster, cluster.cluster, "the cluster's stay");
        assert_eq!(servers(&followed), ["127.0.0.53", "192.0.2.1"]);
        fs::write(file.path(), "nameserver 192.0.2.1\n").unwrap();
        assert_eq!(look(&mut followed), None, "nothing new");
        for last in 2..20 {
            fs::write(file.path(), format!("nameserver 192.0.2.{last}\n")).unwrap();
            assert!(look(&mut followed).is_some());
        }
        assert_eq!(servers(&followed).len(), MOST_SERVERS);
        assert_eq!(servers(&followed)[0], "192.0.2.19");
    }

    #[test]
    fn what_does_not_become_better_is_said_at_once() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "nameserver 127.0.0.53\nnameserver ::1\n").unwrap();
        let error = |path: PathBuf, readers| {
            FollowedResolvConf::read(path, readers, NodeResolvers::default()).unwrap_err().to_string()
        };
        let stubs = error(file.path().to_owned(), Readers::Host);
        assert!(stubs.contains("127.0.0.53") && stubs.contains("--resolv-conf"), "{stubs}");
        assert!(error("/nowhere".into(), Readers::Pods).contains("--resolv-conf"));
    }
}
