//! A member's line to the coordinator of its group, which is in the same process.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::super::BrokerError;
use super::super::group::{
    Answer, Candidate, Confirmation, Coordinator, Gone, GroupMember, JoinRequest, MemberAssignment, PartitionCounts,
};
use super::state::State;
use super::storage::LogStorage;
use super::{LocalBroker, LocalProducer, Shared, lock};

/// A member of a group of a [`LocalBroker`].
pub type LocalMembership<S> = GroupMember<LocalCoordinator<S>>;

/// A member's line to the coordinator of a group of a [`LocalBroker`].
pub struct LocalCoordinator<S> {
    shared: Arc<Shared<S>>,
    group: Arc<str>,
    member: Option<Arc<str>>,
    /// The group does not know the member that was to join.
    unknown: Option<Gone>,
    has_ended: bool,
}

impl<S: LogStorage> LocalCoordinator<S> {
    pub(super) fn new(shared: &Arc<Shared<S>>, candidate: &Candidate) -> Result<Self, BrokerError> {
        if let Some(missing) = candidate.topics.iter().find(|topic| !lock(&shared.state).topics.contains_key(*topic)) {
            return Err(BrokerError::unknown_topic(missing));
        }
        Ok(Self { shared: shared.clone(), group: candidate.group.clone(), member: None, unknown: None, has_ended: false })
    }

    /// The name under which the group knows the member, from the moment that it asks to join.
    pub fn member(&self) -> Option<&Arc<str>> {
        self.member.as_ref()
    }
}

impl<S: LogStorage> Coordinator for LocalCoordinator<S> {
    fn join(&mut self, request: JoinRequest) -> Result<(), BrokerError> {
        match lock(&self.shared.state).group(&self.group).join(request.member, request.metadata) {
            Ok(member) => self.member = Some(member),
            Err(gone) => (self.member, self.unknown) = (None, Some(gone)),
        }
        self.shared.changed.notify_all();
        Ok(())
    }

    fn sync(&mut self, assignments: BTreeMap<Arc<str>, MemberAssignment>) -> Result<(), BrokerError> {
        if let Some(member) = &self.member {
            lock(&self.shared.state).group(&self.group).sync(member, assignments);
            self.shared.changed.notify_all();
        }
        Ok(())
    }

    fn next(&mut self, max_wait: Duration) -> Result<Option<Answer>, BrokerError> {
        if let Some(gone) = self.unknown.take() {
            return Ok(Some(Answer::Gone(gone)));
        }
        if std::mem::take(&mut self.has_ended) {
            return Ok(Some(Answer::TransactionsEnded));
        }
        let Some(member) = &self.member else { return Ok(None) };
        let mut state = lock(&self.shared.state);
        if !max_wait.is_zero() {
            let waits = |state: &mut State| !state.group(&self.group).has_answer(member);
            state = self.shared.changed.wait_timeout_while(state, max_wait, waits).unwrap_or_else(PoisonError::into_inner).0;
        }
        let answer = state.group(&self.group).next(member);
        if let Some(Answer::Gone(_)) = answer {
            self.member = None;
        }
        Ok(answer)
    }

    fn leave(&mut self, _: &str) -> Result<(), BrokerError> {
        if let Some(member) = self.member.take() {
            self.shared.remove_member(&self.group, &member);
        }
        Ok(())
    }

    fn end_transactions(&mut self, transactional_ids: Vec<String>) -> Result<(), BrokerError> {
        for id in transactional_ids {
            // What a producer has left open is dropped by its successor.
            if let Err(error) = LocalProducer::new(self.shared.clone(), &id) {
                tracing::warn!(%error, id, "what a producer that is gone has left open could not be ended");
            }
        }
        self.has_ended = true;
        Ok(())
    }

    fn remove(&mut self, members: &[Arc<str>], _: &str) -> Result<(), BrokerError> {
        for member in members {
            self.shared.remove_member(&self.group, member);
        }
        Ok(())
    }

    fn confirmation(&self) -> Option<Confirmation> {
        None
    }

    fn is_settled(&self) -> bool {
        true
    }
}

impl<S: LogStorage> PartitionCounts for Shared<S> {
    fn partitions(&self, topic: &str) -> Option<u32> {
        Some(lock(&self.state).topics.get(topic)?.settings.partitions)
    }
}

impl<S: LogStorage> Shared<S> {
    fn remove_member(&self, group: &str, member: &str) -> bool {
        let was_there = lock(&self.state).group(group).remove(member);
        self.changed.notify_all();
        was_there
    }
}

impl<S: LogStorage> LocalBroker<S> {
    /// Ends a membership as an expired session does: the others share its partitions, the member learns at its next poll
    /// that it is lost, and nothing that it still commits is accepted. Whether there was such a member.
    pub fn expire_member(&self, group: &str, member: &str) -> bool {
        self.shared.remove_member(group, member)
    }

    /// Ends the wait for members that have not joined again, as the rebalance timeout does: they are dropped, and the others go on without them.
    /// Whether there were any.
    pub fn time_out_rebalance(&self, group: &str) -> bool {
        let were_dropped = lock(&self.shared.state).group(group).drop_late();
        self.shared.changed.notify_all();
        were_dropped
    }

    /// The generation of a group, and its members.
    pub fn describe_group(&self, group: &str) -> (i32, BTreeSet<Arc<str>>) {
        lock(&self.shared.state).group(group).describe()
    }

    /// Takes every partition from its holder and gives it out again, in a new generation.
    pub fn force_rebalance(&self, group: &str) {
        lock(&self.shared.state).group(group).revoke_all();
        self.shared.changed.notify_all();
    }
}
