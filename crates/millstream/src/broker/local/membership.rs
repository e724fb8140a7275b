//! A member of a consumer group.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::super::{BrokerError, ErrorKind, MemberEvent, Membership};
use super::assignment::MemberId;
use super::group::{member_name, parse_member_name};
use super::state::State;
use super::storage::LogStorage;
use super::{LocalBroker, Shared, lock};
use crate::record::{Topic, TopicPartition};

/// A member of a consumer group of a [`LocalBroker`]. Dropping it leaves the group.
#[derive(Debug)]
pub struct LocalMembership<S: LogStorage> {
    shared: Arc<Shared<S>>,
    group: Arc<str>,
    topics: Vec<Topic>,
    /// None after the membership was lost or left.
    member: Option<MemberId>,
    left: bool,
}

impl<S: LogStorage> LocalMembership<S> {
    pub(super) fn join(shared: Arc<Shared<S>>, group: &str, topics: &[Topic]) -> Result<Self, BrokerError> {
        if let Some(missing) = topics.iter().find(|topic| !lock(&shared.state).topics.contains_key(*topic)) {
            return Err(BrokerError::unknown_topic(missing));
        }
        let mut membership = Self { shared, group: group.into(), topics: topics.to_vec(), member: None, left: false };
        membership.join_again();
        Ok(membership)
    }

    /// The name under which this member is known in its group, as its [`super::super::Fence`] carries it.
    pub fn member(&self) -> Option<Arc<str>> {
        self.member.map(member_name)
    }

    /// Forgets the membership without leaving, as a crash does: the group believes the member alive until
    /// [`LocalBroker::expire_member`]. This membership is of no use from here on.
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
}

impl<S: LogStorage> Membership for LocalMembership<S> {
    fn poll(&mut self, max_wait: Duration) -> Result<MemberEvent, BrokerError> {
        if self.left {
            return Err(BrokerError::new(ErrorKind::Fenced, format!("this member has left group {}", self.group)));
        }
        let member = match self.member {
            Some(member) => member,
            None => self.join_again(),
        };
        let mut state = lock(&self.shared.state);
        if !max_wait.is_zero() {
            let waits = |state: &mut State| !state.group(&self.group).has_event(member);
            state = self.shared.changed.wait_timeout_while(state, max_wait, waits).unwrap_or_else(PoisonError::into_inner).0;
        }
        let event = state.group(&self.group).poll(&self.group, member);
        if event == MemberEvent::Lost {
            self.member = None;
        }
        Ok(event)
    }

    /// After the membership was lost or left this does nothing: its partitions have gone to others already.
    fn give_up(&mut self, partitions: &[TopicPartition]) -> Result<(), BrokerError> {
        let Some(member) = self.member else { return Ok(()) };
        if lock(&self.shared.state).group(&self.group).give_up(member, partitions) {
            self.shared.changed.notify_all();
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<(), BrokerError> {
        self.left = true;
        if let Some(member) = self.member.take() {
            self.shared.remove_member(&self.group, member);
        }
        Ok(())
    }
}

impl<S: LogStorage> Drop for LocalMembership<S> {
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
        parse_member_name(member).is_some_and(|id| self.shared.remove_member(group, id))
    }

    /// From now on a group takes positions from every member of its, whatever that holds, as Kafka does: for the simulation.
    pub fn trust_members(&self, group: &str) {
        lock(&self.shared.state).group(group).trust_members();
    }

    /// From the next rebalance on so many members of a group, where it has as many, keep a copy of each partition's store beside its holder.
    pub fn keep_standbys(&self, group: &str, standbys: usize) {
        lock(&self.shared.state).group(group).keep_standbys(standbys);
    }

    /// Takes every partition from its holder and gives it out again, in a new generation.
    pub fn force_rebalance(&self, group: &str) {
        lock(&self.shared.state).group(group).revoke_all();
        self.shared.changed.notify_all();
    }
}
