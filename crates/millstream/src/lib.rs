//! Millstream: exact windowed aggregates over partitioned logs. To Rust what Kafka Streams is to Java, in its words and shape.
//!
//! ```
//! use std::time::Duration;
//! use millstream::query::{CountQueries, Period, ReadOptions};
//! use millstream::record::Timestamp;
//! use millstream::serdes::{Bytes, Json};
//! use millstream::testing::TopologyTestDriver;
//! use millstream::time::TimeWindows;
//! use millstream::topology::{Materialized, StreamsBuilder};
//!
//! #[derive(Clone, Copy, serde::Deserialize)]
//! struct Click {
//!     ad_id: u64,
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (minutes, days) = (|n: u64| Duration::from_secs(60 * n), |n: u64| Duration::from_secs(86_400 * n));
//! let builder = StreamsBuilder::with_serdes(Bytes, Json::<Click>::new());
//! builder
//!     .stream("click-events-topic")
//!     .map(|_, click| (click.ad_id, click))
//!     .group_by_key()
//!     .windowed_by(TimeWindows::of_size_and_grace(minutes(5), minutes(15)))
//!     .count(Materialized::as_("ad-clicks-store").with_retention(days(7)));
//! let topology = builder.build()?;
//!
//! // The driver runs it without a broker to install; an `Instance` runs it on a real one.
//! let mut driver = TopologyTestDriver::new(topology, Timestamp(0))?;
//! for (ad, time) in [(7, 1_000), (7, 2_000), (8, 3_000)] {
//!     let click = format!(r#"{{"ad_id": {ad}}}"#);
//!     driver.pipe_input("click-events-topic", None, Some(click.as_bytes()), Timestamp(time))?;
//! }
//! let counts = driver.counts("ad-clicks-store")?;
//! let period = Period { from: Timestamp(0), to: Timestamp(300_000) };
//! let windows = counts.fetch(&7u64.to_be_bytes(), period, ReadOptions::default())?.value;
//! assert_eq!(windows[0].count, 2);
//! # Ok(())
//! # }
//! ```
//!
//! The crate is the engine alone: time, windows, topologies, tasks, the traits of brokers and stores with both in memory, and
//! queries. It does no I/O, starts no thread, and reads no clock but the one it is given. Stores and a broker on disk are in
//! `millstream-rocksdb`.
//!
//! It is not a cluster, a client of Kafka, or a general dataflow engine: tumbling windows over one stream is what it does now.

pub mod broker;
pub mod clock;
mod kept;
mod operators;
pub mod partitioner;
pub mod query;
pub mod record;
pub mod runtime;
pub mod serdes;
pub mod store;
pub mod task;
pub mod testing;
pub mod time;
pub mod topology;
mod varint;
