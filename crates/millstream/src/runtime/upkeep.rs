use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::context::{Parts, Stepped};
use super::handover::{Handover, Idle};
use super::positions::decode_metadata;
use crate::broker::{Broker, BrokerError, ErrorKind, Isolation};
use crate::record::{Partition, Timestamp, Topic, TopicPartition};
use crate::task::TaskError;
use crate::task::input::SourcePosition;

/// What an instance does now and then and no thread may wait for: it deletes records that nobody needs any more, and finds out which
/// silent source partitions have come to their end.
pub struct Upkeep<B: Broker> {
    parts: Arc<Parts<B>>,
    handover: Arc<Handover<B>>,
    last_purge: Timestamp,
}

impl<B: Broker> Upkeep<B> {
    pub(super) fn new(parts: Arc<Parts<B>>, handover: Arc<Handover<B>>) -> Self {
        let last_purge = parts.now();
        Self { parts, handover, last_purge }
    }

    /// Does what is due; waits for something to become due at most `max_wait`. Nothing that fails here does harm: it is due again.
    pub fn step(&mut self, max_wait: Duration) -> Stepped {
        let version = self.handover.version();
        self.purge();
        let silent = self.handover.take_silent();
        // Where it fails nobody knows whether they are idle; the threads ask again.
        if let Err(error) = self.answer(&silent) {
            tracing::debug!(%error, "which partitions are idle is not known");
        }
        if silent.is_empty() {
            self.handover.wait(version, max_wait);
        }
        Stepped::Idle
    }

    /// Deletes what nobody needs any more. That it cannot be done now does no harm.
    fn purge(&mut self) {
        if self.parts.is_before(self.last_purge, self.parts.config.purge_interval.as_millis() as i64) {
            return;
        }
        self.last_purge = self.parts.now();
        while let Some(trim) = self.handover.take_trim() {
            // The store stands for the records only once they are on its disk.
            let flushed = trim.flush.as_ref().map(|store| store.upgrade().map(|store| store.flush()));
            match flushed {
                None | Some(Some(Ok(()))) => {}
                Some(None) => continue,
                Some(Some(Err(error))) => {
                    tracing::debug!(log = %trim.log, %error, "what the changelog holds could not be flushed, and is kept");
                    continue;
                }
            }
            if let Err(error) = self.parts.broker.delete_records(&trim.log, trim.before) {
                tracing::debug!(log = %trim.log, before = %trim.before, %error, "records that are no longer needed could not be deleted");
                if error.kind() == ErrorKind::Retry {
                    // The others would most likely take as long. Whatever is committed next trims further.
                    break;
                }
            }
        }
    }

    /// Finds out where the logs of silent partitions end, and how far the others of their topics have closed.
    fn answer(&self, silent: &BTreeSet<TopicPartition>) -> Result<(), TaskError> {
        let topics: BTreeSet<_> = silent.iter().map(|input| input.topic.clone()).collect();
        for topic in topics {
            let silent: Vec<_> = silent.iter().filter(|input| input.topic == topic).cloned().collect();
            // Silence says nothing while the broker is away: only ends that it has told do.
            let asked_at = self.parts.now();
            // To the very end: what lies behind another producer's open transaction is yet to come, and must not be late then.
            let ranges = self.parts.broker.log_ranges(&silent, Isolation::ReadUncommitted)?;
            let closed = self.closed_by_others(&topic)?;
            let others =
                |input: &TopicPartition| closed.iter().filter(|(other, _)| *other != input).map(|(_, closed)| *closed).min();
            let answers = silent
                .iter()
                .zip(ranges)
                .map(|(input, range)| (input.clone(), Idle { asked_at, end: range.end, others: others(input) }));
            self.handover.put_idle(answers.collect::<Vec<_>>());
        }
        Ok(())
    }

    /// How far the partitions of a source topic that are not idle have closed, as committed.
    fn closed_by_others(&self, topic: &Topic) -> Result<BTreeMap<TopicPartition, Timestamp>, TaskError> {
        let described = self.parts.broker.describe_topic(topic)?.ok_or_else(|| BrokerError::unknown_topic(topic))?;
        let all: Vec<_> = (0..described.partitions).map(|p| TopicPartition::new(topic.clone(), Partition(p))).collect();
        let mut closed = BTreeMap::new();
        for (input, committed) in all.iter().zip(self.parts.committed(&all)?) {
            let Some(committed) = committed else { continue };
            let position = SourcePosition { offset: committed.offset, metadata: decode_metadata(&committed)? };
            let closed_through = position.closed_through();
            if !position.is_idle() && !position.is_joining() && closed_through.0 > 0 {
                closed.insert(input.clone(), closed_through);
            }
        }
        Ok(closed)
    }
}
