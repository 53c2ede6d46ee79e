//! One agent at a time has what is below a bpffs.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Time that an agent has that is about to end, such as the one that this replaces.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
const TRY_EVERY: Duration = Duration::from_millis(50);

/// Why the lock is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody has it.
    #[error(
        "another l7egg enforces with the bpffs {bpffs} ({holder}): stop it, or give this one a bpffs of its own (--bpffs)"
    )]
    Taken {
        /// The mount.
        bpffs: PathBuf,
        /// Who it is, for people.
        holder: String,
    },
    /// What is locked cannot be made or opened.
    #[error("{path} cannot be locked: {error}")]
    Unusable {
        /// A directory in the bpffs.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

/// Held until it is dropped, or the process ends in whatever way. The kernel lets go of it, so nothing is ever left
/// behind that a person would have to remove.
#[derive(Debug)]
pub struct Lock {
    bpffs: PathBuf,
    directory: File,
}

impl Lock {
    /// Waits a few seconds for the agent that has it. Only root can open the directory, so nobody else can keep agents from starting.
    ///
    /// # Errors
    /// Another one runs on, or the bpffs cannot be written to.
    pub async fn take(bpffs: &Path) -> Result<Lock, LockError> {
        Self::take_within(PATIENCE, bpffs).await
    }

    /// The same with another patience.
    pub(crate) async fn take_within(patience: Duration, bpffs: &Path) -> Result<Lock, LockError> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(lock) = Self::attempt(bpffs)? {
                return Ok(lock);
            }
            if Instant::now() > deadline {
                return Err(LockError::Taken { bpffs: bpffs.to_owned(), holder: holder(bpffs) });
            }
            tokio::time::sleep(TRY_EVERY).await;
        }
    }

    /// Locks what is there now, if somebody has removed what was locked.
    ///
    /// # Errors
    /// Another l7egg was quicker, or the bpffs cannot be written to any more.
    pub fn renew(&mut self) -> Result<(), LockError> {
        let locked = self.directory.metadata().map(|locked| locked.ino()).ok();
        let there = match fs::metadata(path(&self.bpffs)) {
            Ok(there) => Some(there.ino()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(LockError::Unusable { path: path(&self.bpffs), error }),
        };
        if locked.is_some() && locked == there {
            return Ok(());
        }
        let taken = || LockError::Taken { bpffs: self.bpffs.clone(), holder: holder(&self.bpffs) };
        *self = Self::attempt(&self.bpffs)?.ok_or_else(taken)?;
        Ok(())
    }

    fn attempt(bpffs: &Path) -> Result<Option<Lock>, LockError> {
        let path = path(bpffs);
        let unusable = |error| LockError::Unusable { path: path.clone(), error };
        DirBuilder::new().mode(0o700).recursive(true).create(&path).map_err(unusable)?;
        let directory = File::open(&path).map_err(unusable)?;
        match directory.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(unusable(error)),
        }
        // Whoever had it may have removed every trace meanwhile, this directory too.
        let locked = directory.metadata().map_err(unusable)?.ino();
        let is_there = fs::metadata(&path).is_ok_and(|there| there.ino() == locked);
        Ok(is_there.then(|| Lock { bpffs: bpffs.to_owned(), directory }))
    }
}

fn path(bpffs: &Path) -> PathBuf {
    bpffs.join("l7egg/lock")
}

/// Who has the lock, for people. Its process may be out of this one's sight, in another PID namespace.
fn holder(bpffs: &Path) -> String {
    let pid = || {
        let locked = fs::metadata(path(bpffs)).ok()?.ino();
        holder_in(&fs::read_to_string("/proc/locks").ok()?, locked)
    };
    match pid() {
        Some(pid) => match fs::read_to_string(format!("/proc/{pid}/comm")) {
            Ok(name) => format!("{}, process {pid}", name.trim_end()),
            Err(_) => format!("process {pid}"),
        },
        None => "in another container".to_owned(),
    }
}

/// Who has locked the file with this inode number: `1: FLOCK  ADVISORY  WRITE 8282 fe:00:6186097 0 EOF`. Numbers are those of one file
/// system, but nobody else locks directories of such a number.
fn holder_in(locks: &str, inode: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, "FLOCK", _, _, pid, file, ..] = fields[..] else { return None };
        let is_it = file.rsplit(':').next()?.parse() == Ok(inode);
        pid.parse().ok().filter(|pid| is_it && *pid > 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_at_a_time() {
        let bpffs = tempfile::tempdir().unwrap();
        let first = Lock::take(bpffs.path()).await.unwrap();
        assert!(Lock::attempt(bpffs.path()).unwrap().is_none());
        let elsewhere = tempfile::tempdir().unwrap();
        assert!(Lock::attempt(elsewhere.path()).unwrap().is_some());
        // It removes what it pinned, and ends.
        fs::remove_dir_all(bpffs.path().join("l7egg")).unwrap();
        let second = Lock::take(bpffs.path()).await.unwrap();
        drop(first);
        assert!(Lock::attempt(bpffs.path()).unwrap().is_none());
        drop(second);
        assert!(Lock::attempt(bpffs.path()).unwrap().is_some());
    }

    #[tokio::test]
    async fn who_lost_what_was_locked_locks_it_again_unless_another_has() {
        let bpffs = tempfile::tempdir().unwrap();
        let mut lock = Lock::take(bpffs.path()).await.unwrap();
        lock.renew().unwrap();
        fs::remove_dir_all(bpffs.path().join("l7egg")).unwrap();
        lock.renew().unwrap();
        assert!(Lock::attempt(bpffs.path()).unwrap().is_none());
        fs::remove_dir_all(bpffs.path().join("l7egg")).unwrap();
        let _another = Lock::attempt(bpffs.path()).unwrap().unwrap();
        let error = lock.renew().unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    }

    #[test]
    fn who_has_it_stands_in_the_systems_list() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 00:20:12 0 EOF\n2: FLOCK  ADVISORY  WRITE 8 00:20:12 0 EOF\n2: -> FLOCK  ADVISORY  WRITE 9 00:20:12 0 EOF\n3: FLOCK  ADVISORY  WRITE 0 00:20:13 0 EOF\n";
        assert_eq!(holder_in(locks, 12), Some(8));
        assert_eq!(holder_in(locks, 13), None, "in another PID namespace");
        assert_eq!(holder_in(locks, 2), None);
    }
}
