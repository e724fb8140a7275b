//! Files of clicks, cut into blocks that are always the same, so that each can be sent again and is added once.

mod blocks;
mod line_set;
mod source;

use std::path::{Path, PathBuf};

pub use blocks::{Block, BlockError, Blocks};
pub use line_set::LineSet;
pub use source::{Fingerprint, fingerprint, open};

#[cfg(test)]
mod tests;

/// Why a file cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read, or its compressed form is damaged.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is not as long any more as it was.
    #[error(
        "{} has changed while it was loaded: its first {length} bytes were sent; write what comes later to a file of its own, for the same \
         file with more in it is another file", path.display()
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// Its length at the beginning.
        length: u64,
    },
    /// The service keeps no idempotency keys, and what became of some clicks is not known.
    #[error("{}: {lines} may be stored or not: {reason}", path.display())]
    OutcomeUnknown {
        /// The file.
        path: PathBuf,
        /// Which lines.
        lines: String,
        /// What went wrong.
        reason: String,
    },
    /// It was broken off by a signal, between two requests.
    #[error("{}: broken off", path.display())]
    BrokenOff {
        /// The file.
        path: PathBuf,
    },
    /// A line longer than any service takes.
    #[error("{}: line {line} is longer than {limit} bytes", path.display())]
    LongLine {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: u64,
        /// The longest line accepted.
        limit: usize,
    },
}

impl LoadError {
    /// The error for a file whose lines cannot be cut into blocks.
    pub fn of_blocks(path: &Path, error: BlockError) -> Self {
        let path = path.to_owned();
        match error {
            BlockError::Read(source) => LoadError::Read { path, source },
            BlockError::LongLine(line) => LoadError::LongLine { path, line, limit: blocks::LONGEST_LINE },
        }
    }
}
