//! Millstream on RocksDB: state stores, and the embedded broker.

pub mod broker;
mod endless;
mod full;
pub mod memory;
pub mod state;
