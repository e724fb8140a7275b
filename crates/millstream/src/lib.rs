//! Millstream: exact windowed aggregates over partitioned logs.
pub mod broker;
pub mod clock;
pub mod partitioner;
pub mod query;
pub mod record;
pub mod serdes;
pub mod store;
pub mod task;
pub mod time;
pub mod topology;
mod varint;
