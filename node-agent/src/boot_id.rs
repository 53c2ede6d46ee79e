//! Which boot of its node an agent runs in, as the kubelet says it in `status.nodeInfo.bootID`.

use std::path::Path;

use crate::host_file::HostFile;

const FILE: &str = "/proc/sys/kernel/random/boot_id";

/// The boot's id; none if it cannot be read, which no sound system shows. Where the node's root is to be seen, the node's own: nodes that
/// are containers themselves (LXC, systemd-nspawn) have one mounted over the kernel's, which an agent's own /proc does not show.
pub fn boot_id(host_root: Option<&Path>) -> Option<String> {
    let files = [HostFile::new(host_root, FILE), HostFile::new(None, FILE)];
    let ids = files.iter().filter_map(|file| file.read().ok());
    ids.map(|id| id.trim().to_owned()).find(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_nodes_comes_before_the_kernels() {
        let root = tempfile::tempdir().unwrap();
        let kernels = boot_id(None);
        assert!(kernels.as_ref().is_some_and(|id| id.len() == 36), "this machine's");
        assert_eq!(boot_id(Some(root.path())), kernels);
        let file = root.path().join(&FILE[1..]);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "of-node\n").unwrap();
        assert_eq!(boot_id(Some(root.path())).as_deref(), Some("of-node"));
    }
}
