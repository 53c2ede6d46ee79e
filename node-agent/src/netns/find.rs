//! From a pod's cgroup to its network namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Netns, NetnsError, interfaces};
use crate::cgroup::is_of_runtime;

/// Containers are one level below the pod; they may have cgroups of their own.
const MAX_DEPTH: usize = 8;
/// Network namespaces that are looked into: a pod may make any number.
const MAX_LOOKED_INTO: usize = 8;

/// What a pod's spec says of its network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpecNetwork {
    /// It is the node's (`hostNetwork`).
    Host,
    /// It is one of its own.
    Own,
    /// Nobody has told of the pod yet.
    #[default]
    Unknown,
}

/// Which network a pod is in.
#[derive(Debug)]
pub enum PodNetwork {
    /// The same as the agent's: the host's. A pod whose very first process is just being started shows up
    /// here too, for some milliseconds, whatever its spec says, and one of whose processes only the runtime's are seen so far.
    Host,
    /// One of its own.
    Own {
        /// Its namespace.
        netns: Netns,
        /// Whose it is.
        process: Process,
    },
    /// Not one of those that its processes are in, as far as can be seen: they have made these for themselves.
    OwnMaking,
}

/// A process, which is no other that has the same number later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    pid: u32,
    started: u64,
}

impl Process {
    /// Whether it still runs.
    #[must_use]
    pub fn runs(self) -> bool {
        started(self.pid) == Some(self.started)
    }
}

/// The network of the pod whose cgroup is at `cgroup`; `None` while no process is in it or below it. `host` is the agent's own
/// namespace.
///
/// It is the first one, by the age of the processes, that has an interface which was given to it: in usual pods that of the oldest
/// process, which is the sandbox's. Sandboxed runtimes begin with processes of their own that are elsewhere: gVisor's gofer in an empty
/// network, Kata's shim in the host's. Where none has such an interface it is that of the oldest process, as long as that process has not
/// made it for itself: some runtimes have no sandbox, and there the oldest process is the pod's own.
///
/// A pod cannot give itself such an interface, nor enter another pod's network, unless it has CAP_SYS_ADMIN there, with which it could do
/// anything else to the node. But pods in the host's network do so as a matter of course: a CNI plugin's agent enters pods' networks, and a
/// container engine has some of its own. Those are never theirs, wherever their processes are; and while nobody has told what the spec
/// says, a pod that begins in the host's network is taken for one of these.
///
/// # Errors
/// The cgroup or the process' namespace cannot be read. Processes that end meanwhile are no error.
pub fn find(cgroup: &Path, host: &Netns, spec: SpecNetwork) -> Result<Option<PodNetwork>, NetnsError> {
    let mut first = None;
    let mut seen = BTreeSet::new();
    for process in by_age(cgroup)? {
        if spec == SpecNetwork::Host {
            return Ok(Some(PodNetwork::Host));
        }
        let netns = match Netns::open(&PathBuf::from(format!("/proc/{}/ns/net", process.pid))) {
            Ok(netns) => netns,
            Err(NetnsError::Open { source, .. }) if is_gone(&source) => continue,
            Err(error) => return Err(error),
        };
        if netns.id() == host.id() {
            let _ = first.get_or_insert(PodNetwork::Host);
            if spec == SpecNetwork::Unknown && matches!(first, Some(PodNetwork::Host)) {
                break;
            }
            continue;
        }
        if !seen.insert(netns.id()) {
            continue;
        }
        let is_looked_into = seen.len() <= MAX_LOOKED_INTO;
        if is_looked_into && netns.run(|| interfaces(host))??.iter().any(|it| it.given) {
            return Ok(Some(PodNetwork::Own { netns, process }));
        }
        if first.is_none() && netns.is_of_agents_user()? {
            first = Some(PodNetwork::Own { netns, process });
        }
        if !is_looked_into && first.is_some() {
            break;
        }
    }
    Ok(first.or((!seen.is_empty()).then_some(PodNetwork::OwnMaking)))
}

/// The network namespaces of all processes, by [`Netns::id`]. Those that end meanwhile, or that the agent may not
/// look at, are left out.
///
/// # Errors
/// There is no /proc.
pub fn all_of_processes() -> Result<BTreeMap<u64, Netns>, NetnsError> {
    let path = PathBuf::from("/proc");
    let entries = fs::read_dir(&path).map_err(|source| NetnsError::Open { path, source })?;
    let processes =
        entries.flatten().filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok());
    let open = processes.filter_map(|entry| Netns::open(&entry.path().join("ns/net")).ok());
    Ok(open.map(|netns| (netns.id(), netns)).collect())
}

/// Whether this is the oldest process of a pod: the sandbox's, where the runtime has no process of its own there.
///
/// # Errors
/// The cgroup cannot be read.
pub fn is_oldest(cgroup: &Path, process: Process) -> Result<bool, NetnsError> {
    Ok(by_age(cgroup)?.first() == Some(&process))
}

/// The oldest process in a cgroup or below it, if there is one.
#[must_use]
pub fn oldest_process(cgroup: &Path) -> Option<u32> {
    by_age(cgroup).ok()?.first().map(|process| process.pid)
}

/// The processes in the cgroup and below it, the oldest first.
fn by_age(cgroup: &Path) -> Result<Vec<Process>, NetnsError> {
    let mut pids = Vec::new();
    processes(cgroup, MAX_DEPTH, &mut pids)?;
    let process = |pid| Some(Process { pid, started: started(pid)? });
    let mut by_age: Vec<Process> = pids.into_iter().filter_map(process).collect();
    by_age.sort_unstable_by_key(|process| (process.started, process.pid));
    Ok(by_age)
}

/// Process ids in the cgroup and below it.
fn processes(cgroup: &Path, depth: usize, pids: &mut Vec<u32>) -> Result<(), NetnsError> {
    let list = cgroup.join("cgroup.procs");
    match fs::read_to_string(&list) {
        // 0 is a process of another pid namespace.
        Ok(text) => {
            pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid != 0))
        }
        // A threaded cgroup: its processes are listed further up.
        Err(error) if is_gone(&error) || error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
        Err(source) => return Err(NetnsError::Cgroup { path: list, source }),
    }
    let entries = match fs::read_dir(cgroup) {
        Ok(entries) => entries,
        Err(error) if is_gone(&error) => return Ok(()),
        Err(source) => return Err(NetnsError::Cgroup { path: cgroup.to_owned(), source }),
    };
    for entry in entries.flatten() {
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if depth > 0 && is_dir && !is_of_runtime(&entry.file_name()) {
            processes(&entry.path(), depth - 1, pids)?;
        }
    }
    Ok(())
}

/// When a process started, in clock ticks since boot: field 22 of /proc/pid/stat, proc_pid_stat(5).
fn started(pid: u32) -> Option<u64> {
    start_time(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The name, field 2, may hold anything, blanks and parentheses too.
fn start_time(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH | libc::ENODEV))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn start_times_behind_any_name() {
        let stat = "12 (a) b (c) S 1 12 12 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1000 2";
        assert_eq!(start_time(stat), Some(98765));
        assert_eq!(start_time("12 (a"), None);
    }

    #[test]
    fn an_empty_or_missing_cgroup_has_no_network_yet() {
        let directory = tempfile::tempdir().unwrap();
        let host = Netns::current().unwrap();
        assert!(find(directory.path(), &host, SpecNetwork::Own).unwrap().is_none());
        assert!(find(&directory.path().join("gone"), &host, SpecNetwork::Own).unwrap().is_none());
    }

    #[test]
    fn what_the_runtime_has_beside_containers_does_not_count() {
        let directory = tempfile::tempdir().unwrap();
        let conmon = directory.path().join("crio-conmon-0f3a.scope");
        fs::create_dir(&conmon).unwrap();
        fs::write(conmon.join("cgroup.procs"), format!("{}\n", std::process::id())).unwrap();
        assert!(find(directory.path(), &Netns::current().unwrap(), SpecNetwork::Own).unwrap().is_none());
        assert_eq!(oldest_process(directory.path()), None);
    }

    #[test]
    fn a_process_is_no_other_with_its_number() {
        let own = Process { pid: std::process::id(), started: started(std::process::id()).unwrap() };
        assert!(own.runs());
        assert!(!Process { started: own.started + 1, ..own }.runs());
    }

    #[test]
    fn a_network_that_a_process_has_made_for_itself_is_not_the_pods() {
        let directory = tempfile::tempdir().unwrap();
        let host = Netns::current().unwrap();
        let program = ["--user", "--net", "sh", "-c", "echo && exec sleep 60"];
        let child =
            Command::new("unshare").args(program).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let Ok(mut child) = child else {
            println!("skipped: no unshare (util-linux)");
            return;
        };
        let mut line = [0];
        let has_begun = child.stdout.take().unwrap().read_exact(&mut line).is_ok();
        if has_begun && nix::unistd::geteuid().is_root() {
            let procs = directory.path().join("cgroup.procs");
            fs::write(&procs, format!("{}\n", child.id())).unwrap();
            let found = find(directory.path(), &host, SpecNetwork::Own);
            assert!(matches!(found, Ok(Some(PodNetwork::OwnMaking))), "{found:?}");
            fs::write(&procs, format!("{}\n{}\n", child.id(), std::process::id())).unwrap();
            let found = find(directory.path(), &host, SpecNetwork::Own);
            assert!(matches!(found, Ok(Some(PodNetwork::Host))), "{found:?}");
        } else {
            println!("skipped: not root, or user namespaces cannot be made");
        }
        let _ = child.kill();
        let _ = child.wait();
    }

    #[test]
    fn the_oldest_process_below_counts() {
        let directory = tempfile::tempdir().unwrap();
        let container = directory.path().join("container");
        fs::create_dir(&container).unwrap();
        fs::write(container.join("cgroup.procs"), format!("0\n{}\n", std::process::id())).unwrap();
        let host = Netns::current().unwrap();
        assert!(matches!(find(directory.path(), &host, SpecNetwork::Own).unwrap(), Some(PodNetwork::Host)));
    }
}
