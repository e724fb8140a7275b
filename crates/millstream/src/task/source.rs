//! The source task: records in, partial aggregates and watermarks out, over the repartition topic.

use super::TaskError;
use super::grouping::{Intake, Partials};
use super::metadata::{CLOSED_THROUGH, OffsetMetadata};
use super::repartition::{self, Block, HEADER, VERSION};
use super::side_output::{RecordCounters, SideOutput};
use super::stream_task::{CommittedTime, StreamTask};
use crate::broker::{CommittedOffset, Delivered, TransactionalProducer};
use crate::partitioner::partition_for_key;
use crate::record::{HeadersBuf, Offset, Partition, Record, Timestamp, Topic, TopicPartition};
use crate::time::{SourceProgress, TimeWindows};

const JOINING: &str = "clickmill.joining";
const IDLE: &str = "clickmill.idle";

/// What a source partition has committed: position, stream time, closed_through.
#[derive(Debug, Clone)]
pub(crate) struct SourcePosition {
    pub(crate) offset: Offset,
    pub(crate) metadata: OffsetMetadata,
}

impl SourcePosition {
    pub(crate) fn closed_through(&self) -> Timestamp {
        Timestamp(self.metadata.entries.get(CLOSED_THROUGH).copied().unwrap_or(0))
    }

    /// Whether the partition is still waiting for the aggregate tasks to know of it.
    pub(crate) fn is_joining(&self) -> bool {
        self.metadata.entries.contains_key(JOINING)
    }

    /// Whether it was committed by this engine after every aggregate task knew of the partition. Kafka Streams, and whoever sets
    /// positions from outside, commit none that have.
    pub(crate) fn has_joined(&self) -> bool {
        self.metadata.entries.contains_key(CLOSED_THROUGH) && !self.is_joining()
    }

    pub(crate) fn progress(&self, windows: TimeWindows) -> SourceProgress {
        SourceProgress::new(windows, self.metadata.stream_time, self.closed_through())
    }

    /// Whether the partition was found idle.
    pub(crate) fn is_idle(&self) -> bool {
        self.metadata.entries.contains_key(IDLE)
    }

    /// The position after more was read.
    pub(crate) fn advanced(&self, offset: Offset, progress: &SourceProgress, idle: bool) -> Self {
        let mut metadata = OffsetMetadata { stream_time: progress.stream_time(), entries: self.metadata.entries.clone() };
        metadata.entries.insert(CLOSED_THROUGH.to_owned(), progress.closed_through().0);
        if idle {
            metadata.entries.insert(IDLE.to_owned(), 1);
        } else {
            metadata.entries.remove(IDLE);
        }
        Self { offset, metadata }
    }

    /// The first commit of a partition that no aggregate task has heard of.
    pub(crate) fn joining(offset: Offset) -> Self {
        Self { offset, metadata: OffsetMetadata::default() }.announcing()
    }

    /// This position while it waits for the aggregate tasks to know of the partition.
    pub(crate) fn announcing(mut self) -> Self {
        self.metadata.entries.insert(JOINING.to_owned(), 1);
        self
    }

    /// The first commit after every aggregate task knows of the partition.
    pub(crate) fn joined(&self, closed_through: Timestamp) -> Self {
        let mut joined = self.clone();
        joined.metadata.entries.remove(JOINING);
        joined.metadata.entries.insert(CLOSED_THROUGH.to_owned(), closed_through.0.max(self.closed_through().0));
        joined
    }

    pub(crate) fn time(&self) -> CommittedTime {
        CommittedTime { stream_time: self.metadata.stream_time, closed_through: self.closed_through().0 }
    }

    pub(crate) fn to_commit(&self) -> CommittedOffset {
        CommittedOffset { offset: self.offset, metadata: self.metadata.encode() }
    }
}

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

/// Reads one partition of the source topic and combines its records before the shuffle.
pub(crate) struct SourceTask {
    input: TopicPartition,
    repartition: Repartition,
    windows: TimeWindows,
    partials: Box<dyn Partials>,
    progress: SourceProgress,
    side: SideOutput,
    position: Offset,
    idle: bool,
    committed: SourcePosition,
    staged: Option<SourcePosition>,
    /// One for each partition of the repartition topic.
    blocks: Vec<Block>,
}

impl SourceTask {
    pub(crate) fn new(
        input: TopicPartition,
        repartition: Repartition,
        windows: TimeWindows,
        partials: Box<dyn Partials>,
        side: SideOutput,
        committed: SourcePosition,
    ) -> Self {
        let progress = committed.progress(windows);
        let (position, idle) = (committed.offset, committed.is_idle());
        let blocks = (0..repartition.partitions).map(|_| Block::default()).collect();
        Self { input, repartition, windows, partials, progress, side, position, idle, committed, staged: None, blocks }
    }
}

impl SourceTask {
    fn stage_partials(&mut self, producer: &mut dyn TransactionalProducer) -> Result<(), TaskError> {
        let Self { repartition, blocks, partials, .. } = self;
        let size_ms = self.windows.size_ms();
        // What a transaction that was given up has left there.
        blocks.iter_mut().for_each(Block::clear);
        partials.drain(&mut |partial| {
            let partition = partition_for_key(partial.key, repartition.partitions).0;
            let block = &mut blocks[partition as usize];
            block.push(size_ms, partial);
            if block.is_full() { repartition.send_block(producer, partition, block) } else { Ok(()) }
        })?;
        (0..).zip(blocks).try_for_each(|(partition, block)| repartition.send_block(producer, partition, block))
    }
}

impl StreamTask for SourceTask {
    fn process(&mut self, records: &[Record<'_>], next: Offset) -> Result<(), TaskError> {
        let mut intake = Intake { progress: &mut self.progress, side: &mut self.side, keyed_partitions: None };
        self.partials.process(records, &mut intake)?;
        self.position = next;
        self.idle = false;
        Ok(())
    }

    fn wants_commit(&self) -> bool {
        self.position != self.committed.offset
            || self.idle != self.committed.is_idle()
            || self.progress.closed_through() != self.committed.closed_through()
    }

    fn uncommitted_bytes(&self) -> usize {
        self.partials.bytes() + self.side.bytes()
    }

    fn stage(&mut self, producer: &mut dyn TransactionalProducer) -> Result<CommittedOffset, TaskError> {
        self.stage_partials(producer)?;
        self.side.send(producer)?;
        // After the partial aggregates: whoever reads the watermark has read them.
        if self.progress.closed_through() > self.committed.closed_through() {
            self.repartition.send_watermark(producer, self.input.partition, self.progress.closed_through())?;
        }
        let staged = self.committed.advanced(self.position, &self.progress, self.idle);
        let commit = staged.to_commit();
        self.staged = Some(staged);
        Ok(commit)
    }

    fn committed(&mut self, _: &Delivered) -> (RecordCounters, Result<(), TaskError>) {
        if let Some(staged) = self.staged.take() {
            self.committed = staged;
        }
        (self.side.take_counters(), Ok(()))
    }

    fn rollback(&mut self) -> Offset {
        self.partials.clear();
        self.side.take_counters();
        self.staged = None;
        self.progress = self.committed.progress(self.windows);
        self.idle = self.committed.is_idle();
        self.position = self.committed.offset;
        self.position
    }

    fn committed_time(&self) -> CommittedTime {
        self.committed.time()
    }

    fn fall_idle(&mut self, closed_through: Option<Timestamp>) {
        self.idle = true;
        if let Some(closed_through) = closed_through {
            self.progress.raise_closed_through(closed_through);
        }
    }

    fn position(&self) -> Offset {
        self.position
    }
}
