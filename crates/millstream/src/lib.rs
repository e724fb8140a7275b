//! Millstream: exact windowed aggregates over partitioned logs.
pub mod broker;
pub mod partitioner;
pub mod record;
pub mod store;
