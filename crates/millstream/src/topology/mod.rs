//! The topology: what is read, what is done to it, what is kept and what is written. In Kafka Streams' words and shape.

pub mod aggregation;
mod builder;
pub mod chain;
mod describe;
mod materialized;
pub(crate) mod spec;
mod stream;

pub use builder::{Consumed, StreamsBuilder};
pub use materialized::{EmitStrategy, Materialized};
pub use spec::{Topology, TopologyError};
pub(crate) use spec::{Transform, WindowedSpec};
pub use stream::{KGroupedStream, KStream, TimeWindowedKStream, WindowedKTable};
