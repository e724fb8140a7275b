//! A directory is one opener's alone. RocksDB takes a lock too, but only when it opens, and we look through its files before that.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

const FILE: &str = "OPENED";

/// A directory that nobody else opens while this lives, be it another process or another part of this one.
pub(crate) struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Takes a directory that exists; none where somebody else has it. A process that dies gives up its locks.
    pub(crate) fn take(dir: &Path) -> io::Result<Option<Self>> {
        let file = File::options().create(true).truncate(false).write(true).open(dir.join(FILE))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_taken_once_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DirectoryLock::take(dir.path()).unwrap();
        assert!(lock.is_some() && DirectoryLock::take(dir.path()).unwrap().is_none());
        drop(lock);
        assert!(DirectoryLock::take(dir.path()).unwrap().is_some());
    }
}
