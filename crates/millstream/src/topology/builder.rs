use std::cell::RefCell;

use super::chain::{ExtractWith, RecordTimestamp, Source, TimestampExtractor};
use super::spec::{Pipeline, Topology, TopologyError};
use super::stream::KStream;
use crate::record::{Record, Timestamp, Topic};
use crate::serdes::{Deserializer, Rejection};

/// Where a topology begins. Streams that are ended in a topic or an aggregate become part of it.
pub struct StreamsBuilder<K, V> {
    key: K,
    value: V,
    pub(super) pipelines: RefCell<Vec<Pipeline>>,
}

impl<K, V> StreamsBuilder<K, V> {
    /// A builder with default serdes for the keys and values of source topics.
    pub fn with_serdes(key: K, value: V) -> Self {
        Self { key, value, pipelines: RefCell::default() }
    }

    /// Reads a topic with the default serdes; event time is the record's own timestamp.
    pub fn stream(&self, topic: impl Into<Topic>) -> KStream<'_, Source<K, V, RecordTimestamp>>
    where
        K: Deserializer + Clone,
        V: Deserializer + Clone,
    {
        self.stream_with(topic, Consumed::with(self.key.clone(), self.value.clone()))
    }

    /// Reads a topic.
    pub fn stream_with<K2, V2, T>(&self, topic: impl Into<Topic>, consumed: Consumed<K2, V2, T>) -> KStream<'_, Source<K2, V2, T>>
    where
        K2: Deserializer,
        V2: Deserializer,
        T: TimestampExtractor<V2>,
    {
        let Consumed { key, value, timestamp } = consumed;
        KStream::new(&self.pipelines, topic.into(), Source { key, value, timestamp })
    }

    /// The topology.
    ///
    /// # Errors
    /// Where it cannot work.
    pub fn build(self) -> Result<Topology, TopologyError> {
        Topology::new(self.pipelines.into_inner())
    }
}

/// How a source topic is read.
#[derive(Debug, Clone)]
pub struct Consumed<K, V, T = RecordTimestamp> {
    key: K,
    value: V,
    timestamp: T,
}

impl<K: Deserializer, V: Deserializer> Consumed<K, V> {
    /// With these serdes; event time is the record's own timestamp.
    pub fn with(key: K, value: V) -> Self {
        Self { key, value, timestamp: RecordTimestamp }
    }

    /// With the event time that a function finds in record and value. A rejection sends the record to the dead-letter topic.
    pub fn with_timestamp_extractor<F>(self, extract: F) -> Consumed<K, V, ExtractWith<F>>
    where
        F: for<'x, 'r> Fn(&'x Record<'r>, &'x V::Output<'r>) -> Result<Timestamp, Rejection> + Send + Sync + 'static,
    {
        Consumed { key: self.key, value: self.value, timestamp: ExtractWith(extract) }
    }
}
