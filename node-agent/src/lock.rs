//! One agent at a time has what is below a bpffs.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Time that an agent has that is about to end, such as the one that this replaces.
const PATIENCE: Duration = Duration::from_secs(5);
const TRY_EVERY: Duration = Duration::from_millis(50);

/// Why the lock is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody has it.
    #[error(
        "another l7egg enforces with the bpffs {bpffs}: stop it, or give this one a bpffs of its own (--bpffs)"
    )]
    Taken {
        /// The mount.
        bpffs: PathBuf,
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
    _directory: File,
}

impl Lock {
    /// Waits a few seconds for the agent that has it. Only root can open the directory, so nobody else can keep agents from starting.
    ///
    /// # Errors
    /// Another one runs on, or the bpffs cannot be written to.
    pub async fn take(bpffs: &Path) -> Result<Lock, LockError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(lock) = Self::attempt(bpffs)? {
                return Ok(lock);
            }
            if Instant::now() > deadline {
                return Err(LockError::Taken { bpffs: bpffs.to_owned() });
            }
            tokio::time::sleep(TRY_EVERY).await;
        }
    }

    fn attempt(bpffs: &Path) -> Result<Option<Lock>, LockError> {
        let path = bpffs.join("l7egg/lock");
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
        Ok(is_there.then_some(Lock { _directory: directory }))
    }
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
}
