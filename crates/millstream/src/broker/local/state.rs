//! What the broker keeps in memory: topics, logs, groups, producers. Loaded when it opens, changed only by what was stored.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::super::{BrokerError, ErrorKind, TopicSettings};
use super::entries;
use super::group::Group;
use super::in_flight::OpenTransactions;
use super::log::Log;
use super::storage::{LogId, LogStorage};
use crate::record::{Partition, Topic, TopicPartition};

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) topics: BTreeMap<Topic, TopicState>,
    pub(super) logs: BTreeMap<TopicPartition, Log>,
    pub(super) groups: BTreeMap<Arc<str>, Group>,
    /// The epoch of each transactional id. Not stored: a producer does not outlive the process.
    pub(super) producers: BTreeMap<Arc<str>, u64>,
    pub(super) open: OpenTransactions,
}

#[derive(Debug, Clone)]
pub(super) struct TopicState {
    pub(super) number: u32,
    pub(super) settings: TopicSettings,
}

impl State {
    /// Everything as it is stored.
    pub(super) fn load(storage: &impl LogStorage) -> Result<Self, BrokerError> {
        let mut state = State::default();
        visit_family(storage, b't', |key, value| {
            let (name, number, settings) = entries::decode_topic(key, value)?;
            state.add_topic(&name.into(), TopicState { number, settings });
            Some(())
        })?;
        let names: BTreeMap<LogId, TopicPartition> = state.logs.iter().map(|(name, log)| (log.id, name.clone())).collect();
        visit_family(storage, b'l', |key, value| {
            let (id, start) = entries::decode_log_start(key, value)?;
            let log = state.logs.get_mut(names.get(&id)?)?;
            (log.start, log.end) = (start, start);
            Some(())
        })?;
        visit_family(storage, b's', |key, value| {
            let (id, segment) = entries::decode_segment(key, value)?;
            state.logs.get_mut(names.get(&id)?)?.restore_segment(segment);
            Some(())
        })?;
        visit_family(storage, b'o', |key, value| {
            let (group, id, committed) = entries::decode_offset(key, value)?;
            state.group(&group).offsets.insert(names.get(&id)?.clone(), committed);
            Some(())
        })?;
        Ok(state)
    }

    /// Adds a topic, or the partitions that it has gained.
    pub(super) fn add_topic(&mut self, name: &Topic, topic: TopicState) {
        for partition in (0..topic.settings.partitions).map(Partition) {
            let id = LogId { topic: topic.number, partition };
            self.logs.entry(TopicPartition::new(name.clone(), partition)).or_insert_with(|| Log::new(id));
        }
        self.topics.insert(name.clone(), topic);
    }

    pub(super) fn next_topic_number(&self) -> u32 {
        self.topics.values().map(|topic| topic.number + 1).max().unwrap_or(0)
    }

    pub(super) fn group(&mut self, name: &str) -> &mut Group {
        self.groups.entry(name.into()).or_default()
    }

    pub(super) fn log(&self, partition: &TopicPartition) -> Result<&Log, BrokerError> {
        self.logs.get(partition).ok_or_else(|| self.missing(partition))
    }

    pub(super) fn log_mut(&mut self, partition: &TopicPartition) -> Result<&mut Log, BrokerError> {
        if !self.logs.contains_key(partition) {
            return Err(self.missing(partition));
        }
        self.logs.get_mut(partition).ok_or_else(|| BrokerError::unknown_topic(&partition.topic))
    }

    /// Whether that is still the producer of its transactional id.
    pub(super) fn check_producer(&self, id: &Arc<str>, epoch: u64) -> Result<(), BrokerError> {
        if self.producers.get(id) == Some(&epoch) {
            return Ok(());
        }
        Err(BrokerError::new(ErrorKind::Fenced, format!("a newer producer of transactional id {id} has taken over")))
    }

    fn missing(&self, partition: &TopicPartition) -> BrokerError {
        match self.topics.contains_key(&partition.topic) {
            true => BrokerError::unknown_partition(&partition.topic, partition.partition),
            false => BrokerError::unknown_topic(&partition.topic),
        }
    }
}

/// Calls `take` for every entry of a family; none from it means that the entry makes no sense.
fn visit_family(storage: &impl LogStorage, tag: u8, mut take: impl FnMut(&[u8], &[u8]) -> Option<()>) -> Result<(), BrokerError> {
    let (from, to) = entries::family(tag);
    let mut senseless = None;
    storage.entries(&from, &to, &mut |key, value| match take(key, value) {
        Some(()) => ControlFlow::Continue(()),
        None => {
            senseless = Some(key.to_vec());
            ControlFlow::Break(())
        }
    })?;
    match senseless {
        None => Ok(()),
        Some(key) => {
            let message = format!("the broker's log cannot be read: entry {} makes no sense", key.escape_ascii());
            Err(BrokerError::new(ErrorKind::Stop, message))
        }
    }
}
