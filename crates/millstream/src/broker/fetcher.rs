//! Fetching records from positions of the caller's choice, outside any group.

use std::time::Duration;

use super::BrokerError;
use crate::record::{Offset, Record, TopicPartition};

/// Fetches committed records of many partitions, each from a position that is set by hand.
///
/// It knows nothing of groups: who may fetch what is for a [`super::Membership`] to say, and what was fetched counts only once it is
/// committed under that membership's fence.
pub trait Fetcher: Send {
    /// A batch of records of one partition.
    type Batch: FetchedBatch;

    /// Fetches a partition from this position on; also how a position is rewound. What was fetched of it before and not polled is
    /// dropped. That the log does not have the position is told by [`Fetcher::poll`].
    fn start(&mut self, partition: &TopicPartition, from: Offset) -> Result<(), BrokerError>;

    /// Stops fetching a partition and drops what was fetched of it and not polled. One that is not fetched stays so.
    fn stop(&mut self, partition: &TopicPartition);

    /// What has been fetched, the partitions by turns; waits for it at most so long.
    ///
    /// # Errors
    /// What concerns all partitions. [`super::ErrorKind::Fenced`]: this fetcher is of no use any more, make another.
    fn poll(&mut self, max_wait: Duration) -> Result<Fetched<Self::Batch>, BrokerError>;
}

/// What a poll of a [`Fetcher`] brought.
#[derive(Debug)]
pub enum Fetched<B> {
    /// Records of one partition.
    Batch(B),
    /// One partition cannot be fetched, and is not until it is started again; the others are. The kind is
    /// [`super::ErrorKind::OffsetOutOfRange`] where the log does not have the position, or is gone.
    Failed(TopicPartition, BrokerError),
    /// Nothing came in the time given.
    Nothing,
}

/// Committed records of one partition, in order.
pub trait FetchedBatch: Send {
    /// Where the records come from.
    fn partition(&self) -> &TopicPartition;

    /// Appends the records, borrowed from this batch.
    ///
    /// # Errors
    /// [`super::ErrorKind::Stop`] where the bytes of the batch are not what was written.
    fn records<'a>(&'a self, into: &mut Vec<Record<'a>>) -> Result<(), BrokerError>;

    /// The position after this batch: at least the last record's offset + 1, more where offsets without a record follow.
    fn next_offset(&self) -> Offset;
}

/// Reads one partition from an offset to its end.
pub trait LogReader: Send {
    /// A batch of records.
    type Batch: FetchedBatch;

    /// The next batch, or none where nothing came in that time.
    ///
    /// # Errors
    /// [`super::ErrorKind::OffsetOutOfRange`] where the log starts after the position.
    fn read(&mut self, max_wait: Duration) -> Result<Option<Self::Batch>, BrokerError>;

    /// The offset of the next record to read. It passes offsets that hold no record.
    fn position(&self) -> Offset;
}
