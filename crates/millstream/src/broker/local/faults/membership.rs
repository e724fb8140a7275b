//! Memberships whose calls may fail.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::{LocalMembership, MemoryLog, lock};
use super::{Call, Fault, FaultyBroker};
use crate::broker::group::Directory;
use crate::broker::{BrokerError, MemberEvent, Membership, StoreCopy};
use crate::record::{Timestamp, TopicPartition};

/// A membership of a [`FaultyBroker`]. Dropped while its instance lives, it leaves the group; after a crash it stays a member until
/// [`FaultyBroker::expire_members`].
#[derive(Debug)]
pub struct FaultyMembership {
    broker: FaultyBroker,
    group: Arc<str>,
    membership: LocalMembership<MemoryLog>,
}

impl FaultyMembership {
    pub(super) fn new(broker: FaultyBroker, group: &str, membership: LocalMembership<MemoryLog>) -> Self {
        let membership = Self { broker, group: group.into(), membership };
        membership.note_member();
        membership
    }

    /// A poll after a loss joins again, under a new name.
    fn note_member(&self) {
        if let Some(member) = self.membership.coordinator().member() {
            lock(&self.broker.instance.members).insert((self.group.clone(), member.clone()));
        }
    }
}

impl Membership for FaultyMembership {
    fn poll(&mut self, max_wait: Duration) -> Result<MemberEvent, BrokerError> {
        let fault = self.broker.before(Call::Poll)?;
        let event = match fault {
            Some(Fault::Nothing) => Ok(MemberEvent::Nothing),
            _ => self.membership.poll(max_wait),
        };
        self.note_member();
        self.broker.after(fault)?;
        event
    }

    fn give_up(&mut self, partitions: &[TopicPartition]) -> Result<(), BrokerError> {
        let fault = self.broker.before(Call::GiveUp)?;
        let outcome = self.membership.give_up(partitions);
        self.broker.after(fault)?;
        outcome
    }

    fn report(&mut self, now: Timestamp, copies: BTreeMap<TopicPartition, StoreCopy>) {
        self.membership.report(now, copies);
    }

    fn evict(&mut self, instance: &str, incarnation: u64) -> Result<(), BrokerError> {
        let fault = self.broker.before(Call::Other)?;
        let outcome = self.membership.evict(instance, incarnation);
        self.broker.after(fault)?;
        outcome
    }

    fn hand_over(&mut self) {
        self.membership.hand_over();
    }

    fn has_handed_over(&self) -> bool {
        self.membership.has_handed_over()
    }

    fn directory(&self) -> &Arc<Directory> {
        self.membership.directory()
    }

    fn leave(&mut self) -> Result<(), BrokerError> {
        let fault = self.broker.before(Call::Other)?;
        let outcome = self.membership.leave();
        self.broker.after(fault)?;
        outcome
    }
}

impl Drop for FaultyMembership {
    fn drop(&mut self) {
        if self.broker.is_crashed() {
            self.membership.abandon();
        }
    }
}
