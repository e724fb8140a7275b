//! Source partitions on which nothing comes: they would hold every window open, so after a while they follow the others.

use super::open::{Phase, decode_metadata};
use super::plan::Kind;
use super::thread::StreamThread;
use crate::broker::{Broker, ErrorKind, Isolation};
use crate::record::{Partition, Timestamp, TopicPartition};
use crate::task::TaskError;
use crate::task::source::SourcePosition;

impl<B: Broker> StreamThread<B> {
    /// Finds the source partitions that have been idle for the time configured, and commits their advance at once: what comes
    /// later is judged by it, before and after a restart alike.
    pub(super) fn check_idle(&mut self) -> Result<(), TaskError> {
        let Some(timeout) = self.config.idle_timeout else { return Ok(()) };
        let (now, timeout_ms) = (self.clock.now(), timeout.as_millis() as i64);
        if (0..(timeout_ms / 4).max(1)).contains(&(now.0 - self.last_idle_check.0)) {
            return Ok(());
        }
        let silent = |slot: &super::thread::Slot<B>| {
            matches!(slot.phase, Phase::Running(_)) && now.0 - slot.last_record_at.0 >= timeout_ms
        };
        let inputs: Vec<_> = self.slots.iter().filter(|(_, slot)| silent(slot)).map(|(input, _)| input.clone()).collect();
        let mut fell_idle = false;
        for input in inputs {
            match self.fall_idle(&input) {
                Ok(fell) => fell_idle |= fell,
                // Nobody knows whether it is idle; that may not keep the thread's other partitions from their commit.
                Err(TaskError::Broker(error)) if error.kind() == ErrorKind::Retry => {
                    tracing::warn!(%input, %error, "whether the partition is idle is not known");
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        self.last_idle_check = self.clock.now();
        if fell_idle { self.commit() } else { Ok(()) }
    }

    fn fall_idle(&mut self, input: &TopicPartition) -> Result<bool, TaskError> {
        let Some(plan) = self.plan.clone() else { return Ok(false) };
        let Some((_, subtopology)) = plan.task(input) else { return Ok(false) };
        if !matches!(subtopology.kind, Kind::Source { .. } | Kind::Fused { .. }) {
            return Ok(false);
        }
        // Silence says nothing while the broker is away: only a fetch of the end that succeeds does.
        let end = self.broker.log_range(input, Isolation::ReadCommitted)?.end;
        let Some(Phase::Running(task)) = self.slots.get(input).map(|slot| &slot.phase) else { return Ok(false) };
        if task.position() < end {
            return Ok(false);
        }
        let others = self.others_closed_through(input)?;
        let Some(Phase::Running(task)) = self.slots.get_mut(input).map(|slot| &mut slot.phase) else { return Ok(false) };
        task.fall_idle(others);
        Ok(task.wants_commit())
    }

    /// The smallest closed_through among the other source partitions that are not idle and have one, as committed.
    fn others_closed_through(&self, input: &TopicPartition) -> Result<Option<Timestamp>, TaskError> {
        let Some(topic) = self.broker.describe_topic(&input.topic)? else { return Ok(None) };
        let others: Vec<_> = (0..topic.partitions)
            .map(|p| TopicPartition::new(input.topic.clone(), Partition(p)))
            .filter(|other| other != input)
            .collect();
        let mut smallest = None;
        for committed in self.broker.committed(&self.config.application_id, &others)?.into_iter().flatten() {
            let position = SourcePosition { offset: committed.offset, metadata: decode_metadata(&committed)? };
            let closed_through = position.closed_through();
            if !position.is_idle() && !position.is_joining() && closed_through.0 > 0 {
                smallest = Some(smallest.map_or(closed_through, |s: Timestamp| s.min(closed_through)));
            }
        }
        Ok(smallest)
    }
}
