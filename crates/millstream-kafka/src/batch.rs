//! Batches of fetched messages.

use millstream::broker::{BrokerError, FetchedBatch};
use millstream::record::{Headers, HeadersBuf, Offset, Record, Timestamp, TopicPartition};

use crate::ffi::{KeepAlive, Message};

/// Records of one partition, borrowed from the buffers that they were fetched into.
pub struct KafkaBatch {
    partition: TopicPartition,
    messages: Vec<Message>,
    headers: BatchHeaders,
    next: Offset,
    // Dropped after the messages.
    _client: KeepAlive,
}

impl std::fmt::Debug for KafkaBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KafkaBatch({}, {} records, next {})", self.partition, self.messages.len(), self.next)
    }
}

impl KafkaBatch {
    /// A batch without records, at a position.
    pub(crate) fn new(partition: TopicPartition, next: Offset, client: KeepAlive) -> Self {
        Self { partition, messages: Vec::new(), headers: BatchHeaders::default(), next, _client: client }
    }

    /// Adds a record that lies behind those that are here.
    pub(crate) fn push(&mut self, mut message: Message) {
        self.headers.push(self.messages.len(), &mut message);
        self.next = Offset(message.offset() + 1);
        self.messages.push(message);
    }

    /// Lets the batch end at a position that lies behind offsets without a record.
    pub(crate) fn pass_to(&mut self, next: Offset) {
        self.next = self.next.max(next);
    }

    /// Whether there is a record in it.
    pub(crate) fn has_records(&self) -> bool {
        !self.messages.is_empty()
    }

    /// Whether a message belongs into this batch; not known without looking at names where it has no records yet.
    pub(crate) fn takes(&self, message: &Message) -> bool {
        match self.messages.last() {
            Some(last) => last.is_beside(message),
            None => {
                i64::from(message.partition()) == i64::from(self.partition.partition.0)
                    && message.topic() == &*self.partition.topic
            }
        }
    }
}

impl FetchedBatch for KafkaBatch {
    fn partition(&self) -> &TopicPartition {
        &self.partition
    }

    fn records<'a>(&'a self, into: &mut Vec<Record<'a>>) -> Result<(), BrokerError> {
        into.extend(self.messages.iter().enumerate().map(|(index, message)| Record {
            key: message.key(),
            value: message.value(),
            timestamp: Timestamp(message.timestamp()),
            offset: Offset(message.offset()),
            headers: self.headers.of(index),
        }));
        Ok(())
    }

    fn next_offset(&self) -> Offset {
        self.next
    }
}

/// The headers of a batch, one behind the other. Records without headers cost nothing as long as no record has any.
#[derive(Debug, Default)]
struct BatchHeaders {
    encoded: HeadersBuf,
    /// Where each record's headers end; shorter than the batch where the last records have none.
    ends: Vec<usize>,
}

impl BatchHeaders {
    fn push(&mut self, index: usize, message: &mut Message) {
        let before = self.encoded.as_headers().as_bytes().len();
        if message.push_headers(&mut self.encoded) {
            self.ends.resize(index, before);
            self.ends.push(self.encoded.as_headers().as_bytes().len());
        }
    }

    fn of(&self, index: usize) -> Headers<'_> {
        let Some(&end) = self.ends.get(index) else { return Headers::EMPTY };
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        Headers::decode(&self.encoded.as_headers().as_bytes()[start..end]).unwrap_or(Headers::EMPTY)
    }
}
