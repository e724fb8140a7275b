//! Millstream on RocksDB: state stores, and the embedded broker.

pub mod broker;
pub mod durable;
mod endless;
mod full;
mod lock;
pub mod memory;
pub mod state;
