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
        self.blocks.iter_mut().for_each(Block::release);
    }

    fn writes_to(&self, partition: &TopicPartition) -> bool {
        partition.topic == self.repartition.topic
    }

    fn into_store(self) -> Option<WindowStore> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::broker::local::MemoryBroker;
    use crate::broker::{Broker, TopicSettings};
    use crate::clock::ManualClock;
    use crate::serdes::Utf8;
    use crate::task::repartition::Partial;
    use crate::time::TimeWindows;
    use crate::topology::spec::End;
    use crate::topology::{Materialized, StreamsBuilder};

    #[test]
    fn the_blocks_of_a_large_commit_are_given_back_whether_it_commits_or_not() {
        let broker = MemoryBroker::in_memory(Arc::new(ManualClock::new(Timestamp(0))));
        broker.create_topic("repartition", &TopicSettings::purged(2)).unwrap();
        let mut producer = broker.producer("producer").unwrap();
        let builder = StreamsBuilder::with_serdes(Utf8, Utf8);
        let windows = TimeWindows::of_size_with_no_grace(Duration::from_secs(1));
        builder.stream("words").group_by(|key, _| *key).windowed_by(windows).count(Materialized::as_("counts"));
        let mut topology = builder.build().unwrap();
        let Some(End::Windowed(spec)) = topology.pipelines.pop().map(|pipeline| pipeline.end) else { panic!("an aggregate") };
        let repartition = Repartition::new("repartition".into(), 2);
        let mut shuffle = Shuffle::new(Partition(0), repartition, windows.size_ms(), spec.grouping.partials());
        let closed = Closed { committed: Timestamp(0), working: Timestamp(0) };
        for commits in [true, false] {
            for key in 0u32..4_000 {
                let key = [key.to_be_bytes(); 8].concat();
                let partial = Partial { key: &key, start: Timestamp(0), latest: Timestamp(0), acc: &[2] };
                assert!(shuffle.kept().merge(&partial));
            }
            producer.begin().unwrap();
            shuffle.send(closed, &mut producer).unwrap();
            assert!(shuffle.bytes() >= 2 * (64 << 10), "a full block for each partition: {}", shuffle.bytes());
            match commits {
                true => shuffle.committed(&producer.commit().unwrap(), Timestamp(0), Offset(0)),
                false => {
                    producer.abort().unwrap();
                    shuffle.rollback();
                }
            }
            assert!(shuffle.bytes() <= 2 * (1 << 10), "{}", shuffle.bytes());
        }
    }
}
