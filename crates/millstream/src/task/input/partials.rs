//! Reading a repartition topic: partial aggregates and watermarks in.

use super::super::grouping::Partials;
use super::super::metadata::{CLOSED_THROUGH, OffsetMetadata};
use super::super::processor::{Closed, CommittedTime, Entries, Input, Trim};
use super::super::repartition::{self, HEADER, Message};
use super::super::{RecordCounters, TaskError};
use super::sources::Sources;
use crate::broker::{CommittedOffset, TransactionalProducer};
use crate::record::{Offset, Record, Timestamp, TopicPartition};
use crate::time::TimeWindows;

/// What an aggregate task has committed.
#[derive(Debug, Clone)]
pub(crate) struct AggregatePosition {
    pub(crate) offset: Offset,
    pub(crate) metadata: OffsetMetadata,
    pub(crate) sources: Sources,
    /// See [`AggregatePosition::closed_through`].
    floor: Timestamp,
}

impl AggregatePosition {
    /// # Errors
    /// Where the metadata names the sources in a way that is not known.
    pub(crate) fn new(offset: Offset, metadata: OffsetMetadata) -> Result<Self, TaskError> {
        let sources = Sources::from_entries(&metadata.entries).ok_or_else(|| {
            TaskError::Stop("the metadata of the committed offset was written by a newer version: use that version".to_owned())
        })?;
        let floor = Timestamp(metadata.entries.get(CLOSED_THROUGH).copied().unwrap_or(0));
        Ok(Self { offset, metadata, sources, floor })
    }

    pub(crate) fn first(offset: Offset) -> Self {
        Self { offset, metadata: OffsetMetadata::default(), sources: Sources::default(), floor: Timestamp(0) }
    }

    /// Whether no source partition is known: nothing of this engine's was committed yet.
    pub(crate) fn waits_for_nobody(&self) -> bool {
        self.sources.are_none()
    }

    /// The store's closed_through. A source that joins is heard of with zero and takes this value before it counts anything, so
    /// the value reached before it joined stands.
    pub(crate) fn closed_through(&self) -> Timestamp {
        self.sources.closed_through().max(self.floor)
    }
}

/// Reads one partition of a repartition topic.
pub(crate) struct PartialsInput {
    input: TopicPartition,
    windows: TimeWindows,
    committed: AggregatePosition,
    working: AggregatePosition,
    is_first: bool,
}

impl PartialsInput {
    /// Goes on after `committed`; `is_first` where that, with its sources, has not been committed yet.
    pub(crate) fn new(input: TopicPartition, windows: TimeWindows, committed: AggregatePosition, is_first: bool) -> Self {
        let working = committed.clone();
        Self { input, windows, committed, working, is_first }
    }

    fn process_record(&mut self, record: &Record<'_>, into: &mut dyn Partials) -> Result<(), TaskError> {
        let stream_time = self.working.metadata.stream_time.max(Some(record.timestamp));
        self.working.metadata.stream_time = stream_time;
        if record.headers.get(HEADER).is_none() {
            return self.merge_foreign(record, into);
        }
        match record.value.and_then(repartition::decode) {
            Some(Message::Partials(partials)) => self.merge_partials(record, partials, into),
            Some(Message::Watermark { source, closed_through }) => {
                self.working.sources.heard(source, closed_through);
                self.working.floor = self.working.closed_through();
                Ok(())
            }
            None => Err(self.unreadable(record)),
        }
    }

    fn merge_partials(
        &self,
        record: &Record<'_>,
        partials: repartition::Partials<'_>,
        into: &mut dyn Partials,
    ) -> Result<(), TaskError> {
        if partials.size_ms != self.windows.size_ms() {
            return Err(TaskError::Stop(format!(
                "record {}@{} holds partial counts of {} ms windows, this store counts in windows of {} ms: give the window size back, or \
                 count under another application id",
                self.input,
                record.offset,
                partials.size_ms,
                self.windows.size_ms()
            )));
        }
        for partial in partials {
            let partial = partial.ok_or_else(|| self.unreadable(record))?;
            self.check_open(record, partial.start)?;
            if !into.merge(&partial) {
                return Err(self.unreadable(record));
            }
        }
        Ok(())
    }

    fn merge_foreign(&self, record: &Record<'_>, into: &mut dyn Partials) -> Result<(), TaskError> {
        let key = record.key.ok_or_else(|| self.unreadable(record))?;
        if record.timestamp.0 < 0 {
            return Err(self.unreadable(record));
        }
        self.check_open(record, self.windows.start_of(record.timestamp))?;
        if into.merge_foreign(key, record.timestamp) { Ok(()) } else { Err(self.unreadable(record)) }
    }

    /// A final window was promised not to change: whoever breaks that has a defect, and neither counting nor dropping would mend it.
    fn check_open(&self, record: &Record<'_>, start: Timestamp) -> Result<(), TaskError> {
        let (end, closed_through) = (self.windows.end_of(start), self.working.closed_through());
        if end <= closed_through {
            return Err(TaskError::Stop(format!(
                "record {}@{} changes the window from {start}, which is final (closed through {closed_through}): nothing was counted; this \
                 must not happen, please report it with both topics kept as they are",
                self.input, record.offset
            )));
        }
        Ok(())
    }

    fn unreadable(&self, record: &Record<'_>) -> TaskError {
        TaskError::Stop(format!(
            "record {}@{} cannot be read as a partial count or watermark: it was written by another version or program; stop that \
             program, or use another application id",
            self.input, record.offset
        ))
    }
}

impl Input<dyn Partials> for PartialsInput {
    fn process(&mut self, records: &[Record<'_>], next: Offset, into: &mut (dyn Partials + 'static)) -> Result<(), TaskError> {
        records.iter().try_for_each(|record| self.process_record(record, into))?;
        self.working.offset = next;
        Ok(())
    }

    fn has_moved(&self) -> bool {
        self.is_first || self.working.offset != self.committed.offset
    }

    fn side_bytes(&self) -> usize {
        0
    }

    fn closed(&self) -> Closed {
        Closed { committed: self.committed.closed_through(), working: self.working.closed_through() }
    }

    fn stage(&mut self, output: &Entries, _: &mut dyn TransactionalProducer) -> Result<CommittedOffset, TaskError> {
        let entries = &mut self.working.metadata.entries;
        self.working.sources.put_entries(entries);
        entries.extend(output.iter().map(|(name, value)| (name.clone(), *value)));
        entries.insert(CLOSED_THROUGH.to_owned(), self.working.floor.0);
        Ok(CommittedOffset { offset: self.working.offset, metadata: self.working.metadata.encode() })
    }

    fn committed(&mut self) -> RecordCounters {
        self.is_first = false;
        self.committed = self.working.clone();
        RecordCounters::default()
    }

    fn rollback(&mut self) {
        self.working = self.committed.clone();
    }

    fn committed_time(&self) -> CommittedTime {
        let stream_time = self.committed.metadata.stream_time;
        CommittedTime { stream_time, closed_through: self.committed.closed_through().0 }
    }

    fn writes_to(&self, _: &TopicPartition) -> bool {
        false
    }

    /// What was consumed of the repartition topic lives on in changelog and store.
    fn consumed(&self) -> Option<Trim> {
        Some(Trim { log: self.input.clone(), before: self.committed.offset, flush: None })
    }

    fn position(&self) -> Offset {
        self.working.offset
    }
}
