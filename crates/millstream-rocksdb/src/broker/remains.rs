//! What is left of a log that has lost files must not open as an empty one.

use std::path::Path;

use millstream::broker::{BrokerError, ErrorKind};
use rocksdb::{DB, Options};

use super::error::{broker_error, directory_error};
use super::log::BATCHES;
use crate::endless::{end, endless_record};

/// RocksDB would take a directory without `CURRENT`, or a manifest cut off before the column family, for a new log, and remove
/// the files it does not know. A start that was cut off leaves no records, and is no such case.
pub(super) fn refuse_remains(dir: &Path, options: &Options) -> Result<(), BrokerError> {
    let files = Files::list(dir).map_err(|error| directory_error(dir, "list the directory", &error))?;
    if !files.has_records {
        return Ok(());
    }
    if !files.has_current {
        return Err(damaged(dir, "CURRENT is missing"));
    }
    end_endless_files(dir).map_err(|error| directory_error(dir, "look through the manifest and the write-ahead log", &error))?;
    let families = DB::list_cf(options, dir).map_err(|error| broker_error(dir, "read the manifest", &error))?;
    match families.iter().any(|family| family == BATCHES) {
        true => Ok(()),
        false => Err(damaged(dir, "the manifest does not know the record batches")),
    }
}

/// Files with damage that RocksDB would read for ever are made files with damage that it sees: in the manifest it refuses that, at the
/// end of the write-ahead log it is what a power loss leaves.
fn end_endless_files(dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let is_manifest = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("MANIFEST-"));
        if !is_manifest && path.extension().is_none_or(|extension| extension != "log") {
            continue;
        }
        while let Some(at) = endless_record(&path)? {
            tracing::warn!(file = %path.display(), at, "a record is damaged");
            end(&path, at)?;
        }
    }
    Ok(())
}

/// Whether there is no log in `dir` yet, so that opening it makes a new one. False where `dir` cannot be looked at.
pub fn is_new(dir: &Path) -> bool {
    match Files::list(dir) {
        Ok(files) => !files.has_records && !files.has_current,
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

fn damaged(dir: &Path, reason: &str) -> BrokerError {
    let way_out = "put the whole directory back from a backup, or move it away to begin with an empty log";
    BrokerError::new(ErrorKind::Stop, format!("broker in {}: {reason}, but there are records: {way_out}", dir.display()))
}

#[derive(Default)]
struct Files {
    has_current: bool,
    has_records: bool,
}

impl Files {
    fn list(dir: &Path) -> std::io::Result<Self> {
        let mut files = Self::default();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            files.has_current |= name == "CURRENT";
            files.has_records |= match Path::new(&name).extension().and_then(|extension| extension.to_str()) {
                Some("sst" | "blob") => true,
                Some("log") => !entry.metadata().is_ok_and(|file| file.len() == 0),
                _ => false,
            };
        }
        Ok(files)
    }
}
