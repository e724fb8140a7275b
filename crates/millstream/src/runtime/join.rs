//! How a source partition begins. Its records may not be counted before every aggregate task waits for its watermarks, or a
//! window could be closed without it:
//!
//! 1. Where an aggregate task does not know of the partition (the topic has grown), the source commits a first position and
//!    sends its first watermark, by which they learn of it.
//! 2. It waits until each has committed that it knows. From then on none closes a window before this partition does.
//! 3. It takes the largest closed_through that they have reached, commits it, and starts.
//!
//! A position that was set from outside (by Kafka Streams, whose place this engine takes, or by a reset) joins in the same way, from
//! where it is: until every aggregate task has begun, nothing may lie on the repartition topic.

use super::open::{Phase, counted_with, decode_metadata};
use super::plan::Kind;
use super::thread::StreamThread;
use crate::broker::{Broker, TransactionalProducer};
use crate::record::{Offset, Partition, Timestamp, TopicPartition};
use crate::task::TaskError;
use crate::task::aggregate::AggregatePosition;
use crate::task::source::{Repartition, SourcePosition};
use crate::topology::WindowedSpec;

/// A source partition that is not counted yet.
pub(super) struct Joining {
    position: SourcePosition,
    announced: bool,
    /// Others have set the position.
    foreign: bool,
}

impl Joining {
    /// A partition that has committed `position`, or begins at `start`. With the first position of its own it has announced itself.
    pub(super) fn new(position: Option<SourcePosition>, start: Offset, spec: &WindowedSpec) -> Self {
        let announced = position.as_ref().is_some_and(SourcePosition::is_joining);
        let foreign = position.is_some() && !announced;
        let first = || {
            let joining = SourcePosition::joining(start);
            SourcePosition { metadata: counted_with(joining.metadata, spec), ..joining }
        };
        Self { position: position.unwrap_or_else(first), announced, foreign }
    }
}

impl<B: Broker> StreamThread<B> {
    /// Takes the next of the steps, if it can be taken. Says whether it could.
    pub(super) fn advance_join(&mut self, input: &TopicPartition) -> Result<bool, TaskError> {
        let Some(plan) = self.plan.clone() else { return Ok(false) };
        let Some((_, subtopology)) = plan.task(input) else { return Ok(false) };
        let Kind::Source { repartition, .. } = &subtopology.kind else { return Ok(false) };
        let Some(aggregates) = self.aggregate_positions(repartition)? else { return Ok(false) };
        let Some(Phase::Joining(joining)) = self.slots.get(input).map(|slot| &slot.phase) else { return Ok(false) };
        let (position, announced, foreign) = (joining.position.clone(), joining.announced, joining.foreign);
        let source = input.partition;
        if !announced && aggregates.iter().any(|aggregate| aggregate.sources.have_heard(source)) {
            return match foreign {
                true => self.go_on_from_foreign(input, position),
                false => self.missing_position(input, &format!("{} has had watermarks of it", repartition.topic)).map(|()| false),
            };
        }
        if aggregates.iter().all(|aggregate| aggregate.sources.know(source)) {
            let reached = aggregates.iter().map(AggregatePosition::closed_through).max().unwrap_or_default();
            let joined = position.joined(reached);
            self.commit_join(input, repartition, reached, &joined)?;
            // It starts from what is committed, as after a restart.
            self.set_phase(input, Phase::Opening);
            return Ok(true);
        }
        if announced {
            return Ok(false);
        }
        let position = if foreign { position.announcing() } else { position };
        self.commit_join(input, repartition, Timestamp(0), &position)?;
        self.set_phase(input, Phase::Joining(Joining { position, announced: true, foreign: false }));
        Ok(true)
    }

    /// A partition that was counted before, by us, has a position that is not ours. Kafka Streams, which counts to the same changelog,
    /// says how far event time had come; whoever says nothing does not know what was counted.
    fn go_on_from_foreign(&mut self, input: &TopicPartition, position: SourcePosition) -> Result<bool, TaskError> {
        if position.metadata.stream_time.is_some() {
            return self.start_source(input, position).map(|()| true);
        }
        Err(TaskError::Stop(format!(
            "the committed offset {} of {input} was set from outside while the counts made from that partition are kept: going on would \
             count records twice or leave some out; reset the application to the offset or time that is wanted (clickmill reset)",
            position.offset
        )))
    }

    /// What the aggregate tasks have committed; none where one has not committed anything yet.
    fn aggregate_positions(&self, repartition: &Repartition) -> Result<Option<Vec<AggregatePosition>>, TaskError> {
        let partition = |p| TopicPartition::new(repartition.topic.clone(), Partition(p));
        let inputs: Vec<_> = (0..repartition.partitions).map(partition).collect();
        let committed = self.broker.committed(&self.config.application_id, &inputs)?;
        let position = |committed: Option<_>| committed.map(|c| AggregatePosition::new(Offset::ZERO, decode_metadata(&c)?));
        committed.into_iter().map(position).collect::<Option<Result<Vec<_>, _>>>().transpose()
    }

    fn commit_join(
        &mut self,
        input: &TopicPartition,
        repartition: &Repartition,
        closed_through: Timestamp,
        position: &SourcePosition,
    ) -> Result<(), TaskError> {
        // What the thread's other tasks have under way goes first: a transaction is all of its own.
        self.commit()?;
        let commit = vec![(input.clone(), position.to_commit())];
        self.transact(|producer: &mut dyn TransactionalProducer| {
            repartition.send_watermark(producer, input.partition, closed_through)?;
            Ok(commit)
        })?;
        Ok(())
    }
}
