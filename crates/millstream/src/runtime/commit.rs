//! Commits: one transaction for everything that the thread's tasks have done.

use super::open::Phase;
use super::thread::StreamThread;
use crate::broker::{Broker, BrokerError, CommittedOffset, Consumer, Delivered, ErrorKind, TransactionalProducer};
use crate::record::TopicPartition;
use crate::task::TaskError;

type Offsets = Vec<(TopicPartition, CommittedOffset)>;

impl<B: Broker> StreamThread<B> {
    /// Commits the work of all tasks that have any, and lets the stores take it.
    pub(super) fn commit(&mut self) -> Result<(), TaskError> {
        self.last_commit = self.clock.now();
        // A store that is behind its task's last commit would give rows that are too small.
        if !self.settle()? {
            return Ok(());
        }
        let inputs = self.tasks_to_commit();
        if inputs.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.check_commits_last() {
            self.rollback()?;
            return Err(error);
        }
        self.observer.commit_begins();
        let mut slots = std::mem::take(&mut self.slots);
        let mut staging = None;
        let delivered = self.transact(|producer| {
            let mut offsets = Vec::with_capacity(inputs.len());
            for input in &inputs {
                staging = Some(input);
                if let Some(Phase::Running(task)) = slots.get_mut(input).map(|slot| &mut slot.phase) {
                    offsets.push((input.clone(), task.stage(producer)?));
                }
            }
            Ok(offsets)
        });
        self.slots = slots;
        self.observer.commit_ends(delivered.is_ok());
        match delivered {
            Ok(delivered) => self.committed(&inputs, &delivered),
            Err(error) => {
                // What was staged is gone from the tasks' tables, so they go back; unless the tasks themselves are to go.
                let tasks_go = |e: &BrokerError| matches!(e.kind(), ErrorKind::Fenced | ErrorKind::OutcomeUnknown);
                if !matches!(&error, TaskError::Broker(e) if tasks_go(e)) {
                    self.rollback()?;
                }
                match error {
                    TaskError::Store(_) => self.recover(staging, error).map_err(|error| TaskError::Stop(error.to_string())),
                    _ => Err(error),
                }
            }
        }
    }

    fn tasks_to_commit(&self) -> Vec<TopicPartition> {
        let wants = self.slots.iter().filter(|(_, slot)| matches!(&slot.phase, Phase::Running(task) if task.wants_commit()));
        wants.map(|(input, _)| input.clone()).collect()
    }

    /// Runs one transaction: what `stage` sends, and the offsets that it gives.
    pub(super) fn transact(
        &mut self,
        stage: impl FnOnce(&mut dyn TransactionalProducer) -> Result<Offsets, TaskError>,
    ) -> Result<Delivered, TaskError> {
        let refused = |kind, reason| TaskError::Broker(BrokerError::new(kind, reason));
        let no_member = || refused(ErrorKind::Fenced, "the thread is no member of its group");
        let no_producer = || refused(ErrorKind::Retry, "the thread has no producer for now");
        let group = self.group.clone().ok_or_else(no_member)?;
        let producer = self.producer.as_mut().ok_or_else(no_producer)?;
        producer.begin()?;
        let outcome = stage(producer).and_then(|offsets| {
            producer.send_offsets(&group, &offsets)?;
            Ok(producer.commit()?)
        });
        let is_unknown = |e: &TaskError| matches!(e, TaskError::Broker(e) if e.kind() == ErrorKind::OutcomeUnknown);
        self.is_in_doubt |= outcome.is_err();
        // Where the abort fails too, the producer is of no use: the next one ends what this one has begun.
        if outcome.as_ref().is_err_and(|error| !is_unknown(error)) && producer.abort().is_err() {
            self.producer = None;
        }
        outcome
    }

    fn committed(&mut self, inputs: &[TopicPartition], delivered: &Delivered) -> Result<(), TaskError> {
        let mut outcomes = Vec::with_capacity(inputs.len());
        for input in inputs {
            let Some(slot) = self.slots.get_mut(input) else { continue };
            let Phase::Running(task) = &mut slot.phase else { continue };
            let (records, applied) = task.committed(delivered);
            self.trims.extend(task.take_trims());
            self.registry.count(&records);
            self.registry.put_committed(input, task.position());
            outcomes.push((input, applied));
        }
        // Only now: what a damaged store asks for takes all tasks back to their last commit, and this is it.
        outcomes.into_iter().try_for_each(|(input, applied)| self.settled(input, applied))
    }

    /// Deletes, now and then, what nobody needs any more. That it cannot be done now does no harm.
    pub(super) fn purge(&mut self) {
        let now = self.clock.now();
        // A clock that was set back is no reason to wait until it has caught up.
        if (0..self.config.purge_interval.as_millis() as i64).contains(&(now.0 - self.last_purge.0)) {
            return;
        }
        self.last_purge = now;
        while let Some((partition, before)) = self.trims.pop_first() {
            if let Err(error) = self.broker.delete_records(&partition, before) {
                tracing::debug!(%partition, %before, %error, "records that are no longer needed could not be deleted");
                if error.kind() == ErrorKind::Retry {
                    // The others would most likely keep the thread waiting as long. Whatever is committed next trims further.
                    break;
                }
            }
        }
    }

    /// Takes every running task back to its last commit.
    pub(super) fn rollback(&mut self) -> Result<(), TaskError> {
        let Some(consumer) = &mut self.consumer else { return Ok(()) };
        let mut not_rewound = Vec::new();
        for (input, slot) in &mut self.slots {
            if let Phase::Running(task) = &mut slot.phase {
                let position = task.rollback();
                slot.is_held = false;
                if let Err(error) = consumer.start(input, position) {
                    tracing::warn!(%input, %error, "the position could not be rewound: the task starts again");
                    not_rewound.push(input.clone());
                }
            }
        }
        not_rewound.iter().try_for_each(|input| self.reopen(input))
    }
}
