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

use super::context::Parts;
use super::plan::Kind;
use super::positions::{Marks, decode_metadata, missing_position};
use super::transactor::Transactor;
use crate::broker::{Broker, Fence};
use crate::record::{Offset, Partition, Timestamp, TopicPartition};
use crate::task::TaskError;
use crate::task::input::{AggregatePosition, SourcePosition};
use crate::task::output::Repartition;

/// So often a join that cannot go on looks again at once: most often the aggregate tasks are about to begin.
const LOOKS_AT_ONCE: u32 = 8;

/// How long it waits from then on, in milliseconds: at first, and at most.
const SHORTEST_PAUSE_MS: i64 = 20;
const LONGEST_PAUSE_MS: i64 = 1_000;

/// A source partition that is not counted yet.
pub(super) struct Joining {
    position: SourcePosition,
    announced: bool,
    /// Others have set the position.
    foreign: bool,
    /// How often in a row it has had to wait.
    waited: u32,
}

impl Joining {
    /// A partition that has committed `position`, or begins at `start`. With the first position of its own it has announced itself.
    pub(super) fn new(position: Option<SourcePosition>, start: Offset, marks: Marks) -> Self {
        let announced = position.as_ref().is_some_and(SourcePosition::is_joining);
        let foreign = position.is_some() && !announced;
        let first = || {
            let joining = SourcePosition::joining(start);
            SourcePosition { metadata: marks.put(joining.metadata), ..joining }
        };
        Self { position: position.unwrap_or_else(first), announced, foreign, waited: 0 }
    }

    /// How long it waits before it asks again: each asks for the positions of all aggregate tasks.
    pub(super) fn pause_ms(&mut self) -> i64 {
        self.waited += 1;
        let doublings = self.waited.checked_sub(LOOKS_AT_ONCE);
        doublings.map_or(0, |doublings| (SHORTEST_PAUSE_MS << doublings.min(10)).min(LONGEST_PAUSE_MS))
    }
}

/// How a step of a join has ended.
pub(super) enum Joined {
    /// It cannot be taken yet.
    Not,
    /// The partition has announced itself.
    Announced,
    /// It goes on from what is committed.
    Committed,
    /// It goes on from the position that others have set.
    From(SourcePosition),
}

impl Joining {
    /// Takes the next of the steps, if it can be taken. What it commits is a transaction of its own, under `fence`.
    pub(super) fn advance<B: Broker>(
        &mut self,
        parts: &Parts<B>,
        input: &TopicPartition,
        kind: &Kind,
        fence: &Fence,
        transactor: &mut Transactor<B>,
    ) -> Result<Joined, TaskError> {
        let Kind::Source { repartition, .. } = kind else {
            return Err(TaskError::Halt(format!("{input} is to join and is no source")));
        };
        let Some(aggregates) = aggregate_positions(parts, repartition)? else { return Ok(Joined::Not) };
        let source = input.partition;
        if !self.announced && aggregates.iter().any(|aggregate| aggregate.sources.have_heard(source)) {
            return match self.foreign {
                true => go_on_from_foreign(input, &self.position).map(Joined::From),
                false => Err(missing_position(parts, input, &format!("{} has had watermarks of it", repartition.topic))),
            };
        }
        let mut commit = |closed_through, position: &SourcePosition| {
            transactor.transact(fence, |producer| {
                repartition.send_watermark(producer, source, closed_through)?;
                Ok(vec![(input.clone(), position.to_commit())])
            })
        };
        if aggregates.iter().all(|aggregate| aggregate.sources.know(source)) {
            let reached = aggregates.iter().map(AggregatePosition::closed_through).max().unwrap_or_default();
            commit(reached, &self.position.joined(reached))?;
            // It starts from what is committed, as after a restart.
            return Ok(Joined::Committed);
        }
        if self.announced {
            return Ok(Joined::Not);
        }
        let position = if self.foreign { self.position.clone().announcing() } else { self.position.clone() };
        commit(Timestamp(0), &position)?;
        *self = Self { position, announced: true, foreign: false, waited: 0 };
        Ok(Joined::Announced)
    }
}

/// A partition that was counted before, by us, has a position that is not ours. Kafka Streams, which counts to the same changelog,
/// says how far event time had come; whoever says nothing does not know what was counted.
fn go_on_from_foreign(input: &TopicPartition, position: &SourcePosition) -> Result<SourcePosition, TaskError> {
    if position.metadata.stream_time.is_some() {
        return Ok(position.clone());
    }
    Err(TaskError::Stop(format!(
        "the committed offset {} of {input} was set from outside while the counts made from that partition are kept: going on would \
         count records twice or leave some out; reset the application to the offset or time that is wanted (clickmill reset)",
        position.offset
    )))
}

/// What the aggregate tasks have committed; none where one has not committed anything yet.
fn aggregate_positions<B: Broker>(
    parts: &Parts<B>,
    repartition: &Repartition,
) -> Result<Option<Vec<AggregatePosition>>, TaskError> {
    let partition = |p| TopicPartition::new(repartition.topic.clone(), Partition(p));
    let inputs: Vec<_> = (0..repartition.partitions).map(partition).collect();
    let position = |committed: Option<_>| committed.map(|c| AggregatePosition::new(Offset::ZERO, decode_metadata(&c)?));
    parts.committed(&inputs)?.into_iter().map(position).collect::<Option<Result<Vec<_>, _>>>().transpose()
}
