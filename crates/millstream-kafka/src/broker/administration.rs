//! What an operator's commands ask of a cluster beside what the engine does: settings of topics, members and positions of groups.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use millstream::broker::{Broker, BrokerError, CommittedOffset, ErrorKind, Isolation, TopicSettings};
use millstream::record::{Offset, Timestamp, TopicPartition};
use rdkafka::error::RDKafkaErrorCode as Code;

use super::{KafkaBroker, PATIENCE};
use crate::ffi::{At, NewTopic};
use crate::partitions::list_of_positions;
use crate::settings::{topic_settings, wordings};

/// A member of a consumer group, as the cluster knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMember {
    /// The id that the group's coordinator gave it.
    pub id: String,
    /// The name that its client gave itself.
    pub client_id: String,
    /// Where it connects from.
    pub host: String,
}

impl KafkaBroker {
    /// What a topic of these settings is created with, by Kafka's names.
    pub fn settings_of(settings: &TopicSettings) -> Vec<(String, String)> {
        topic_settings(settings)
    }

    /// The settings of a topic in effect by Kafka's names, the brokers' defaults included.
    ///
    /// # Errors
    /// Where there is no such topic, or this user may not see it.
    pub fn topic_config(&self, topic: &str) -> Result<BTreeMap<String, String>, BrokerError> {
        self.ask(PATIENCE, "reading the settings of topic", topic, |admin| admin.topic_config(topic))
    }

    /// Sets some of a topic's settings by Kafka's names and leaves the others as they are.
    ///
    /// # Errors
    /// Where there is no such topic, the brokers know no such setting, or this user may not change it.
    pub fn alter_topic_config(&self, topic: &str, settings: &[(&str, String)]) -> Result<(), BrokerError> {
        self.ask(PATIENCE, "changing the settings of topic", topic, |admin| admin.alter_topic_config(topic, settings))
    }

    /// Creates a topic with settings by Kafka's names, and waits until it can be used. One that exists is left as it is.
    ///
    /// # Errors
    /// Where it cannot be created.
    pub fn create_topic_with(&self, topic: &str, partitions: u32, settings: &[(String, String)]) -> Result<(), BrokerError> {
        let is_new = self.create(topic, partitions, settings)?;
        self.wait_for_topic(topic, if is_new { partitions } else { 1 }).map(drop)
    }

    /// Creates a topic, with the settings in the words that the brokers know. Says whether there was none.
    pub(super) fn create(&self, topic: &str, partitions: u32, settings: &[(String, String)]) -> Result<bool, BrokerError> {
        let (partitions, replication) = (partitions.try_into().unwrap_or(i32::MAX), self.shared.config.replication());
        let wordings = wordings(settings);
        self.ask(PATIENCE, "creating topic", topic, |admin| {
            let mut refusals = Vec::new();
            for settings in &wordings {
                match admin.create_topic(&NewTopic { name: topic, partitions, replication, settings }) {
                    Err(failure) if failure.code == Code::InvalidConfig => refusals.push(failure),
                    Err(failure) if failure.code == Code::TopicAlreadyExists => return Ok(false),
                    outcome => return outcome.map(|()| true),
                }
            }
            // What is wrong with the words of today: or with the only ones.
            let today = usize::from(refusals.len() > 1);
            Err(refusals.swap_remove(today))
        })
    }

    /// Deletes a topic with all its records, and waits until it is gone. One that is not there is no error.
    ///
    /// # Errors
    /// Where this user may not delete it, or the brokers do not let topics be deleted.
    pub fn delete_topic(&self, topic: &str) -> Result<(), BrokerError> {
        self.ask(PATIENCE, "deleting topic", topic, |admin| admin.delete_topic(topic))?;
        let began = Instant::now();
        while self.describe_topic(topic)?.is_some() {
            if began.elapsed() > PATIENCE {
                let message = format!("topic {topic} was deleted, but the brokers still know it: try again");
                return Err(BrokerError::new(ErrorKind::Retry, message));
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The members of a group at this moment; none where there is no such group.
    ///
    /// # Errors
    /// Where the group cannot be described.
    pub fn group_members(&self, group: &str) -> Result<Vec<GroupMember>, BrokerError> {
        let members = self.ask(PATIENCE, "listing the members of group", group, |admin| admin.members(group))?;
        let member = |member: crate::ffi::Member| GroupMember { id: member.id, client_id: member.client_id, host: member.host };
        Ok(members.into_iter().map(member).collect())
    }

    /// Sets positions, with their metadata, that a group without members has committed; its others stay.
    ///
    /// # Errors
    /// Where the group has members, or this user may not.
    pub fn set_committed(&self, group: &str, positions: &[(TopicPartition, CommittedOffset)]) -> Result<(), BrokerError> {
        if positions.is_empty() {
            return Ok(());
        }
        let list = list_of_positions(positions)?;
        self.ask(PATIENCE, "setting the committed positions of group", group, |admin| admin.set_committed(group, &list))
    }

    /// Deletes a group without members, and with it every position that it has committed. One that is not there is no error.
    ///
    /// # Errors
    /// Where the group has members, or this user may not.
    pub fn delete_group(&self, group: &str) -> Result<(), BrokerError> {
        self.ask(PATIENCE, "deleting group", group, |admin| admin.delete_group(group))
    }

    /// The offset of the first record with this timestamp or a later one, in the order asked; none where there is no such record.
    ///
    /// # Errors
    /// Where a partition does not exist or cannot be asked about.
    pub fn offsets_for_time(&self, partitions: &[TopicPartition], time: Timestamp) -> Result<Vec<Option<Offset>>, BrokerError> {
        self.offsets(partitions, At::Time(time.0), Isolation::ReadCommitted)
    }
}
