//! What the name of a cgroup directory says. Naming follows the kubelet's `pkg/kubelet/cm`: `cgroup_manager_linux.go`
//! (`ToSystemd`, `ToCgroupfs`) and `pod_container_manager_linux.go` (`GetPodContainerName`).

use std::{ffi::OsStr, path::Path};

/// Whether a directory in a pod's is that of a process that CRI-O has beside each container (`conmon`, with `conmon_cgroup = "pod"`): it is
/// older than the container, and in the host's network.
#[must_use]
pub fn is_of_runtime(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b"crio-conmon-")
}

/// What a directory of the cgroup tree is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Holds pods and QoS classes, or pods: `kubepods`, `kubepods/burstable`, `kubepods-burstable.slice`.
    Parent,
    /// Is a pod's.
    Pod {
        /// Uid of the pod.
        uid: String,
    },
    /// Is something else.
    Other,
}

/// What `directory` is. Only its last components matter: kubelets can be told to put `kubepods` anywhere.
#[must_use]
pub fn classify(directory: &Path) -> Place {
    let mut names = directory.iter().rev().filter_map(|name| name.to_str());
    let (Some(name), parent, grandparent) = (names.next(), names.next(), names.next()) else {
        return Place::Other;
    };
    match name.strip_suffix(".slice") {
        Some(slice) => by_systemd(slice),
        None => by_cgroupfs(name, parent.unwrap_or_default(), grandparent.unwrap_or_default()),
    }
}

/// `kubepods`, `kubepods/burstable`, `kubepods/besteffort/pod<uid>`, `kubepods/pod<uid>`.
fn by_cgroupfs(name: &str, parent: &str, grandparent: &str) -> Place {
    let is_class = |name: &str, parent: &str| is_class(name) && parent == "kubepods";
    match name.strip_prefix("pod") {
        Some(uid) if is_uid(uid) && (parent == "kubepods" || is_class(parent, grandparent)) => {
            Place::Pod { uid: uid.to_owned() }
        }
        _ if name == "kubepods" || is_class(name, parent) => Place::Parent,
        _ => Place::Other,
    }
}

/// A slice's name holds the names of its parents (`man 5 systemd.slice`), and `-` in a uid becomes `_`:
/// `kubepods-burstable-pod0f3a_….slice`; below a cgroup root of its own, `kubelet-kubepods-….slice`.
fn by_systemd(slice: &str) -> Place {
    let parts: Vec<&str> = slice.split('-').collect();
    let Some(at) = parts.iter().position(|part| *part == "kubepods") else { return Place::Other };
    match parts[at + 1..] {
        [] => Place::Parent,
        [class] if is_class(class) => Place::Parent,
        [pod] => pod_slice(pod),
        [class, pod] if is_class(class) => pod_slice(pod),
        _ => Place::Other,
    }
}

fn pod_slice(part: &str) -> Place {
    match part.strip_prefix("pod") {
        Some(uid) if is_uid(uid) => Place::Pod { uid: uid.replace('_', "-") },
        _ => Place::Other,
    }
}

fn is_class(name: &str) -> bool {
    matches!(name, "burstable" | "besteffort")
}

/// A UUID, or the 32 hexadecimal digits of a static pod.
fn is_uid(uid: &str) -> bool {
    uid.len() >= 32 && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0f3a2b1c-1111-2222-3333-444455556666";

    fn pod(path: &str) -> Option<String> {
        match classify(Path::new(path)) {
            Place::Pod { uid } => Some(uid),
            _ => None,
        }
    }

    #[test]
    fn pods() {
        for path in [
            "/sys/fs/cgroup/unified/kubepods/pod0f3a2b1c-1111-2222-3333-444455556666",
            "/x/kubepods/burstable/pod0f3a2b1c-1111-2222-3333-444455556666",
            "kubepods/besteffort/pod0f3a2b1c-1111-2222-3333-444455556666",
            "/c/kubepods.slice/kubepods-pod0f3a2b1c_1111_2222_3333_444455556666.slice",
            "/c/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0f3a2b1c_1111_2222_3333_444455556666.slice",
            "/c/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod0f3a2b1c_1111_2222_3333_444455556666.slice",
        ] {
            assert_eq!(pod(path).as_deref(), Some(UID), "{path}");
        }
        assert_eq!(
            pod("/kubepods/burstable/pod0123456789abcdef0123456789abcdef").as_deref(),
            Some("0123456789abcdef0123456789abcdef")
        );
    }

    #[test]
    fn parents() {
        for path in [
            "/sys/fs/cgroup/kubepods",
            "/a/b/kubepods/burstable",
            "/a/kubepods.slice",
            "/a/kubepods.slice/kubepods-besteffort.slice",
            "/a/kubelet.slice/kubelet-kubepods.slice",
        ] {
            assert_eq!(classify(Path::new(path)), Place::Parent, "{path}");
        }
    }

    #[test]
    fn others() {
        for path in [
            "/",
            "",
            "/sys/fs/cgroup",
            "/burstable",
            "/kubepods/podman",
            "/machine/pod0f3a2b1c-1111-2222-3333-444455556666",
            "/burstable/pod0f3a2b1c-1111-2222-3333-444455556666",
            "/kubepods/burstable/pod../../../../../../../../../../../etc",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podx.slice",
            "/kubepods.slice/cri-containerd-0f3a2b1c.scope",
            "/system.slice/kubelet.service",
            "/kubepods/pod0f3a2b1c-1111-2222-3333-444455556666/0123456789",
        ] {
            assert_eq!(classify(Path::new(path)), Place::Other, "{path}");
        }
    }
}
