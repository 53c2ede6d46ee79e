//! The DNS servers whose answers are believed. What a resolv.conf says changes while the host runs: DHCP writes it, usually after
//! this program has begun.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use l7egg_node_agent::resolvers::{NodeResolvers, nameservers, search_domains};

/// What is in a resolv.conf, followed.
#[derive(Debug)]
pub struct Resolvers {
    path: PathBuf,
    known: NodeResolvers,
    /// What is wrong with it now, as it was told.
    problem: Option<String>,
}

/// Why no server is believed by what a resolv.conf says.
#[derive(Debug, thiserror::Error)]
pub enum ResolversError {
    /// It is not there yet, for example.
    #[error("{} cannot be read ({source}): give the file that names this host's DNS servers as --resolv-conf", path.display())]
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

impl Resolvers {
    /// What this file says now. If that is nothing, it may be written later.
    ///
    /// # Errors
    /// [`ResolversError::OnlyHere`], which does not become better.
    pub fn read(path: PathBuf) -> Result<Self, ResolversError> {
        let mut resolvers = Resolvers { path, known: NodeResolvers::default(), problem: None };
        match read(&resolvers.path) {
            Err(error @ ResolversError::OnlyHere { .. }) => return Err(error),
            read => resolvers.heed(read),
        };
        Ok(resolvers)
    }

    /// The servers, and the search domains.
    #[must_use]
    pub fn known(&self) -> &NodeResolvers {
        &self.known
    }

    /// Reads the file again; what it says if that is news. While it names no server that can be believed, those that it named last stay.
    pub fn look(&mut self) -> Option<NodeResolvers> {
        let read = read(&self.path);
        self.heed(read).then(|| self.known.clone())
    }

    /// Whether it is news.
    fn heed(&mut self, read: Result<NodeResolvers, ResolversError>) -> bool {
        match read {
            Ok(read) => {
                self.problem = None;
                if read == self.known {
                    return false;
                }
                tracing::info!(servers = ?read.node, "DNS servers whose answers are believed");
                self.known = read;
                true
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

fn read(path: &Path) -> Result<NodeResolvers, ResolversError> {
    let text = fs::read_to_string(path)
        .map_err(|source| ResolversError::Unreadable { path: path.to_owned(), source })?;
    let node = nameservers(&text);
    if node.is_empty() {
        return Err(ResolversError::Empty { path: path.to_owned() });
    }
    let stubs: Vec<IpAddr> =
        node.iter().copied().filter(|server| server.to_canonical().is_loopback()).collect();
    if stubs.len() == node.len() {
        return Err(ResolversError::OnlyHere { path: path.to_owned(), stubs });
    }
    Ok(NodeResolvers { cluster: Vec::new(), cluster_domain: None, node, node_search: search_domains(&text) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(resolvers: &Resolvers) -> Vec<String> {
        resolvers.known().node.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn changes_are_news_and_nothing_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        let mut resolvers = Resolvers::read(path.clone()).unwrap();
        assert_eq!(servers(&resolvers), [""; 0]);
        assert_eq!(resolvers.look(), None);
        fs::write(&path, "nameserver 192.0.2.53\nsearch example.com\n").unwrap();
        assert_eq!(resolvers.look().unwrap().node_search.len(), 1);
        assert_eq!(resolvers.look(), None);
        for nothing in ["", "nameserver 127.0.0.53\n"] {
            fs::write(&path, nothing).unwrap();
            assert_eq!(resolvers.look(), None);
            assert_eq!(servers(&resolvers), ["192.0.2.53"]);
        }
        fs::write(&path, "nameserver 127.0.0.1\nnameserver 192.0.2.54\n").unwrap();
        assert!(resolvers.look().is_some());
        assert_eq!(servers(&resolvers), ["127.0.0.1", "192.0.2.54"]);
        fs::remove_file(&path).unwrap();
        assert_eq!(resolvers.look(), None);
        assert_eq!(servers(&resolvers), ["127.0.0.1", "192.0.2.54"]);
    }

    #[test]
    fn stubs_alone_are_refused_at_once() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "nameserver 127.0.0.53\nnameserver ::1\n").unwrap();
        let error = Resolvers::read(file.path().to_owned()).unwrap_err().to_string();
        assert!(error.contains("127.0.0.53") && error.contains("--resolv-conf"), "{error}");
    }
}
