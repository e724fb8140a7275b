//! The embedded broker: a durable log in one process, on a RocksDB instance of its own.
//!
//! It is the broker of [`millstream::broker::local`] on a [`RocksLog`]. What it acknowledged survives a killed process and a power
//! loss: every write is synced before anybody hears of it, and concurrent writers share one sync (group commit).

mod error;
mod keys;
mod log;
mod open;
mod options;
mod remains;

pub use log::RocksLog;
pub use open::open;
pub use remains::is_new;

/// The broker that needs no server.
pub type EmbeddedBroker = millstream::broker::local::LocalBroker<RocksLog>;
