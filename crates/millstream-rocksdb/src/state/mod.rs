//! State stores on RocksDB.
//!
//! Each (store, partition) is a RocksDB instance of its own in `<dir>/<store>/<partition>`, with a column family for each
//! [`Space`](millstream::store::Space). The write-ahead log is off: the changelog is the store's log. All column families
//! are flushed in one atomic step, so that after a crash the rows are exactly those of the position found beside them, and what was
//! derived from rows has them beside it.

mod database;
mod error;
mod expiry;
mod flusher;
mod open_stores;
mod options;
mod provider;
mod reserved;
mod snapshot;
mod statistics;
mod store;

pub use options::{Compression, InvalidOption, RocksDbConfigSetter, RocksDbOptions};
pub use provider::RocksStores;
pub use statistics::{CacheStatistics, StoreSize, StoreStatistics};
pub use store::RocksStore;
