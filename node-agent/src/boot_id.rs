//! Which boot of its node an agent runs in, as the kubelet says it in `status.nodeInfo.bootID`.

use std::{fs, path::Path};

/// Where the kubelet reads it: nodes that are containers themselves (LXC, systemd-nspawn) have one of their own there, mounted over the
/// kernel's, which an agent's own /proc does not show. Needs the node's PID namespace, and CAP_SYS_PTRACE.
const OF_NODE: &str = "/proc/1/root/proc/sys/kernel/random/boot_id";
const OF_KERNEL: &str = "/proc/sys/kernel/random/boot_id";

/// The boot's id; none if it cannot be read, which no sound system shows.
pub fn boot_id() -> Option<String> {
    first_of(&[Path::new(OF_NODE), Path::new(OF_KERNEL)])
}

fn first_of(files: &[&Path]) -> Option<String> {
    let ids = files.iter().filter_map(|file| fs::read_to_string(file).ok());
    ids.map(|id| id.trim().to_owned()).find(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_comes_before_the_kernels() {
        let root = tempfile::tempdir().unwrap();
        let files = ["node", "kernel"].map(|name| root.path().join(name));
        let files = files.each_ref().map(|file| file.as_path());
        assert_eq!(first_of(&files), None);
        fs::write(files[1], "of-kernel\n").unwrap();
        assert_eq!(first_of(&files).as_deref(), Some("of-kernel"));
        fs::write(files[0], "of-node\n").unwrap();
        assert_eq!(first_of(&files).as_deref(), Some("of-node"));
        assert!(boot_id().is_some_and(|id| id.len() == 36), "this machine's");
    }
}
