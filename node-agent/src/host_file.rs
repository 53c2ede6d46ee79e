//! Files of the host, as the host sees them: from a container, whose root is another one.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

/// A file on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFile {
    root: Option<PathBuf>,
    path: PathBuf,
}

impl HostFile {
    /// The file that programs on the host know by `path`. `root` is where the host's root is to be seen from here; without one it is
    /// ours as well.
    #[must_use]
    pub fn new(root: Option<&Path>, path: impl Into<PathBuf>) -> Self {
        HostFile { root: root.map(Path::to_owned), path: path.into() }
    }

    /// Another one of the same host.
    #[must_use]
    pub fn beside(&self, path: &str) -> Self {
        HostFile::new(self.root.as_deref(), path)
    }

    /// All of it. Links on the way lead where they lead on the host (openat2(2), `RESOLVE_IN_ROOT`): `/etc/resolv.conf` is one to
    /// `/run` where systemd-resolved writes it.
    ///
    /// # Errors
    /// It cannot be read, or is no text.
    pub fn read(&self) -> io::Result<String> {
        let Some(root) = &self.root else { return fs::read_to_string(&self.path) };
        let directory = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let root = OpenOptions::new().read(true).custom_flags(directory.bits()).open(root)?;
        let how =
            OpenHow::new().flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_IN_ROOT);
        let mut text = String::new();
        File::from(openat2(&root, &self.path, how)?).read_to_string(&mut text)?;
        Ok(text)
    }
}

impl fmt::Display for HostFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        match &self.root {
            Some(root) => write!(f, " (in {})", root.display()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_lead_where_they_lead_on_the_host() {
        let host = tempfile::tempdir().unwrap();
        let root = host.path();
        fs::create_dir_all(root.join("run/resolve")).unwrap();
        fs::create_dir(root.join("etc")).unwrap();
        fs::write(root.join("run/resolve/resolv.conf"), "nameserver 192.0.2.1\n").unwrap();
        for target in
            ["/run/resolve/resolv.conf", "../run/resolve/resolv.conf", "../../../run/resolve/resolv.conf"]
        {
            let _ = fs::remove_file(root.join("etc/resolv.conf"));
            symlink(target, root.join("etc/resolv.conf")).unwrap();
            let file = HostFile::new(Some(root), "/etc/resolv.conf");
            assert_eq!(file.read().unwrap(), "nameserver 192.0.2.1\n", "{target}");
        }
        let file = HostFile::new(None, root.join("run/resolve/resolv.conf"));
        assert_eq!(file.read().unwrap(), "nameserver 192.0.2.1\n");
        let missing = HostFile::new(Some(root), "/etc/nothing");
        assert_eq!(missing.read().unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(missing.to_string().starts_with("/etc/nothing (in "), "{missing}");
    }

    /// As from a container that sees the host's processes.
    #[test]
    fn the_first_process_has_the_hosts_root() {
        let file = HostFile::new(Some(Path::new("/proc/1/root")), "/proc/sys/kernel/ostype");
        match file.read() {
            Ok(text) => assert_eq!(text, "Linux\n"),
            Err(error) => println!("not tested, as this needs root: {error}"),
        }
    }
}
