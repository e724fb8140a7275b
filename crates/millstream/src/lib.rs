//! Millstream: exact windowed aggregates over partitioned logs.
pub mod broker;
pub mod clock;
pub mod partitioner;
pub mod query;
pub mod record;
pub mod store;
pub mod time;
