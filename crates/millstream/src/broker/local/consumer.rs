//! A member of a consumer group.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use super::super::{BrokerError, Consumer, ErrorKind, FetchedBatch, GroupMetadata, Polled};
use super::assignment::MemberId;
use super::fetch::{LocalBatch, fetch, out_of_range};
use super::group::{MemberEvent, member_name};
use super::state::State;
use super::storage::{LogId, LogStorage};
use super::{LocalBroker, Shared, lock};
use crate::record::{Offset, Topic, TopicPartition};

/// A member of a consumer group of a [`LocalBroker`]. Dropping it leaves the group.
#[derive(Debug)]
pub struct LocalConsumer<S: LogStorage> {
    shared: Arc<Shared<S>>,
    group: Arc<str>,
    topics: Vec<Topic>,
    /// None after the membership was lost or left.
    member: Option<MemberId>,
    left: bool,
    /// The positions of the partitions that are fetched.
    fetching: BTreeMap<TopicPartition, Offset>,
    /// The partition fetched last: the next one in order has its turn.
    latest: Option<TopicPartition>,
}

/// What a poll is to fetch.
struct Fetch {
    partition: TopicPartition,
    log: LogId,
    from: Offset,
    before: Offset,
}

impl<S: LogStorage> LocalConsumer<S> {
    pub(super) fn join(shared: Arc<Shared<S>>, group: &str, topics: &[Topic]) -> Result<Self, BrokerError> {
        if let Some(missing) = topics.iter().find(|topic| !lock(&shared.state).topics.contains_key(*topic)) {
            return Err(BrokerError::unknown_topic(missing));
        }
        let (member, left, fetching, latest) = Default::default();
        let mut consumer = Self { shared, group: group.into(), topics: topics.to_vec(), member, left, fetching, latest };
        consumer.join_again();
        Ok(consumer)
    }

    /// The name under which this member is known in its group, as its [`GroupMetadata`] carries it.
    pub fn member(&self) -> Option<Arc<str>> {
        self.member.map(member_name)
    }

    /// Forgets the membership without leaving, as a crash does: the group believes the member alive until
    /// [`LocalBroker::expire_member`]. This consumer is of no use from here on.
    pub fn abandon(&mut self) {
        self.left = true;
        self.member = None;
    }

    fn join_again(&mut self) -> MemberId {
        let mut state = lock(&self.shared.state);
        let counts = state.partition_counts();
        let member = state.group(&self.group).join(&self.topics, &counts);
        self.member = Some(member);
        self.shared.changed.notify_all();
        member
    }

    /// The member's next event, without waiting.
    fn event(&mut self, state: &mut State, member: MemberId) -> Option<Polled<LocalBatch>> {
        let mut freed = false;
        let group = state.group(&self.group);
        let event = group.poll(member, &mut freed);
        if freed {
            // One that was given up may have been started once more before.
            self.fetching.retain(|partition, _| group.holds(member, partition));
            self.shared.changed.notify_all();
        }
        match event? {
            MemberEvent::Lost => {
                self.member = None;
                self.fetching.clear();
                Some(Polled::Lost)
            }
            MemberEvent::Revoked { partitions } => {
                self.fetching.retain(|partition, _| !partitions.contains(partition));
                Some(Polled::Revoked { partitions })
            }
            MemberEvent::Assigned { partitions, generation } => {
                let group = GroupMetadata { group: self.group.clone(), generation, member: member_name(member) };
                Some(Polled::Assigned { partitions, group })
            }
        }
    }

    /// The next partition in turn that has something to fetch, or whose position has fallen out of its log.
    fn next_fetch(&self, state: &State) -> Option<Fetch> {
        let is_after = |partition: &TopicPartition| self.latest.as_ref().is_none_or(|latest| partition > latest);
        let after = self.fetching.iter().filter(|(partition, _)| is_after(partition));
        let around = self.fetching.iter().filter(|(partition, _)| !is_after(partition));
        after.chain(around).find_map(|(partition, &from)| {
            let log = state.logs.get(partition)?;
            let before = log.last_stable();
            let ready = from < before || from < log.start;
            ready.then(|| Fetch { partition: partition.clone(), log: log.id, from, before })
        })
    }

    fn fetch(&mut self, next: Fetch) -> Result<LocalBatch, BrokerError> {
        self.latest = Some(next.partition.clone());
        let fetched = fetch(&self.shared.storage, next.log, &next.partition, next.from, next.before);
        // What was deleted from the head meanwhile must not be passed over in silence.
        let start = lock(&self.shared.state).log(&next.partition)?.start;
        let batch = match fetched {
            _ if next.from < start => Err(out_of_range(&next.partition, next.from, start, next.before)),
            fetched => fetched,
        };
        match &batch {
            Ok(batch) => self.fetching.insert(next.partition, batch.next_offset()),
            Err(error) if error.kind() == ErrorKind::Retry => None,
            Err(_) => self.fetching.remove(&next.partition),
        };
        batch
    }

    fn held<'a>(&self, state: &'a MutexGuard<'_, State>, partition: &TopicPartition) -> Result<&'a super::log::Log, BrokerError> {
        let group = state.groups.get(&self.group);
        if self.member.is_some_and(|member| group.is_some_and(|group| group.holds(member, partition))) {
            return state.log(partition);
        }
        let message = format!("this member of group {} does not hold {partition}", self.group);
        Err(BrokerError::new(ErrorKind::Fenced, message))
    }
}

impl<S: LogStorage> Consumer for LocalConsumer<S> {
    type Batch = LocalBatch;

    /// After an error other than [`ErrorKind::Retry`] the partition that it names is no longer fetched.
    fn poll(&mut self, max_wait: Duration) -> Result<Polled<LocalBatch>, BrokerError> {
        if self.left {
            return Err(BrokerError::new(ErrorKind::Fenced, format!("this member has left group {}", self.group)));
        }
        let member = match self.member {
            Some(member) => member,
            None => self.join_again(),
        };
        let shared = self.shared.clone();
        let mut state = lock(&shared.state);
        if let Some(event) = self.event(&mut state, member) {
            return Ok(event);
        }
        let waits = |state: &mut State| {
            let has_event = state.groups.get(&self.group).is_none_or(|group| group.has_event(member));
            !has_event && self.next_fetch(state).is_none()
        };
        if !max_wait.is_zero() {
            state = shared.changed.wait_timeout_while(state, max_wait, waits).unwrap_or_else(PoisonError::into_inner).0;
        }
        if let Some(event) = self.event(&mut state, member) {
            return Ok(event);
        }
        let Some(next) = self.next_fetch(&state) else {
            return Ok(Polled::Nothing);
        };
        drop(state);
        self.fetch(next).map(Polled::Batch)
    }

    fn start(&mut self, partition: &TopicPartition, from: Offset) -> Result<(), BrokerError> {
        let state = lock(&self.shared.state);
        let log = self.held(&state, partition)?;
        if from < log.start || from > log.end {
            return Err(out_of_range(partition, from, log.start, log.end));
        }
        drop(state);
        self.fetching.insert(partition.clone(), from);
        Ok(())
    }

    fn pause(&mut self, partition: &TopicPartition) -> Result<(), BrokerError> {
        self.held(&lock(&self.shared.state), partition)?;
        self.fetching.remove(partition);
        Ok(())
    }

    fn leave(&mut self) -> Result<(), BrokerError> {
        self.left = true;
        self.fetching.clear();
        if let Some(member) = self.member.take() {
            self.shared.remove_member(&self.group, member);
        }
        Ok(())
    }
}

impl<S: LogStorage> Drop for LocalConsumer<S> {
    fn drop(&mut self) {
        if let Some(member) = self.member.take() {
            self.shared.remove_member(&self.group, member);
        }
    }
}

impl<S: LogStorage> Shared<S> {
    fn remove_member(&self, group: &str, member: MemberId) -> bool {
        let mut state = lock(&self.state);
        let counts = state.partition_counts();
        let was_there = state.group(group).remove(member, &counts);
        self.changed.notify_all();
        was_there
    }
}

impl<S: LogStorage> LocalBroker<S> {
    /// Ends a membership as an expired session does: the others get its partitions at once, the member learns at its next poll
    /// that it is lost, and nothing that it still commits is accepted. Whether there was such a member.
    pub fn expire_member(&self, group: &str, member: &str) -> bool {
        super::group::parse_member_name(member).is_some_and(|id| self.shared.remove_member(group, id))
    }

    /// Takes every partition from its holder and gives it out again, in a new generation.
    pub fn force_rebalance(&self, group: &str) {
        lock(&self.shared.state).group(group).revoke_all();
        self.shared.changed.notify_all();
    }
}
