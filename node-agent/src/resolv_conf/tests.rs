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
    let cluster = NodeResolvers { cluster: vec!["10.96.0.10".parse().unwrap()], ..NodeResolvers::default() };
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
    std::os::unix::fs::symlink("../run/systemd/resolve/stub-resolv.conf", etc.join("resolv.conf")).unwrap();
    assert!(look(&mut followed).is_some());
    assert_eq!(servers(&followed), ["127.0.0.53"], "nothing else is known");
    fs::write(run.join("resolv.conf"), "nameserver 192.0.2.53\nsearch example.com\n").unwrap();
    assert!(look(&mut followed).is_some());
    assert_eq!(servers(&followed)[0], "192.0.2.53");
    let at_once = FollowedResolvConf::read(file(), Readers::Pods, NodeResolvers::default());
    assert_eq!(servers(&at_once), ["192.0.2.53"]);
    assert_eq!(at_once.known().node_search.len(), 1);
}
