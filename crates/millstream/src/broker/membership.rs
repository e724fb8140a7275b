//! Membership in a consumer group: who we are, what we are assigned, and under which proof. It moves no data.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::BrokerError;
use super::group::{Confirmation, Directory};
use crate::record::{Offset, Timestamp, TopicPartition};

/// An instance as a member of its application's group.
///
/// Partitions come with [`MemberEvent::Assigned`] and go in two steps, so that nobody has one before its owner has ended its work on
/// it: [`MemberEvent::Revoked`] asks for it back, [`Membership::give_up`] reports that the work has ended.
pub trait Membership: Send {
    /// Waits for the next event, at most so long. Has to be called often, for as long as this is to remain a member, also between a
    /// [`MemberEvent::Revoked`] and the report that answers it.
    ///
    /// # Errors
    /// [`super::ErrorKind::Fenced`]: this membership is of no use any more, join anew.
    fn poll(&mut self, max_wait: Duration) -> Result<MemberEvent, BrokerError>;

    /// Reports that the work on partitions that were revoked has ended: the last transaction with a position of theirs has an outcome
    /// that is known. The group may give them to others from here on. Of partitions that are not (or no longer) asked back it says nothing.
    fn give_up(&mut self, partitions: &[TopicPartition]) -> Result<(), BrokerError>;

    /// Reports what lies on this instance's disk at this time, of whatever tasks: all of it, in place of what was reported before. To be called now and
    /// then, for deadlines of the assignment are compared with the time that is told here.
    fn report(&mut self, now: Timestamp, copies: BTreeMap<TopicPartition, StoreCopy>);

    /// Takes that life of another instance out of the group, which is known to have ended, so that nobody waits for its session. One that the group does not
    /// know (any more), and one that was taken out before and came back, is left alone: it can be reached by the group, if not from here.
    fn evict(&mut self, instance: &str, incarnation: u64) -> Result<(), BrokerError>;

    /// Reports the instances, each with its life, that have not been heard of for longer than they should, in place of those reported before. The group
    /// calls the roll: whoever does not join again in time is a member no more. Now and then only, for that interrupts everybody, and those who answered are
    /// believed for a while.
    fn suspect(&mut self, silent: &BTreeMap<Arc<str>, u64>);

    /// When the membership was confirmed last. None where a member always knows at once that it is none any more.
    fn confirmation(&self) -> Option<Confirmation>;

    /// Hands over what others can go on with at once, for this member is about to leave: that is asked back. The rest stays until it leaves.
    fn hand_over(&mut self);

    /// Whether everything has been handed over that others can go on with.
    fn has_handed_over(&self) -> bool;

    /// Who holds what in the group, as this member was told last.
    fn directory(&self) -> &Arc<Directory>;

    /// Leaves the group, so that others take over at once.
    fn leave(&mut self) -> Result<(), BrokerError>;
}

/// A task's store as it lies on an instance's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreCopy {
    /// The changelog position that it stands for; none where that is not known.
    pub position: Option<Offset>,
    /// Whether it lacks no more than what a commit brings: its task can go on here at once.
    pub is_caught_up: bool,
}

/// What a member is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberEvent {
    /// Partitions are ours from now on.
    Assigned {
        /// The partitions that came; none where only the proof is another.
        partitions: Vec<TopicPartition>,
        /// The proof under which everything that this member now holds is to be committed.
        fence: Fence,
    },
    /// Partitions are asked back. They are ours, and may be committed under the fence told last, until [`Membership::give_up`].
    Revoked {
        /// The partitions that are to go.
        partitions: Vec<TopicPartition>,
    },
    /// The partitions of whose stores this member is to keep a copy: all of them, in place of those that it was told before.
    Standbys {
        /// The partitions.
        partitions: Vec<TopicPartition>,
    },
    /// The membership is gone, and all its partitions with it; nothing of theirs can be committed any more. The next poll
    /// joins again.
    Lost,
    /// Nothing came in the time given.
    Nothing,
}

/// Proof of the membership under which partitions were assigned, carried by every commit of theirs: the broker refuses one that is out
/// of date. Only brokers look inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    group: Arc<str>,
    generation: i32,
    member: Arc<str>,
}

impl Fence {
    /// The proof of a member in a generation of its group.
    pub fn new(group: impl Into<Arc<str>>, generation: i32, member: impl Into<Arc<str>>) -> Self {
        Self { group: group.into(), generation, member: member.into() }
    }

    /// The group.
    pub fn group(&self) -> &Arc<str> {
        &self.group
    }

    /// The generation in which the partitions were assigned.
    pub fn generation(&self) -> i32 {
        self.generation
    }

    /// The member.
    pub fn member(&self) -> &Arc<str> {
        &self.member
    }
}
