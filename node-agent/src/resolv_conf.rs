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
mod tests {
    use std::{
        fs,
        path::Path,
        sync::{Arc, Mutex},
    };

    use l7egg_crds::{AssignedPod, PodDns};

    use super::*;
    use crate::resolvers::resolv_conf;
    use crate::testing::warnings;

    fn read(path: &Path, readers: Readers) -> FollowedResolvConf {
        FollowedResolvConf::read(HostFile::new(None, path), readers, NodeResolvers::default())
    }

    fn servers(followed: &FollowedResolvConf) -> Vec<String> {
        followed.known().node.iter().map(ToString::to_string).collect()
    }

    /// Those of now, then those that it named before.
    fn all_servers(followed: &FollowedResolvConf) -> Vec<String> {
        let former = followed.known().former.iter().flat_map(|former| &former.given.node);
        followed.known().node.iter().chain(former).map(ToString::to_string).collect()
    }

    /// A past without a kernel, and pods with cgroups of these ids.
    #[derive(Clone, Debug, Default)]
    struct FakePast {
        text: Arc<Mutex<Option<String>>>,
        pods: Arc<Mutex<Option<Vec<u64>>>>,
    }

    impl FakePast {
        fn has(&self, pods: &[u64]) {
            *self.pods.lock().unwrap() = Some(pods.to_vec());
        }
    }

    impl Past for FakePast {
        fn recall(&self) -> Option<String> {
            self.text.lock().unwrap().clone()
        }

        fn keep(&self, text: &str) {
            *self.text.lock().unwrap() = Some(text.to_owned());
        }

        fn pods(&self) -> Option<Vec<u64>> {
            self.pods.lock().unwrap().clone()
        }
    }

    /// An agent that starts, and has this from its own resolv.conf.
    fn start(file: &Path, past: &FakePast, cluster: &str) -> FollowedResolvConf {
        let cluster = NodeResolvers { cluster: vec![cluster.parse().unwrap()], ..NodeResolvers::default() };
        let followed = FollowedResolvConf::read(HostFile::new(None, file), Readers::Pods, cluster);
        followed.with_past(Box::new(past.clone()), false)
    }

    /// What a pod with this cgroup may ask.
    fn asked(followed: &FollowedResolvConf, policy: &str, cgroup_id: u64) -> Vec<String> {
        let dns = PodDns { policy: policy.into(), ..PodDns::default() };
        let pod = AssignedPod { dns, ..AssignedPod::default() };
        let told = resolv_conf(&pod, Some(cgroup_id), followed.known());
        told.servers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn pods_that_began_before_a_change_keep_their_servers_across_a_restart() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let past = FakePast::default();
        past.has(&[10]);
        fs::write(file.path(), "nameserver 192.0.2.1\n").unwrap();
        let mut followed = start(file.path(), &past, "10.96.0.10");
        fs::write(file.path(), "nameserver 192.0.2.2\n").unwrap();
        past.has(&[10, 20]);
        assert!(look(&mut followed).is_some());
        assert_eq!(look(&mut followed), None);
        // It changes while nobody looks, too.
        drop(followed);
        past.has(&[10, 20, 30]);
        fs::write(file.path(), "nameserver 192.0.2.3\n").unwrap();
        let mut followed = start(file.path(), &past, "10.96.0.10");
        for (pod, expected) in [
            (10, &["192.0.2.1", "192.0.2.2", "192.0.2.3"][..]),
            (20, &["192.0.2.1", "192.0.2.2", "192.0.2.3"]),
            (30, &["192.0.2.2", "192.0.2.3"]),
            (40, &["192.0.2.3"]),
        ] {
            assert_eq!(asked(&followed, "Default", pod), expected, "pod {pod}");
        }
        // What no pod has is forgotten.
        past.has(&[30, 40]);
        assert_eq!(look(&mut followed), None);
        let followed = start(file.path(), &past, "10.96.0.10");
        assert_eq!(all_servers(&followed), ["192.0.2.3", "192.0.2.2"]);
    }

    #[test]
    fn pods_keep_the_clusters_dns_that_they_began_with_unless_somebody_says_which_it_is() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "nameserver 192.0.2.1\n").unwrap();
        let past = FakePast::default();
        past.has(&[10]);
        start(file.path(), &past, "10.96.0.10");
        let followed = start(file.path(), &past, "10.96.0.11");
        assert_eq!(asked(&followed, "ClusterFirst", 10), ["10.96.0.10", "10.96.0.11"]);
        assert_eq!(asked(&followed, "ClusterFirst", 11), ["10.96.0.11"]);
        assert_eq!(asked(&followed, "Default", 10), ["192.0.2.1"]);
        let said = NodeResolvers { cluster: vec!["10.96.0.12".parse().unwrap()], ..NodeResolvers::default() };
        let path = HostFile::new(None, file.path());
        let followed = FollowedResolvConf::read(path, Readers::Pods, said);
        let followed = followed.with_past(Box::new(past), true);
        assert_eq!(asked(&followed, "ClusterFirst", 10), ["10.96.0.12"]);
    }

    #[test]
    fn until_all_pods_are_found_and_the_file_says_something_what_was_stays() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let past = FakePast::default();
        fs::write(file.path(), "nameserver 192.0.2.1\n").unwrap();
        start(file.path(), &past, "10.96.0.10");
        fs::write(file.path(), "").unwrap();
        let mut followed = start(file.path(), &past, "10.96.0.10");
        assert_eq!(asked(&followed, "Default", 99), ["192.0.2.1"]);
        fs::write(file.path(), "nameserver 192.0.2.2\n").unwrap();
        assert!(look(&mut followed).is_some());
        assert_eq!(asked(&followed, "Default", 99), ["192.0.2.1", "192.0.2.2"]);
        past.has(&[10]);
        assert!(followed.look().is_some());
        assert_eq!(asked(&followed, "Default", 99), ["192.0.2.2"]);
        assert_eq!(followed.look(), None);
        *past.text.lock().unwrap() = Some("nonsense".to_owned());
        let followed = start(file.path(), &past, "10.96.0.10");
        assert_eq!(asked(&followed, "Default", 10), ["192.0.2.2"]);
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
        assert_eq!(all_servers(&followed), ["192.0.2.53", "192.0.2.1"]);
    }

    #[test]
    fn pods_that_run_keep_what_they_began_with() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "nameserver 192.0.2.1\n").unwrap();
        let cluster =
            NodeResolvers { cluster: vec!["10.96.0.10".parse().unwrap()], ..NodeResolvers::default() };
        let path = HostFile::new(None, file.path());
        let mut followed = FollowedResolvConf::read(path, Readers::Pods, cluster.clone());
        fs::write(file.path(), "nameserver 127.0.0.53\n").unwrap();
        assert_eq!(look(&mut followed).unwrap().cluster, cluster.cluster, "the cluster's stay");
        assert_eq!(all_servers(&followed), ["127.0.0.53", "192.0.2.1"]);
        assert_eq!(look(&mut followed), None, "nothing new");
        fs::write(file.path(), "nameserver 192.0.2.1\n").unwrap();
        assert!(look(&mut followed).is_some());
        assert_eq!(all_servers(&followed), ["192.0.2.1", "127.0.0.53"], "for those that began in between");
        for last in 2..20 {
            fs::write(file.path(), format!("nameserver 192.0.2.{last}\n")).unwrap();
            assert!(look(&mut followed).is_some());
        }
        assert_eq!(all_servers(&followed).len(), 10, "those of now, and the last nine");
        assert_eq!(servers(&followed), ["192.0.2.19"]);
    }

    #[test]
    fn a_host_with_a_stub_only_is_told_what_to_do_and_begins() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "nameserver 127.0.0.53\nnameserver ::1\n").unwrap();
        let mut followed = None;
        let told = warnings(|| {
            let mut begun = read(file.path(), Readers::Host);
            assert_eq!((begun.look(), begun.look()), (None, None));
            followed = Some(begun);
        });
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("127.0.0.53") && told[0].contains("--resolv-conf"), "{told:?}");
        let mut followed = followed.unwrap();
        assert_eq!(servers(&followed), [""; 0]);
        fs::write(file.path(), "nameserver 192.0.2.53\n").unwrap();
        assert!(look(&mut followed).is_some());
        let stubs = only_here(HostFile::new(None, file.path()));
        assert!(stubs.is_none());
        fs::write(file.path(), "nameserver 127.0.0.53\n").unwrap();
        let stubs = only_here(HostFile::new(None, file.path())).unwrap().to_string();
        assert!(stubs.contains("127.0.0.53"), "{stubs}");
    }

    #[test]
    fn pods_of_a_host_with_systemd_resolved_ask_the_servers_that_it_asks() {
        let host = tempfile::tempdir().unwrap();
        let (etc, run) = (host.path().join("etc"), host.path().join("run/systemd/resolve"));
        let file = || HostFile::new(Some(host.path()), "/etc/resolv.conf");
        let mut followed = FollowedResolvConf::read(file(), Readers::Pods, NodeResolvers::default());
        assert!(followed.problem.as_ref().is_some_and(|it| it.contains("--resolv-conf")), "not there yet");
        fs::create_dir_all(&etc).unwrap();
        fs::create_dir_all(&run).unwrap();
        fs::write(run.join("stub-resolv.conf"), "nameserver 127.0.0.53\n").unwrap();
        std::os::unix::fs::symlink("../run/systemd/resolve/stub-resolv.conf", etc.join("resolv.conf"))
            .unwrap();
        assert!(look(&mut followed).is_some());
        assert_eq!(servers(&followed), ["127.0.0.53"], "nothing else is known");
        fs::write(run.join("resolv.conf"), "nameserver 192.0.2.53\nsearch example.com\n").unwrap();
        assert!(look(&mut followed).is_some());
        assert_eq!(servers(&followed)[0], "192.0.2.53");
        let at_once = FollowedResolvConf::read(file(), Readers::Pods, NodeResolvers::default());
        assert_eq!(servers(&at_once), ["192.0.2.53"]);
        assert_eq!(at_once.known().node_search.len(), 1);
    }
}
