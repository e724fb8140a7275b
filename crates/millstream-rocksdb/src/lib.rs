//! Millstream on RocksDB: state stores, and the embedded broker.

pub mod broker;
mod full;
pub mod memory;
pub mod state;
