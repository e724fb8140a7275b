//! How far counting is behind, as the broker tells it: asked now and then, not with every query.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::broker::{Broker, BrokerError, Isolation};
use crate::record::{Offset, Partition, Timestamp, Topic, TopicPartition};
use crate::task::metadata::{CLOSED_THROUGH, OffsetMetadata};

/// What was last heard about the lag of an aggregate.
#[derive(Debug, Clone)]
pub(crate) struct Lag {
    pub(crate) heard_at: Timestamp,
    /// The smallest stream time among the source partitions that have one.
    pub(crate) stream_time: Option<Timestamp>,
    /// The largest closed_through that a copy's task has committed; zero where none has any.
    pub(crate) closed_through: i64,
    source: Topic,
    /// How far the group is behind in each partition of source and repartition topic.
    inputs: HashMap<TopicPartition, Input>,
}

/// A partition that is read.
#[derive(Debug, Clone, Copy)]
struct Input {
    end: Offset,
    /// Records that the group has not read.
    behind: u64,
}

impl Lag {
    /// Source records not yet read, over all partitions.
    pub(crate) fn source(&self) -> u64 {
        self.inputs.iter().filter(|(input, _)| input.topic == self.source).map(|(_, input)| input.behind).sum()
    }

    /// Records not yet read behind `position`, or behind the group's where none is known here; none where there is no such partition.
    pub(crate) fn behind(&self, input: &TopicPartition, position: Option<Offset>) -> Option<u64> {
        let Input { end, behind } = self.inputs.get(input)?;
        Some(position.map_or(*behind, |position| (end.0 - position.0).max(0) as u64))
    }
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
    last: Mutex<Option<Arc<Lag>>>,
}

impl LagMonitor {
    pub(crate) fn new(group: String, source: Topic, repartition: Option<(Topic, u32)>) -> Self {
        Self { group, source, repartition, last: Mutex::new(None) }
    }

    /// What was heard last; none before anything was.
    pub(crate) fn last(&self) -> Option<Arc<Lag>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was heard last, after the broker was asked where nothing was yet.
    pub(crate) fn known<B: Broker>(&self, broker: &B, now: Timestamp) -> Result<Arc<Lag>, BrokerError> {
        match self.last() {
            Some(lag) => Ok(lag),
            None => self.refresh(broker, now),
        }
    }

    /// The topic of a copy's records: what is shuffled, or the source itself.
    pub(crate) fn input(&self, partition: Partition) -> TopicPartition {
        let topic = self.repartition.as_ref().map_or(&self.source, |(topic, _)| topic);
        TopicPartition::new(topic.clone(), partition)
    }

    pub(crate) fn is_shuffled(&self) -> bool {
        self.repartition.is_some()
    }

    pub(crate) fn refresh<B: Broker>(&self, broker: &B, now: Timestamp) -> Result<Arc<Lag>, BrokerError> {
        let partitions = broker.describe_topic(&self.source)?.map_or(0, |topic| topic.partitions);
        let mut lag =
            Lag { heard_at: now, source: self.source.clone(), stream_time: None, closed_through: 0, inputs: HashMap::new() };
        for Behind { input, records, end, metadata } in self.behind(broker, &self.source, partitions)? {
            lag.inputs.insert(input, Input { end, behind: records });
            let metadata = OffsetMetadata::decode(&metadata).unwrap_or_default();
            lag.stream_time = [lag.stream_time, metadata.stream_time].into_iter().flatten().min();
            if !self.is_shuffled() {
                lag.closed_through = lag.closed_through.max(closed_through(&metadata));
            }
        }
        if let Some((topic, partitions)) = &self.repartition {
            for Behind { input, records, end, metadata } in self.behind(broker, topic, *partitions)? {
                let metadata = OffsetMetadata::decode(&metadata).unwrap_or_default();
                lag.closed_through = lag.closed_through.max(closed_through(&metadata));
                lag.inputs.insert(input, Input { end, behind: records });
            }
        }
        let lag = Arc::new(lag);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(lag.clone());
        Ok(lag)
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

fn closed_through(metadata: &OffsetMetadata) -> i64 {
    metadata.entries.get(CLOSED_THROUGH).copied().unwrap_or(0)
}
