//! Creating topics, making them larger, deleting from their heads.

use std::time::Duration;

use super::super::{BrokerError, ErrorKind, TopicSettings};
use super::entries;
use super::state::TopicState;
use super::storage::{LogStorage, LogWrite};
use super::writer::Writer;
use super::{LocalBroker, Shared, lock};
use crate::record::{Offset, Topic, TopicPartition};

impl<S: LogStorage> LocalBroker<S> {
    /// Makes a topic larger, up to that number of partitions. Groups that consume it share the partitions anew.
    ///
    /// # Errors
    /// [`ErrorKind::Stop`] where there is no such topic or it has more partitions already.
    pub fn add_partitions(&self, topic: &str, partitions: u32) -> Result<(), BrokerError> {
        let mut writer = lock(&self.shared.writer);
        let known = lock(&self.shared.state).topics.get(topic).cloned().ok_or_else(|| BrokerError::unknown_topic(topic))?;
        let has = known.settings.partitions;
        if partitions < has {
            let message = format!("topic {topic} has {has} partitions, and cannot have {partitions}: none can be taken away");
            return Err(BrokerError::new(ErrorKind::Stop, message));
        }
        let larger = TopicState { settings: TopicSettings { partitions, ..known.settings }, ..known };
        self.shared.store_topic(&mut writer, &topic.into(), larger)
    }

    /// Changes how long, and how much of, a topic is kept. What falls out of the new limits goes with the next maintenance.
    ///
    /// # Errors
    /// [`ErrorKind::Stop`] where there is no such topic, [`ErrorKind::Retry`] where there is no room.
    pub fn set_retention(
        &self,
        topic: &str,
        retention: Option<Duration>,
        retention_bytes: Option<u64>,
    ) -> Result<(), BrokerError> {
        let mut writer = lock(&self.shared.writer);
        let known = lock(&self.shared.state).topics.get(topic).cloned().ok_or_else(|| BrokerError::unknown_topic(topic))?;
        let settings = TopicSettings { retention, retention_bytes, ..known.settings.clone() };
        if settings == known.settings {
            return Ok(());
        }
        self.shared.store_topic(&mut writer, &topic.into(), TopicState { settings, ..known })
    }
}

impl<S: LogStorage> Shared<S> {
    pub(super) fn create_topic(&self, topic: &str, settings: &TopicSettings) -> Result<(), BrokerError> {
        let refuse = |reason: String| Err(BrokerError::new(ErrorKind::Stop, format!("topic {topic} {reason}")));
        if settings.partitions == 0 || topic.is_empty() {
            return refuse("needs a name and at least one partition".to_owned());
        }
        let mut writer = lock(&self.writer);
        let number = {
            let state = lock(&self.state);
            match state.topics.get(topic) {
                Some(known) if known.settings.partitions == settings.partitions => return Ok(()),
                Some(known) => {
                    let (has, wanted) = (known.settings.partitions, settings.partitions);
                    return refuse(format!("exists with {has} partitions, and was to have {wanted}"));
                }
                None => state.next_topic_number(),
            }
        };
        self.store_topic(&mut writer, &topic.into(), TopicState { number, settings: settings.clone() })
    }

    fn store_topic(&self, writer: &mut Writer, name: &Topic, topic: TopicState) -> Result<(), BrokerError> {
        let mut write = LogWrite::default();
        write.put_entry(entries::topic_key(name), entries::encode_topic(topic.number, &topic.settings));
        let mut undo = LogWrite::default();
        match lock(&self.state).topics.get(name) {
            Some(before) => undo.put_entry(entries::topic_key(name), entries::encode_topic(before.number, &before.settings)),
            None => undo.remove_entry(entries::topic_key(name)),
        }
        writer.write(&self.storage, write, undo)?;
        lock(&self.state).add_topic(name, topic);
        self.changed.notify_all();
        Ok(())
    }

    /// Moves the start of a log on. The move is stored by the next write, whatever that is for: a crash before it brings the
    /// records back, which Kafka allows itself too.
    pub(super) fn delete_records(&self, partition: &TopicPartition, before: Offset) -> Result<(), BrokerError> {
        let mut writer = lock(&self.writer);
        let mut state = lock(&self.state);
        let log = state.log_mut(partition)?;
        writer.move_start(log, before);
        self.changed.notify_all();
        Ok(())
    }
}
