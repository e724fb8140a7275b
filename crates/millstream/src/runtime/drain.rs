//! Draining: the repartition topics are counted to their end and emptied, while nothing new is read of the source topics. What the
//! group has committed there then stands for the counts alone, and another program may go on from it.

use super::open::Phase;
use super::plan::Kind;
use super::thread::{StreamThread, StreamsError};
use crate::broker::{Broker, BrokerError, Isolation};
use crate::record::{Offset, Partition, TopicPartition};

/// How far a draining thread has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Draining {
    /// The partitions of all repartition topics.
    pub partitions: usize,
    /// Those that this thread counts.
    pub running: usize,
    /// Offsets before their ends that are not counted yet, as far as this thread counts them.
    pub remaining: u64,
    /// Those of which everything is committed and stored, final windows included.
    pub done: usize,
}

impl Draining {
    /// Whether everything is counted, by this thread.
    pub fn is_complete(&self) -> bool {
        self.done == self.partitions
    }
}

impl<B: Broker> StreamThread<B> {
    /// Whether draining leaves the task of that partition as it is.
    pub(super) fn is_left_alone(&self, input: &TopicPartition) -> bool {
        let kind = self.plan.as_ref().and_then(|plan| Some(&plan.task(input)?.1.kind));
        self.config.drain && !matches!(kind, Some(Kind::Aggregate { .. }))
    }

    /// How far draining has come. Complete only where this thread counts every partition: where others do, it is theirs to say.
    ///
    /// # Errors
    /// Where the broker does not say where the repartition topics end.
    pub fn draining(&self) -> Result<Option<Draining>, BrokerError> {
        if self.plan.is_none() {
            return Ok(None);
        }
        let inputs = self.repartitioned();
        // To the very end: a transaction that is still open there is waited for, whoever left it.
        let ranges = self.broker.log_ranges(&inputs, Isolation::ReadUncommitted)?;
        let mut draining = Draining { partitions: inputs.len(), ..Draining::default() };
        for (input, range) in inputs.iter().zip(ranges) {
            let Some(Phase::Running(task)) = self.slots.get(input).map(|slot| &slot.phase) else { continue };
            let remaining = (range.end.0 - task.position().0).max(0) as u64;
            draining.running += 1;
            draining.remaining += remaining;
            draining.done += usize::from(remaining == 0 && !task.wants_commit() && !task.is_unsettled());
        }
        Ok(Some(draining))
    }

    /// Deletes what has been counted of the repartition topics, and leaves the group. Gives how far each partition was emptied.
    ///
    /// # Errors
    /// Where draining is not complete, or the records cannot be deleted.
    pub fn finish_draining(self) -> Result<Vec<(TopicPartition, Offset)>, StreamsError> {
        let draining = self.draining().map_err(StreamsError::new)?;
        if !draining.is_some_and(|draining| draining.is_complete()) {
            return Err(StreamsError::new("the repartition topics are not counted to their end"));
        }
        let position = |input: TopicPartition| match &self.slots.get(&input)?.phase {
            Phase::Running(task) => Some((task.position(), input)),
            _ => None,
        };
        let emptied: Vec<_> = self.repartitioned().into_iter().filter_map(position).map(|(end, input)| (input, end)).collect();
        for (input, end) in &emptied {
            self.broker.delete_records(input, *end).map_err(StreamsError::new)?;
        }
        self.close()?;
        Ok(emptied)
    }

    /// Every partition of every repartition topic.
    fn repartitioned(&self) -> Vec<TopicPartition> {
        let aggregates = self.plan.iter().flat_map(|plan| plan.aggregates());
        let shuffled = aggregates.filter_map(|(_, repartition, kept)| Some((repartition?, kept.partitions)));
        shuffled.flat_map(|(topic, count)| (0..count).map(|p| TopicPartition::new(topic.clone(), Partition(p)))).collect()
    }
}
