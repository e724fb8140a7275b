//! Partial aggregates and watermarks on their way over the repartition topic.

use super::super::TaskError;
use super::super::grouping::Partials;
use super::super::processor::{Closed, Output};
use super::super::repartition::{self, Block, HEADER, VERSION};
use crate::broker::{Delivered, TransactionalProducer};
use crate::partitioner::partition_for_key;
use crate::record::{HeadersBuf, Offset, Partition, Record, Timestamp, Topic, TopicPartition};
use crate::store::window_store::WindowStore;

/// The repartition topic as a source task sees it.
#[derive(Debug, Clone)]
pub(crate) struct Repartition {
    pub(crate) topic: Topic,
    pub(crate) partitions: u32,
    header: HeadersBuf,
}

impl Repartition {
    pub(crate) fn new(topic: Topic, partitions: u32) -> Self {
        let mut header = HeadersBuf::new();
        header.push(HEADER, &[VERSION]);
        Self { topic, partitions, header }
    }

    /// Sends what a block holds to that partition, and empties it.
    fn send_block(&self, producer: &mut dyn TransactionalProducer, partition: u32, block: &mut Block) -> Result<(), TaskError> {
        if let Some((value, latest)) = block.record() {
            let to = TopicPartition::new(self.topic.clone(), Partition(partition));
            producer.send(&to, &Record::new(None, Some(value), latest).with_headers(self.header.as_headers()))?;
        }
        block.clear();
        Ok(())
    }

    /// Tells every partition that nothing up to `closed_through` changes any more from `source`.
    pub(crate) fn send_watermark(
        &self,
        producer: &mut dyn TransactionalProducer,
        source: Partition,
        closed_through: Timestamp,
    ) -> Result<(), TaskError> {
        let mut value = Vec::new();
        repartition::encode_watermark(source, closed_through, &mut value);
        let record = Record::new(None, Some(&value), closed_through).with_headers(self.header.as_headers());
        for partition in 0..self.partitions {
            producer.send(&TopicPartition::new(self.topic.clone(), Partition(partition)), &record)?;
        }
        Ok(())
    }
}

/// Combines the records of one source partition and sends the partial aggregates to the partitions that their keys belong to.
pub(crate) struct Shuffle {
    source: Partition,
    repartition: Repartition,
    window_size_ms: i64,
    partials: Box<dyn Partials>,
    /// One for each partition of the repartition topic.
    blocks: Vec<Block>,
}

impl Shuffle {
    pub(crate) fn new(source: Partition, repartition: Repartition, window_size_ms: i64, partials: Box<dyn Partials>) -> Self {
        let blocks = (0..repartition.partitions).map(|_| Block::default()).collect();
        Self { source, repartition, window_size_ms, partials, blocks }
    }

    fn send_partials(&mut self, producer: &mut dyn TransactionalProducer) -> Result<(), TaskError> {
        let Self { repartition, blocks, partials, window_size_ms, .. } = self;
        // What a transaction that was given up has left there.
        blocks.iter_mut().for_each(Block::clear);
        partials.drain(&mut |partial| {
            let partition = partition_for_key(partial.key, repartition.partitions).0;
            let block = &mut blocks[partition as usize];
            block.push(*window_size_ms, partial);
            if block.is_full() { repartition.send_block(producer, partition, block) } else { Ok(()) }
        })?;
        (0..).zip(blocks).try_for_each(|(partition, block)| repartition.send_block(producer, partition, block))
    }
}

impl Output for Shuffle {
    type Kept = dyn Partials;

    fn kept(&mut self) -> &mut Self::Kept {
        &mut *self.partials
    }

    fn bytes(&self) -> usize {
        self.partials.bytes() + self.blocks.iter().map(Block::capacity).sum::<usize>()
    }

    fn send(&mut self, closed: Closed, producer: &mut dyn TransactionalProducer) -> Result<(), TaskError> {
        self.send_partials(producer)?;
        // After the partial aggregates: whoever reads the watermark has read them.
        if closed.working > closed.committed {
            self.repartition.send_watermark(producer, self.source, closed.working)?;
        }
        Ok(())
    }

    fn committed(&mut self, _: &Delivered, _: Timestamp, _: Offset) {
        self.blocks.iter_mut().for_each(Block::release);
    }

    fn rollback(&mut self) {
        self.partials.clear();
    }

    fn writes_to(&self, partition: &TopicPartition) -> bool {
        partition.topic == self.repartition.topic
    }

    fn into_store(self) -> Option<WindowStore> {
        None
    }
}
