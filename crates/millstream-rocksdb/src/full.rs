//! When there is no room: the disk, a quota, or the largest size that a file may have.

use std::io::{self, ErrorKind};

/// Whether the operating system had no room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

/// Whether RocksDB's message for a failed call says that the operating system had no room.
pub(crate) fn says_full(message: &str) -> bool {
    ["No space left on device", "Disk quota exceeded", "File too large"].iter().any(|full| message.contains(full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_and_rocksdb_mean_the_same() {
        // EFBIG, ENOSPC, EDQUOT; EACCES.
        for (code, full) in [(27, true), (28, true), (122, true), (13, false)] {
            let error = io::Error::from_raw_os_error(code);
            assert_eq!((is_full(&error), says_full(&error.to_string())), (full, full), "{error}");
        }
    }
}
