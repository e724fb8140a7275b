//! Records that a task sends besides its partial aggregates, held until the commit that they belong to.

use std::collections::BTreeMap;

use crate::broker::{BrokerError, TransactionalProducer};
use crate::record::{Headers, HeadersBuf, Offset, Record, Timestamp, TopicPartition};

/// Records to be sent with the next commit, in one buffer that is used again and again.
#[derive(Debug, Default)]
pub(crate) struct OutputBuffer {
    bytes: Vec<u8>,
    records: Vec<Pending>,
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

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len() + self.records.len() * size_of::<Pending>()
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

/// What became of records: each that is read is counted once under one of these.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordCounters {
    /// Records read from a source topic.
    pub read: u64,
    /// Records (or what operators made of them) that went into an aggregate.
    pub counted: u64,
    /// Those whose window was closed.
    pub late: u64,
    /// Those that could not be processed, by reason (up to its first colon).
    pub dead_lettered: BTreeMap<String, u64>,
}

impl RecordCounters {
    /// Adds another's numbers.
    pub fn add(&mut self, other: &RecordCounters) {
        self.read += other.read;
        self.counted += other.counted;
        self.late += other.late;
        for (reason, count) in &other.dead_lettered {
            *self.dead_lettered.entry(reason.clone()).or_default() += count;
        }
    }
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

    /// The record came after its window had closed.
    #[cold]
    pub(crate) fn late(&mut self, record: &Record<'_>) {
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

    pub(crate) fn send(&self, producer: &mut dyn TransactionalProducer) -> Result<(), BrokerError> {
        self.buffer.send(producer)
    }

    /// Forgets the records and gives the counters that went with them.
    pub(crate) fn take_counters(&mut self) -> RecordCounters {
        self.buffer.clear();
        std::mem::take(&mut self.counters)
    }
}
