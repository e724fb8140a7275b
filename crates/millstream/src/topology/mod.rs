//! The topology: what is read, what is done to it, what is kept and what is written. In Kafka Streams' words and shape.

mod builder;
mod describe;
mod materialized;
pub(crate) mod spec;
mod stream;

pub use crate::operators::{aggregation, chain};
pub use crate::task::EmitStrategy;
pub use builder::{Consumed, StreamsBuilder};
pub use materialized::Materialized;
pub use spec::{Topology, TopologyError};
pub use stream::{KGroupedStream, KStream, TimeWindowedKStream, WindowedKTable};
