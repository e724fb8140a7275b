//! Draining: the repartition topics are counted to their end and emptied, while nothing new is read of the source topics. What the
//! group has committed there then stands for the counts alone, and another program may go on from it.

use super::context::StreamsError;
use super::instance::Instance;
use super::plan::Plan;
use super::registry::TaskStatus;
use crate::broker::{Broker, BrokerError, Isolation};
use crate::record::{Offset, Partition, TopicPartition};
use crate::task::TaskState;

/// How far a draining instance has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Draining {
    /// The partitions of all repartition topics.
    pub partitions: usize,
    /// Those that this instance counts.
    pub running: usize,
    /// Offsets before their ends that are not counted yet, as far as this instance counts them.
    pub remaining: u64,
    /// Those of which everything is committed and stored, final windows included.
    pub done: usize,
}

impl Draining {
    /// Whether everything is counted, by this instance.
    pub fn is_complete(&self) -> bool {
        self.done == self.partitions
    }
}

impl<B: Broker> Instance<B> {
    /// How far draining has come. Complete only where this instance counts every partition: where others do, it is theirs to say.
    ///
    /// # Errors
    /// Where the broker does not say where the repartition topics end.
    pub fn draining(&self) -> Result<Draining, BrokerError> {
        let inputs = self.repartitioned()?;
        // To the very end: a transaction that is still open there is waited for, whoever left it.
        let ranges = self.parts().broker.log_ranges(&inputs, Isolation::ReadUncommitted)?;
        let mut draining = Draining { partitions: inputs.len(), ..Draining::default() };
        let tasks = self.parts().registry.tasks();
        for (input, range) in inputs.iter().zip(ranges) {
            let is_running = |task: &&TaskStatus| task.state == TaskState::Running;
            let Some(task) = tasks.iter().filter(|task| task.inputs.contains(input)).find(is_running) else { continue };
            let Some(position) = task.committed else { continue };
            let remaining = (range.end.0 - position.0).max(0) as u64;
            draining.running += 1;
            draining.remaining += remaining;
            draining.done += usize::from(remaining == 0 && !task.is_pending);
        }
        Ok(draining)
    }

    /// Deletes what has been counted of the repartition topics, and leaves the group. Gives how far each partition was emptied.
    ///
    /// # Errors
    /// Where draining is not complete, or the records cannot be deleted.
    pub fn finish_draining(self) -> Result<Vec<(TopicPartition, Offset)>, StreamsError> {
        if !self.draining().map_err(StreamsError::new)?.is_complete() {
            return Err(StreamsError::new("the repartition topics are not counted to their end"));
        }
        let tasks = self.parts().registry.tasks();
        let position = |input: &TopicPartition| tasks.iter().find(|task| task.inputs.contains(input))?.committed;
        let inputs = self.repartitioned().map_err(StreamsError::new)?;
        let emptied: Vec<_> =
            inputs.into_iter().filter_map(|input| Some((position(&input)?, input))).map(|(end, input)| (input, end)).collect();
        for (input, end) in &emptied {
            self.parts().broker.delete_records(input, *end).map_err(StreamsError::new)?;
        }
        self.close()?;
        Ok(emptied)
    }

    /// Every partition of every repartition topic.
    fn repartitioned(&self) -> Result<Vec<TopicPartition>, BrokerError> {
        let plan = Plan::prepare(&self.parts().topology, &*self.parts().broker, &self.parts().config)?;
        let shuffled = plan.aggregates().filter_map(|(_, repartition, kept)| Some((repartition?, kept.partitions)));
        Ok(shuffled.flat_map(|(topic, count)| (0..count).map(|p| TopicPartition::new(topic.clone(), Partition(p)))).collect())
    }
}
