//! A network namespace that is held open.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;

use nix::sched::{CloneFlags, setns};

use super::NetnsError;
use super::error::refused;

/// A network namespace. It stays while this is held, even if all its processes end: hold it no longer than
/// the work takes.
#[derive(Debug)]
pub struct Netns {
    file: File,
    id: u64,
}

impl Netns {
    /// That of a process, or another place where one is bound (`/proc/<pid>/ns/net`, `/run/netns/<name>`).
    ///
    /// # Errors
    /// It cannot be opened: see [`NetnsError::Open`].
    pub fn open(path: &Path) -> Result<Self, NetnsError> {
        let error = |source| NetnsError::Open { path: path.to_owned(), source };
        let file = File::open(path).map_err(error)?;
        let id = file.metadata().map_err(error)?.ino();
        Ok(Netns { file, id })
    }

    /// The one that the calling thread is in: the host's, if the agent runs there.
    ///
    /// # Errors
    /// There is no /proc.
    pub fn current() -> Result<Self, NetnsError> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// Inode number: equal for equal namespaces, and free to be used again once the namespace is gone.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether it belongs to the user namespace of the agent, or to one around that: what a process makes that may make no
    /// network namespace there belongs to a user namespace of its own.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn is_of_agents_user(&self) -> Result<bool, NetnsError> {
        let what = || refused(format!("asking whose network namespace {} is", self.id));
        // SAFETY: takes no argument, and makes a descriptor that nobody else owns.
        let owner = unsafe {
            match libc::ioctl(self.file.as_raw_fd(), libc::NS_GET_USERNS) {
                fd if fd >= 0 => File::from_raw_fd(fd),
                _ => {
                    let error = io::Error::last_os_error();
                    // One around the agent's: ioctl_nsfs(2).
                    return if error.raw_os_error() == Some(libc::EPERM) {
                        Ok(true)
                    } else {
                        Err(what()(error))
                    };
                }
            }
        };
        let inode = |file: &File| file.metadata().map(|metadata| metadata.ino());
        let own = File::open("/proc/thread-self/ns/user").and_then(|own| inode(&own)).map_err(what())?;
        Ok(inode(&owner).map_err(what())? == own)
    }

    /// Runs `work` inside, on a thread of its own that ends with it: threads of a runtime never change their
    /// namespace.
    ///
    /// # Errors
    /// The agent may not enter: see [`NetnsError::Enter`].
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                setns(&self.file, CloneFlags::CLONE_NEWNET)
                    .map_err(|error| NetnsError::Enter { netns: self.id, source: error.into() })?;
                Ok(work())
            });
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
