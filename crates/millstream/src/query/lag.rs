//! How far counting is behind, as the broker tells it: asked now and then, not with every query.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use crate::broker::{Broker, BrokerError, CommittedOffset, Isolation};
use crate::record::{Offset, Partition, Timestamp, Topic, TopicPartition};
use crate::task::metadata::{CLOSED_THROUGH, OffsetMetadata};

/// For longer than this no transaction of ours is open: what is sent in one is ready when it begins.
const OURS_MS: i64 = 2_000;

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
    /// The source partitions whose records are held back by a transaction that was open when we looked.
    open: BTreeMap<TopicPartition, OpenTransaction>,
}

/// A partition that is read.
#[derive(Debug, Clone, Copy)]
struct Input {
    /// The end of the log, behind what open transactions hold back too: it comes into the counts as soon as they have ended.
    end: Offset,
    /// Records that the group has not read.
    behind: u64,
}

/// A transaction in a partition, and everything behind it, that cannot be read before it has ended.
#[derive(Debug, Clone, Copy)]
struct OpenTransaction {
    /// Its first offset: the last stable one of the partition.
    from: Offset,
    seen_since: Timestamp,
}

impl Lag {
    /// Source records not yet read, over all partitions.
    pub(crate) fn source(&self) -> u64 {
        self.inputs.iter().filter(|(input, _)| input.topic == self.source).map(|(_, input)| input.behind).sum()
    }

    /// How many partitions the source topic has.
    pub(crate) fn source_partitions(&self) -> u32 {
        self.inputs.keys().filter(|input| input.topic == self.source).count() as u32
    }

    /// Records not yet read behind `position`, or behind the group's where none is known here; none where there is no such partition.
    pub(crate) fn behind(&self, input: &TopicPartition, position: Option<Offset>) -> Option<u64> {
        let Input { end, behind } = self.inputs.get(input)?;
        Some(position.map_or(*behind, |position| (end.0 - position.0).max(0) as u64))
    }

    /// What another producer's open transaction keeps from being counted of a source partition, if one does: for ours it has been open for
    /// too long.
    pub(crate) fn trouble(&self, input: &TopicPartition) -> Option<String> {
        let OpenTransaction { from, seen_since } = *self.open.get(input)?;
        if self.heard_at.0.saturating_sub(seen_since.0) <= OURS_MS {
            return None;
        }
        let held_back = (self.inputs.get(input)?.end.0 - from.0).max(0);
        let records = if held_back == 1 { "record" } else { "records" };
        Some(format!("an open transaction of another producer holds back {input} from offset {from} on ({held_back} {records})"))
    }

    /// The same of all the partitions that `are_asked`, of which the first is named.
    pub(crate) fn trouble_of(&self, are_asked: impl Fn(&TopicPartition) -> bool) -> Option<String> {
        let mut all = self.open.keys().filter(|input| are_asked(input)).filter_map(|input| self.trouble(input));
        let first = all.next()?;
        Some(match all.count() {
            0 => first,
            more => format!("{first}, and so in {more} more partitions"),
        })
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

    /// Whether it is a partition of the source topic.
    pub(crate) fn is_source(&self, input: &TopicPartition) -> bool {
        input.topic == self.source
    }

    pub(crate) fn is_shuffled(&self) -> bool {
        self.repartition.is_some()
    }

    pub(crate) fn refresh<B: Broker>(&self, broker: &B, now: Timestamp) -> Result<Arc<Lag>, BrokerError> {
        let sources = broker.describe_topic(&self.source)?.map_or(0, |topic| topic.partitions);
        let (source, inputs, open) = (self.source.clone(), HashMap::new(), BTreeMap::new());
        let mut lag = Lag { heard_at: now, source, stream_time: None, closed_through: 0, inputs, open };
        for Behind { input, records, end, metadata } in self.behind(broker, sources)? {
            let metadata = OffsetMetadata::decode(&metadata).unwrap_or_default();
            let is_source = input.topic == self.source;
            if is_source {
                lag.stream_time = [lag.stream_time, metadata.stream_time].into_iter().flatten().min();
            }
            if !(is_source && self.is_shuffled()) {
                lag.closed_through = lag.closed_through.max(closed_through(&metadata));
            }
            lag.inputs.insert(input, Input { end, behind: records });
        }
        lag.open = self.open_transactions(broker, &lag)?;
        let lag = Arc::new(lag);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(lag.clone());
        Ok(lag)
    }

    /// How far the group is behind in all that is read. One request for the positions of all, and one for all ends: this is asked every
    /// second, of all instances, whether there is anything to count or not.
    fn behind<B: Broker>(&self, broker: &B, sources: u32) -> Result<Vec<Behind>, BrokerError> {
        let repartition = self.repartition.iter().map(|(topic, partitions)| (topic, *partitions));
        let topics = [(&self.source, sources)].into_iter().chain(repartition);
        let partitions = |(topic, count): (&Topic, u32)| {
            let topic = topic.clone();
            (0..count).map(move |p| TopicPartition::new(topic.clone(), Partition(p)))
        };
        let inputs: Vec<_> = topics.flat_map(partitions).collect();
        let committed = broker.committed_so_far(&self.group, &inputs)?;
        let ends = broker.log_ends(&inputs, Isolation::ReadUncommitted)?;
        let starts = starts_of_uncommitted(broker, &inputs, &committed)?;
        let all = inputs.into_iter().zip(committed).zip(ends).map(|((input, committed), end)| {
            let position = committed.as_ref().map_or_else(|| starts[&input], |committed| committed.offset).max(Offset::ZERO);
            let records = (end.0 - position.0).max(0) as u64;
            Behind { input, records, end, metadata: committed.map(|committed| committed.metadata).unwrap_or_default() }
        });
        Ok(all.collect())
    }

    /// The transactions that are open in source partitions of which something is left to read. Their stable ends are asked for after
    /// the ends of the logs: what lies between was held back in between.
    fn open_transactions<B: Broker>(
        &self,
        broker: &B,
        lag: &Lag,
    ) -> Result<BTreeMap<TopicPartition, OpenTransaction>, BrokerError> {
        let is_behind = |(input, Input { behind, .. }): &(&TopicPartition, &Input)| input.topic == self.source && *behind > 0;
        let behind: Vec<_> = lag.inputs.iter().filter(is_behind).map(|(input, _)| input.clone()).collect();
        let stable = broker.log_ends(&behind, Isolation::ReadCommitted)?;
        let before = self.last();
        let open = behind.into_iter().zip(stable).filter_map(|(input, stable)| {
            let from = Some(stable).filter(|stable| *stable < lag.inputs[&input].end)?;
            let known = before.as_ref().and_then(|before| before.open.get(&input)).filter(|known| known.from == from);
            Some((input, OpenTransaction { from, seen_since: known.map_or(lag.heard_at, |known| known.seen_since) }))
        });
        Ok(open.collect())
    }
}

/// Where the logs start of which the group has committed no position.
fn starts_of_uncommitted<B: Broker>(
    broker: &B,
    inputs: &[TopicPartition],
    committed: &[Option<CommittedOffset>],
) -> Result<HashMap<TopicPartition, Offset>, BrokerError> {
    let new: Vec<_> =
        inputs.iter().zip(committed).filter(|(_, position)| position.is_none()).map(|(input, _)| input.clone()).collect();
    let logs = broker.log_ranges(&new, Isolation::ReadUncommitted)?;
    Ok(new.into_iter().zip(logs).map(|(input, log)| (input, log.start)).collect())
}

fn closed_through(metadata: &OffsetMetadata) -> i64 {
    metadata.entries.get(CLOSED_THROUGH).copied().unwrap_or(0)
}
