//! What the engine needs of a broker: a partitioned log with consumer groups, transactions and fencing.
//!
//! Three brokers stand behind these traits: [`local`] in memory (tests, simulation), the same on RocksDB (the embedded broker,
//! in `millstream-rocksdb`), and Apache Kafka.

mod fetcher;
pub mod group;
pub mod local;
mod membership;

use std::collections::BTreeMap;
use std::time::Duration;

pub use fetcher::{Fetched, FetchedBatch, Fetcher, LogReader};
pub use membership::{Fence, MemberEvent, Membership, StoreCopy};

use crate::record::{Offset, Partition, Record, TopicPartition};
use group::Candidate;

/// A connection to a broker. Cheap to clone or share; every call may be made from any thread.
pub trait Broker: Send + Sync + 'static {
    /// The membership that [`Broker::join`] gives.
    type Membership: Membership;
    /// The fetcher that [`Broker::fetcher`] gives.
    type Fetcher: Fetcher;
    /// The producer that [`Broker::producer`] gives.
    type Producer: TransactionalProducer;
    /// The reader that [`Broker::reader`] gives.
    type Reader: LogReader;

    /// The identity of the cluster: another one means other topics, whatever their names.
    fn cluster_id(&self) -> Result<String, BrokerError>;

    /// What is known of a topic, or none where there is no such topic.
    fn describe_topic(&self, topic: &str) -> Result<Option<TopicDescription>, BrokerError>;

    /// Creates a topic. One that exists already with the same number of partitions is left as it is.
    fn create_topic(&self, topic: &str, settings: &TopicSettings) -> Result<(), BrokerError>;

    /// Where a partition's log starts, and where it ends for a reader of that isolation.
    fn log_range(&self, partition: &TopicPartition, isolation: Isolation) -> Result<LogRange, BrokerError>;

    /// [`Broker::log_range`] of many partitions, in the order asked.
    fn log_ranges(&self, partitions: &[TopicPartition], isolation: Isolation) -> Result<Vec<LogRange>, BrokerError> {
        partitions.iter().map(|partition| self.log_range(partition, isolation)).collect()
    }

    /// Where the logs of many partitions end for a reader of that isolation, in the order asked.
    fn log_ends(&self, partitions: &[TopicPartition], isolation: Isolation) -> Result<Vec<Offset>, BrokerError> {
        Ok(self.log_ranges(partitions, isolation)?.into_iter().map(|range| range.end).collect())
    }

    /// Makes sure that a partition can be written to now, as far as the broker can tell without a write: that it has a leader, and as many
    /// replicas in sync as it asks for. Is answered within a second or so, whether anybody can be asked or not.
    ///
    /// # Errors
    /// What keeps it from being written to. Unless an operator has to look, the kind is [`ErrorKind::Retry`].
    fn check_writable(&self, _partition: &TopicPartition) -> Result<(), BrokerError> {
        Ok(())
    }

    /// Deletes the records before `before`, for good. Up to the end of the log at most.
    fn delete_records(&self, partition: &TopicPartition, before: Offset) -> Result<(), BrokerError>;

    /// The positions a group has committed, in the order asked; none where it has not.
    fn committed(&self, group: &str, partitions: &[TopicPartition]) -> Result<Vec<Option<CommittedOffset>>, BrokerError>;

    /// The same for those who only look, and do not begin there: what a transaction that is still open is about to commit is not waited for. A group that
    /// commits all the time always has one.
    fn committed_so_far(&self, group: &str, partitions: &[TopicPartition]) -> Result<Vec<Option<CommittedOffset>>, BrokerError> {
        self.committed(group, partitions)
    }

    /// Joins a group, all partitions of whose topics its members share.
    fn join(&self, candidate: &Candidate) -> Result<Self::Membership, BrokerError>;

    /// Fetches records, nothing to begin with.
    fn fetcher(&self) -> Result<Self::Fetcher, BrokerError>;

    /// A producer of that transactional id. Ends an open transaction of its predecessor and fences it: whatever the
    /// predecessor still tries fails with [`ErrorKind::Fenced`].
    fn producer(&self, transactional_id: &str) -> Result<Self::Producer, BrokerError>;

    /// Reads committed records of one partition from an offset on, outside any group.
    fn reader(&self, partition: &TopicPartition, from: Offset) -> Result<Self::Reader, BrokerError>;
}

/// Which records a reader of a log sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Up to the last stable offset: no record of a transaction that is open.
    ReadCommitted,
    /// Up to the high watermark.
    ReadUncommitted,
}

/// Where a log starts and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRange {
    /// The first offset that can still be read.
    pub start: Offset,
    /// The offset after the last one.
    pub end: Offset,
}

/// What a broker knows of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDescription {
    /// The topic's identity: a topic deleted and created again has another.
    pub id: String,
    /// How many partitions it has.
    pub partitions: u32,
}

/// How a topic is created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSettings {
    /// How many partitions.
    pub partitions: u32,
    /// Whether only the last record of each key needs to be kept (a changelog).
    pub compacted: bool,
    /// How long records are kept by their own timestamp; none is for ever.
    pub retention: Option<Duration>,
    /// How many bytes a partition may keep; none is without bound.
    pub retention_bytes: Option<u64>,
    /// How large the files are that a partition is kept in, where that can be chosen: deleted records give room back by the file.
    /// None is the broker's default.
    pub segment_bytes: Option<u64>,
}

impl TopicSettings {
    /// A topic that keeps everything until it is deleted.
    pub fn kept_for_ever(partitions: u32) -> Self {
        Self { partitions, compacted: false, retention: None, retention_bytes: None, segment_bytes: None }
    }

    /// A repartition topic: records are deleted as soon as they have been processed, in pieces of the size that Kafka Streams has.
    pub fn purged(partitions: u32) -> Self {
        Self { segment_bytes: Some(50 << 20), ..Self::kept_for_ever(partitions) }
    }

    /// A changelog: the last record of each key is kept for ever.
    pub fn compacted(partitions: u32) -> Self {
        Self { compacted: true, ..Self::kept_for_ever(partitions) }
    }
}

/// A position that a group has committed, with the metadata that lies beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The offset of the next record to read.
    pub offset: Offset,
    /// The metadata string.
    pub metadata: String,
}

/// Sends records and offsets in transactions. All or nothing of a transaction is ever seen by a reader of committed records.
pub trait TransactionalProducer: Send {
    /// Begins a transaction.
    fn begin(&mut self) -> Result<(), BrokerError>;

    /// Sends a record within the transaction.
    fn send(&mut self, to: &TopicPartition, record: &Record<'_>) -> Result<(), BrokerError>;

    /// Makes positions of the group part of the transaction, fenced by the membership.
    fn send_offsets(&mut self, fence: &Fence, offsets: &[(TopicPartition, CommittedOffset)]) -> Result<(), BrokerError>;

    /// Commits, and says which offsets the records sent were given.
    ///
    /// # Errors
    /// [`ErrorKind::OutcomeUnknown`]: the transaction may have committed, may do so still, or may not: get a new producer of the
    /// same transactional id (which settles it) and read back what the group has committed. Every other kind: it did not commit.
    fn commit(&mut self) -> Result<Delivered, BrokerError>;

    /// Gives the transaction up.
    fn abort(&mut self) -> Result<(), BrokerError>;
}

/// The offsets that a committed transaction's records were given: first and last of each partition.
pub type Delivered = BTreeMap<TopicPartition, (Offset, Offset)>;

/// What the caller of a broker must do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Nothing happened; the same call may succeed later.
    Retry,
    /// The transaction cannot commit: abort it, go back to the last commit, and go on.
    AbortTransaction,
    /// Somebody else has taken over this producer or member: drop it, and all uncommitted work, and join anew.
    Fenced,
    /// A commit or another write may or may not have taken place (see [`TransactionalProducer::commit`]).
    OutcomeUnknown,
    /// The position lies outside the log.
    OffsetOutOfRange,
    /// Going on would be wrong or useless; an operator has to look.
    Stop,
}

/// An error of a broker: a kind to act on, and a message for people.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct BrokerError {
    kind: ErrorKind,
    message: String,
    partition: Option<TopicPartition>,
}

impl BrokerError {
    /// An error of that kind. The message names the thing, the reason and the way out.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), partition: None }
    }

    /// The same error, which only this partition has: a transaction without it may succeed.
    pub fn of_partition(self, partition: TopicPartition) -> Self {
        Self { partition: Some(partition), ..self }
    }

    /// The one partition that has the error, where it is known that it is the only one.
    pub fn partition(&self) -> Option<&TopicPartition> {
        self.partition.as_ref()
    }

    /// What the caller must do.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The error for a topic that is not there.
    pub fn unknown_topic(topic: &str) -> Self {
        Self::new(ErrorKind::Stop, format!("topic {topic} does not exist: create it, or correct its name"))
    }

    /// The error for a partition that its topic does not have.
    pub fn unknown_partition(topic: &str, partition: Partition) -> Self {
        Self::new(ErrorKind::Stop, format!("topic {topic} has no partition {partition}"))
    }
}
