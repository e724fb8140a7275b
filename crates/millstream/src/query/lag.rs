//! How far counting is behind, as the broker tells it: asked now and then, not with every query.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::broker::{Broker, BrokerError, Isolation};
use crate::record::{Offset, Partition, Timestamp, Topic, TopicPartition};
use crate::task::metadata::OffsetMetadata;

/// What was last heard about the lag of an aggregate.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lag {
    pub(crate) heard_at: Timestamp,
    /// Source records not yet read, over all partitions.
    pub(crate) source: u64,
    /// Repartition records not yet read, by partition.
    pub(crate) repartition: HashMap<Partition, u64>,
    /// The smallest stream time among the source partitions that have one.
    pub(crate) stream_time: Option<Timestamp>,
    /// Where each partition of both topics ends.
    pub(crate) ends: HashMap<TopicPartition, Offset>,
}

/// How far the group is behind in a partition.
struct Behind {
    input: TopicPartition,
    records: u64,
    end: Offset,
    /// Of the position that is committed.
    metadata: String,
}

/// Asks the broker for the lag of one aggregate and remembers the answer.
pub(crate) struct LagMonitor {
    group: String,
    source: Topic,
    repartition: Option<(Topic, u32)>,
    last: Mutex<Option<Lag>>,
}

impl LagMonitor {
    pub(crate) fn new(group: String, source: Topic, repartition: Option<(Topic, u32)>) -> Self {
        Self { group, source, repartition, last: Mutex::new(None) }
    }

    pub(crate) fn last(&self) -> Option<Lag> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn refresh<B: Broker>(&self, broker: &B, now: Timestamp) -> Result<(), BrokerError> {
        let partitions = broker.describe_topic(&self.source)?.map_or(0, |topic| topic.partitions);
        let mut lag = Lag { heard_at: now, ..Lag::default() };
        for Behind { input, records, end, metadata } in self.behind(broker, &self.source, partitions)? {
            lag.source += records;
            lag.ends.insert(input, end);
            let stream_time = OffsetMetadata::decode(&metadata).ok().and_then(|metadata| metadata.stream_time);
            lag.stream_time = [lag.stream_time, stream_time].into_iter().flatten().min();
        }
        if let Some((topic, partitions)) = &self.repartition {
            for Behind { input, records, end, .. } in self.behind(broker, topic, *partitions)? {
                lag.repartition.insert(input.partition, records);
                lag.ends.insert(input, end);
            }
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(lag);
        Ok(())
    }

    fn behind<B: Broker>(&self, broker: &B, topic: &Topic, partitions: u32) -> Result<Vec<Behind>, BrokerError> {
        let inputs: Vec<_> = (0..partitions).map(|p| TopicPartition::new(topic.clone(), Partition(p))).collect();
        let committed = broker.committed(&self.group, &inputs)?;
        let logs = broker.log_ranges(&inputs, Isolation::ReadCommitted)?;
        let all = inputs.into_iter().zip(committed).zip(logs).map(|((input, committed), log)| {
            let position = committed.as_ref().map_or(log.start, |committed| committed.offset).max(Offset::ZERO);
            let records = (log.end.0 - position.0).max(0) as u64;
            Behind { input, records, end: log.end, metadata: committed.map(|committed| committed.metadata).unwrap_or_default() }
        });
        Ok(all.collect())
    }
}
