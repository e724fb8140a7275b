//! Records that a task sends besides its partial aggregates, held until the commit that they belong to.

use std::collections::BTreeMap;

use crate::broker::{BrokerError, TransactionalProducer};
use crate::kept::Kept;
use crate::record::{Headers, HeadersBuf, Offset, Record, Timestamp, TopicPartition};

/// Records to be sent with the next commit, in one buffer. Clearing keeps the memory that the next commit usually needs.
#[derive(Debug, Default)]
pub(crate) struct OutputBuffer {
    bytes: Vec<u8>,
    records: Vec<Pending>,
    kept: Kept,
}

#[derive(Debug)]
struct Pending {
    to: TopicPartition,
    timestamp: Timestamp,
    key: Option<usize>,
    value: Option<usize>,
    headers: usize,
}

impl OutputBuffer {
    pub(crate) fn push(&mut self, to: TopicPartition, key: Option<&[u8]>, value: Option<&[u8]>, timestamp: Timestamp) {
        self.push_with_headers(to, &Record::new(key, value, timestamp));
    }

    pub(crate) fn push_with_headers(&mut self, to: TopicPartition, record: &Record<'_>) {
        let mut append = |bytes: &[u8]| {
            self.bytes.extend_from_slice(bytes);
            bytes.len()
        };
        let key = record.key.map(&mut append);
        let value = record.value.map(&mut append);
        let headers = append(record.headers.as_bytes());
        self.records.push(Pending { to, timestamp: record.timestamp, key, value, headers });
    }

    /// The memory that it holds, in use or not, but for what it had kept when it was last emptied ([`Kept::charge`]).
    pub(crate) fn bytes(&self) -> usize {
        self.kept.charge(self.in_use(), self.held())
    }

    /// How much of it is in use.
    pub(crate) fn in_use(&self) -> usize {
        self.bytes.len() + self.records.len() * size_of::<Pending>()
    }

    fn held(&self) -> usize {
        self.bytes.capacity() + self.records.capacity() * size_of::<Pending>()
    }

    pub(crate) fn send(&self, producer: &mut dyn TransactionalProducer) -> Result<(), BrokerError> {
        let mut rest = self.bytes.as_slice();
        let mut take = |length: usize| {
            let (taken, tail) = rest.split_at(length);
            rest = tail;
            taken
        };
        for pending in &self.records {
            let key = pending.key.map(&mut take);
            let value = pending.value.map(&mut take);
            let headers = Headers::decode(take(pending.headers)).unwrap_or(Headers::EMPTY);
            let record = Record { key, value, timestamp: pending.timestamp, offset: Offset::ZERO, headers };
            producer.send(&pending.to, &record)?;
        }
        Ok(())
    }

    pub(crate) fn clear(&mut self) {
        if self.kept.gives_back(self.in_use(), self.held()) {
            *self = Self { kept: self.kept, ..Self::default() };
            return;
        }
        self.bytes.clear();
        self.records.clear();
    }
}

/// Where a source partition's late and unreadable records go.
#[derive(Debug, Clone)]
pub(crate) struct SideTopics {
    pub(crate) source: TopicPartition,
    pub(crate) late: TopicPartition,
    pub(crate) dead_letter: TopicPartition,
}

/// What became of records. Each that is read is in exactly one of the others, whatever operators made of it: they count records of
/// the source topic, not what came out of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordCounters {
    /// Records read from a source topic.
    pub read: u64,
    /// Those that went into an aggregate, each with all that operators made of it; in a stream that ends in a topic, those of which
    /// something was sent there.
    pub counted: u64,
    /// Those whose window was closed. Nothing of them was counted.
    pub late: u64,
    /// Those of which operators left nothing, their window closed or not.
    pub filtered: u64,
    /// Those that could not be processed, by reason (up to its first colon). Nothing of them was counted.
    pub dead_lettered: BTreeMap<String, u64>,
}

impl RecordCounters {
    /// Adds another's numbers.
    pub fn add(&mut self, other: &RecordCounters) {
        self.read += other.read;
        self.counted += other.counted;
        self.late += other.late;
        self.filtered += other.filtered;
        for (reason, count) in &other.dead_lettered {
            *self.dead_lettered.entry(reason.clone()).or_default() += count;
        }
    }

    /// All of which is known what became of them: as many as were read.
    pub fn settled(&self) -> u64 {
        self.counted + self.late + self.filtered + self.dead_lettered.values().sum::<u64>()
    }
}

/// What became of a record that could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Operators left nothing of it.
    Filtered,
    /// All that operators made of it went into the aggregate.
    Counted,
    /// Its window is closed.
    Late,
    /// Something that operators made of it has no key to group it by.
    NullKey,
}

/// The late and dead-lettered records of the transaction being built, and the counters that go with it.
#[derive(Debug)]
pub(crate) struct SideOutput {
    topics: SideTopics,
    buffer: OutputBuffer,
    headers: HeadersBuf,
    pub(crate) counters: RecordCounters,
}

impl SideOutput {
    pub(crate) fn new(topics: SideTopics) -> Self {
        Self { topics, buffer: OutputBuffer::default(), headers: HeadersBuf::new(), counters: RecordCounters::default() }
    }

    pub(crate) fn source(&self) -> &TopicPartition {
        &self.topics.source
    }

    /// Counts a record, and sets it aside where it was not counted.
    #[inline]
    pub(crate) fn settle(&mut self, record: &Record<'_>, fate: Fate) {
        match fate {
            Fate::Counted => self.counters.counted += 1,
            Fate::Filtered => self.counters.filtered += 1,
            Fate::Late => self.late(record),
            Fate::NullKey => self.dead_letter(record, "key is null"),
        }
    }

    /// The record came after its window had closed.
    #[cold]
    fn late(&mut self, record: &Record<'_>) {
        self.counters.late += 1;
        self.divert(self.topics.late.clone(), record, "late");
    }

    /// The record cannot be processed.
    #[cold]
    pub(crate) fn dead_letter(&mut self, record: &Record<'_>, reason: &str) {
        let label = reason.split(':').next().unwrap_or(reason);
        *self.counters.dead_lettered.entry(label.to_owned()).or_default() += 1;
        self.divert(self.topics.dead_letter.clone(), record, reason);
    }

    fn divert(&mut self, to: TopicPartition, record: &Record<'_>, reason: &str) {
        let source = &self.topics.source;
        self.headers.clear();
        self.headers.push("reason", reason.as_bytes());
        self.headers.push("source.topic", source.topic.as_bytes());
        self.headers.push("source.partition", source.partition.to_string().as_bytes());
        self.headers.push("source.offset", record.offset.to_string().as_bytes());
        self.buffer.push_with_headers(to, &record.with_headers(self.headers.as_headers()));
    }

    pub(crate) fn bytes(&self) -> usize {
        self.buffer.bytes()
    }

    /// Whether records may go to that partition.
    pub(crate) fn writes_to(&self, partition: &TopicPartition) -> bool {
        *partition == self.topics.late || *partition == self.topics.dead_letter
    }

    pub(crate) fn send(&self, producer: &mut dyn TransactionalProducer) -> Result<(), BrokerError> {
        self.buffer.send(producer)
    }

    /// Forgets the records and gives the counters that went with them.
    pub(crate) fn take_counters(&mut self) -> RecordCounters {
        self.buffer.clear();
        std::mem::take(&mut self.counters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Partition;

    fn fill(buffer: &mut OutputBuffer, records: usize) {
        for _ in 0..records {
            buffer.push(TopicPartition::new("late", Partition(0)), Some(b"key"), Some(&[7; 100]), Timestamp(0));
        }
    }

    #[test]
    fn a_peak_is_counted_as_it_is_held_and_given_back() {
        let mut buffer = OutputBuffer::default();
        fill(&mut buffer, (1 << 14) + 1);
        let held = buffer.bytes.capacity() + buffer.records.capacity() * size_of::<Pending>();
        assert!(buffer.bytes() >= held, "{} of {held}", buffer.bytes());
        buffer.clear();
        assert_eq!((buffer.bytes(), buffer.held()), (0, 0));
    }

    #[test]
    fn what_the_usual_commit_needs_is_kept_and_counts_nothing() {
        let mut buffer = OutputBuffer::default();
        fill(&mut buffer, 100);
        let held = buffer.held();
        buffer.clear();
        assert_eq!((buffer.bytes(), buffer.held()), (0, held));
    }
}
