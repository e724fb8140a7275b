//! Millstream on RocksDB: state stores, and the embedded broker.

pub mod broker;
pub mod memory;
pub mod state;
