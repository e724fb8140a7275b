//! From RocksDB's statuses to what a caller of the broker must do.

use std::path::Path;

use millstream::broker::{BrokerError, ErrorKind};

use crate::full::{is_full, says_full};

/// The error for a failed call on the log in `dir`.
pub(super) fn broker_error(dir: &Path, doing: &str, error: &rocksdb::Error) -> BrokerError {
    let (kind, way_out) = kind_of(error);
    BrokerError::new(kind, format!("broker in {}: cannot {doing}: {error}{way_out}", dir.display()))
}

/// The error for a failed write to the log in `dir`: [`ErrorKind::OutcomeUnknown`] where it went on to the disk, and so may turn up
/// when the log is opened again, although the disk is only full.
pub(super) fn write_error(dir: &Path, error: &rocksdb::Error) -> BrokerError {
    let failed = broker_error(dir, "write", error);
    let may_turn_up = says_full(error.as_ref()) && !is_cut_off(error.as_ref());
    if may_turn_up { BrokerError::new(ErrorKind::OutcomeUnknown, failed.to_string()) } else { failed }
}

/// The error for a write that waited in vain for flushes and compactions of the log in `dir`.
pub(super) fn stalled(dir: &Path) -> BrokerError {
    let message = format!("broker in {}: cannot write: flushes and compactions do not keep up", dir.display());
    BrokerError::new(ErrorKind::Retry, message)
}

/// The error for a directory that somebody else has open.
pub(super) fn opened_elsewhere(dir: &Path) -> BrokerError {
    let way_out = "another process has this directory open: stop it, or use a directory of your own";
    BrokerError::new(ErrorKind::Stop, format!("broker in {}: cannot open the log: {way_out}", dir.display()))
}

/// RocksDB's C interface gives a status as text: code, subcode, and the operating system's message.
fn kind_of(error: &rocksdb::Error) -> (ErrorKind, &'static str) {
    use rocksdb::ErrorKind::{Busy, Corruption, IOError, Incomplete, TimedOut, TryAgain};
    let message: &str = error.as_ref();
    match error.kind() {
        Incomplete | TimedOut | Busy | TryAgain => (ErrorKind::Retry, ""),
        IOError if says_full(message) => (ErrorKind::Retry, "; it goes on when there is room again"),
        Corruption => (ErrorKind::Stop, "; the files are damaged: put them back from a backup"),
        _ => (ErrorKind::Stop, "; look at the storage"),
    }
}

/// The error for a failed call on a directory.
pub(super) fn directory_error(dir: &Path, doing: &str, error: &std::io::Error) -> BrokerError {
    let kind = if is_full(error) { ErrorKind::Retry } else { ErrorKind::Stop };
    BrokerError::new(kind, format!("broker in {}: cannot {doing}: {error}", dir.display()))
}

/// Whether no room means that the write is not in the log: its record was cut off, which the checksum tells when the log is
/// opened again, and RocksDB does not try to append it once more; or a flush had failed before, and the write was refused at the
/// door. It is another thing where the record had been appended, and then the sync or the manifest failed.
fn is_cut_off(message: &str) -> bool {
    message.contains("appending to file") && [".log: ", ".sst: ", ".blob: "].iter().any(|file| message.contains(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_room_for_the_record_itself_is_told_from_no_room_after_it() {
        let cut_off =
            |what: &str| is_cut_off(&format!("IO error: No space left on device: While {what}: No space left on device"));
        assert!(cut_off("appending to file: /log/000012.log"));
        assert!(cut_off("appending to file: /log/000013.sst"));
        assert!(cut_off("appending to file: /log/000014.blob"));
        assert!(!cut_off("appending to file: /log/MANIFEST-000005"));
        assert!(!cut_off("fdatasync: /log/000012.log"));
        assert!(!cut_off("fsync: a directory"));
    }
}
