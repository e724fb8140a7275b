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
        for (_, behind, metadata) in self.behind(broker, &self.source, partitions)? {
            lag.source += behind;
            let stream_time = OffsetMetadata::decode(&metadata).ok().and_then(|metadata| metadata.stream_time);
            lag.stream_time = [lag.stream_time, stream_time].into_iter().flatten().min();
        }
        if let Some((topic, partitions)) = &self.repartition {
            lag.repartition =
                self.behind(broker, topic, *partitions)?.map(|(partition, behind, _)| (partition, behind)).collect();
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(lag);
        Ok(())
    }

    /// Each partition with how far the group is behind there and the metadata that it has committed.
    fn behind<B: Broker>(
        &self,
        broker: &B,
        topic: &Topic,
        partitions: u32,
    ) -> Result<impl Iterator<Item = (Partition, u64, String)> + use<B>, BrokerError> {
        let inputs: Vec<_> = (0..partitions).map(|p| TopicPartition::new(topic.clone(), Partition(p))).collect();
        let committed = broker.committed(&self.group, &inputs)?;
        let mut all = Vec::with_capacity(inputs.len());
        for (input, committed) in inputs.into_iter().zip(committed) {
            let log = broker.log_range(&input, Isolation::ReadCommitted)?;
            let position = committed.as_ref().map_or(log.start, |committed| committed.offset).max(Offset::ZERO);
            let behind = (log.end.0 - position.0).max(0) as u64;
            all.push((input.partition, behind, committed.map(|committed| committed.metadata).unwrap_or_default()));
        }
        Ok(all.into_iter())
    }
}
