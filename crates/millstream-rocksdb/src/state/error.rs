//! From RocksDB's statuses to what the caller of a store must do.

use std::path::Path;

use millstream::store::{StoreError, StoreErrorKind};
use rocksdb::ErrorKind;

use crate::full::{is_full, says_full};

/// The error for a failed call on the store in `dir`.
pub(super) fn store_error(dir: &Path, doing: &str, error: &rocksdb::Error) -> StoreError {
    let kind = kind_of(error);
    let way_out = match kind {
        StoreErrorKind::Retry => "",
        StoreErrorKind::Corrupt => "; the store has to be rebuilt from its changelog",
        StoreErrorKind::Stop => "; nothing was changed, look at the storage",
    };
    StoreError::new(kind, format!("store in {}: cannot {doing}: {error}{way_out}", dir.display()))
}

/// The error for a store in `dir` that cannot be what was written, for a reason that RocksDB does not see.
pub(super) fn corrupt(dir: &Path, reason: &str) -> StoreError {
    let message = format!("store in {}: {reason}; the store has to be rebuilt from its changelog", dir.display());
    StoreError::new(StoreErrorKind::Corrupt, message)
}

/// The error for a failed call on a directory.
pub(super) fn directory_error(dir: &Path, doing: &str, error: &std::io::Error) -> StoreError {
    let kind = if is_full(error) { StoreErrorKind::Retry } else { StoreErrorKind::Stop };
    StoreError::new(kind, format!("store in {}: cannot {doing}: {error}", dir.display()))
}

/// RocksDB's C interface gives a status as text: code, subcode, and the operating system's message.
fn kind_of(error: &rocksdb::Error) -> StoreErrorKind {
    let message: &str = error.as_ref();
    let says = |text: &str| message.contains(text);
    match error.kind() {
        ErrorKind::Corruption => StoreErrorKind::Corrupt,
        ErrorKind::Incomplete | ErrorKind::TimedOut | ErrorKind::Busy | ErrorKind::TryAgain => StoreErrorKind::Retry,
        ErrorKind::IOError if says_full(message) => StoreErrorKind::Retry,
        // A file that RocksDB knows of is gone.
        ErrorKind::IOError if says("No such file or directory") => StoreErrorKind::Corrupt,
        _ => StoreErrorKind::Stop,
    }
}
