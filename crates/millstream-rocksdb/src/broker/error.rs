//! From RocksDB's statuses to what a caller of the broker must do.

use std::path::Path;

use millstream::broker::{BrokerError, ErrorKind};

/// The error for a failed call on the log in `dir`.
pub(super) fn broker_error(dir: &Path, doing: &str, error: &rocksdb::Error) -> BrokerError {
    let (kind, way_out) = kind_of(error);
    BrokerError::new(kind, format!("broker in {}: cannot {doing}: {error}{way_out}", dir.display()))
}

/// RocksDB's C interface gives a status as text: code, subcode, and the operating system's message.
fn kind_of(error: &rocksdb::Error) -> (ErrorKind, &'static str) {
    use rocksdb::ErrorKind::{Busy, Corruption, IOError, Incomplete, TimedOut, TryAgain};
    let message: &str = error.as_ref();
    match error.kind() {
        Incomplete | TimedOut | Busy | TryAgain => (ErrorKind::Retry, ""),
        IOError if is_full(message) => (ErrorKind::Retry, "; it goes on when there is room again"),
        IOError if message.contains("lock file") || message.contains("lock hold") => {
            (ErrorKind::Stop, "; another process has this directory open: stop it, or use a directory of your own")
        }
        Corruption => (ErrorKind::Stop, "; the files are damaged: put them back from a backup"),
        _ => (ErrorKind::Stop, "; look at the storage"),
    }
}

/// The error for a failed call on a directory.
pub(super) fn directory_error(dir: &Path, doing: &str, error: &std::io::Error) -> BrokerError {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    let kind = match error.kind() {
        StorageFull | QuotaExceeded => ErrorKind::Retry,
        _ => ErrorKind::Stop,
    };
    BrokerError::new(kind, format!("broker in {}: cannot {doing}: {error}", dir.display()))
}

fn is_full(message: &str) -> bool {
    ["No space left on device", "Disk quota exceeded", "File too large"].iter().any(|full| message.contains(full))
}
