//! Opening the embedded broker.

use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::Arc;

use millstream::broker::BrokerError;
use millstream::clock::Clock;

use super::{EmbeddedBroker, RocksLog};
use crate::memory::MemoryBudget;

/// Opens the embedded broker on the log in `dir`, under the memory budget of the process. Where there is none yet, it is created
/// with an identity of its own.
///
/// # Errors
/// [`millstream::broker::ErrorKind::Stop`], naming the directory: another process has it open, it was written by another version,
/// files of it are missing, or it cannot be read.
pub fn open(dir: &Path, clock: Arc<dyn Clock>, memory: &MemoryBudget) -> Result<EmbeddedBroker, BrokerError> {
    let log = RocksLog::open(dir, memory)?;
    let named = |error: BrokerError| BrokerError::new(error.kind(), format!("broker in {}: {error}", dir.display()));
    EmbeddedBroker::open(log, clock, &new_cluster_id()).map_err(named)
}

/// 128 bits that no other broker has: the standard library seeds its hashers from the operating system's randomness.
fn new_cluster_id() -> String {
    let random = || RandomState::new().hash_one(());
    format!("{:016x}{:016x}", random(), random())
}
