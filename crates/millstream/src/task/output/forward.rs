//! Records sent on as they are made.

use super::super::processor::{Closed, Output};
use super::super::{OutputBuffer, TaskError};
use crate::broker::{Delivered, TransactionalProducer};
use crate::record::{Offset, Timestamp, Topic, TopicPartition};
use crate::store::window_store::WindowStore;

/// The records that go to an output topic with the next commit.
pub(crate) struct Forward {
    topic: Topic,
    buffer: OutputBuffer,
}

impl Forward {
    pub(crate) fn new(topic: Topic) -> Self {
        Self { topic, buffer: OutputBuffer::default() }
    }
}

impl Output for Forward {
    type Kept = OutputBuffer;

    fn kept(&mut self) -> &mut OutputBuffer {
        &mut self.buffer
    }

    fn bytes(&self) -> usize {
        self.buffer.bytes()
    }

    fn send(&mut self, _: Closed, producer: &mut dyn TransactionalProducer) -> Result<(), TaskError> {
        Ok(self.buffer.send(producer)?)
    }

    fn committed(&mut self, _: &Delivered, _: Timestamp, _: Offset) {
        self.buffer.clear();
    }

    fn rollback(&mut self) {
        self.buffer.clear();
    }

    fn writes_to(&self, partition: &TopicPartition) -> bool {
        partition.topic == self.topic
    }

    fn into_store(self) -> Option<WindowStore> {
        None
    }
}
