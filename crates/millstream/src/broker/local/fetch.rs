//! Reading stored batches, a mebibyte at a time.

use std::ops::ControlFlow;

use super::super::{BrokerError, ErrorKind, FetchedBatch};
use super::batch::{CorruptBatch, decode_records, split_batch};
use super::storage::{LogId, LogStorage};
use crate::record::{Offset, Record, TopicPartition};

/// A fetch ends after so many bytes, or after [`FETCH_RECORDS`], with a whole stored batch.
const FETCH_BYTES: usize = 1 << 20;
const FETCH_RECORDS: u32 = 8192;

/// Records of one partition, as they are stored.
#[derive(Debug)]
pub struct LocalBatch {
    partition: TopicPartition,
    stored: Vec<u8>,
    from: Offset,
    next: Offset,
}

impl FetchedBatch for LocalBatch {
    fn partition(&self) -> &TopicPartition {
        &self.partition
    }

    fn records<'a>(&'a self, into: &mut Vec<Record<'a>>) -> Result<(), BrokerError> {
        let mut rest = &self.stored[..];
        let mut reached = self.from;
        while !rest.is_empty() {
            let (header, batch, tail) = split_batch(rest).map_err(|error| self.corrupt(reached, error))?;
            decode_records(&header, batch, self.from, into).map_err(|error| self.corrupt(header.first, error))?;
            (reached, rest) = (header.last.next(), tail);
        }
        Ok(())
    }

    fn next_offset(&self) -> Offset {
        self.next
    }
}

impl LocalBatch {
    fn corrupt(&self, at: Offset, error: CorruptBatch) -> BrokerError {
        corrupt(&self.partition, at, error)
    }
}

/// The error for stored bytes that are not what was written.
pub(super) fn corrupt(partition: &TopicPartition, at: Offset, error: CorruptBatch) -> BrokerError {
    let message = format!("the log of {partition} is corrupt: the record batch at offset {at}: {error}");
    BrokerError::new(ErrorKind::Stop, message).of_partition(partition.clone())
}

/// Reads the records `from <= offset < before`, as many as one fetch takes. `before` is where a stored batch ends.
pub(super) fn fetch(
    storage: &impl LogStorage,
    log: LogId,
    partition: &TopicPartition,
    from: Offset,
    before: Offset,
) -> Result<LocalBatch, BrokerError> {
    let mut stored = Vec::new();
    let (mut records, mut next, mut broken) = (0, before, None);
    storage.read(log, from, &mut |last, bytes| {
        if last >= before {
            return ControlFlow::Break(());
        }
        match split_batch(bytes) {
            Ok((header, ..)) => records += header.records,
            Err(error) => {
                broken = Some((last, error));
                return ControlFlow::Break(());
            }
        }
        stored.extend_from_slice(bytes);
        if stored.len() < FETCH_BYTES && records < FETCH_RECORDS {
            return ControlFlow::Continue(());
        }
        next = last.next();
        ControlFlow::Break(())
    })?;
    match broken {
        Some((last, error)) => Err(corrupt(partition, last, error)),
        None => Ok(LocalBatch { partition: partition.clone(), stored, from, next }),
    }
}

/// The error for a position that the log does not have.
pub(super) fn out_of_range(partition: &TopicPartition, position: Offset, start: Offset, end: Offset) -> BrokerError {
    let message = format!("position {position} of {partition} is outside its log, which holds {start} to {end}");
    BrokerError::new(ErrorKind::OffsetOutOfRange, message).of_partition(partition.clone())
}
