//! What a member says to the coordinator of its group, and hears from it: Kafka's classic group protocol, without its bytes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::BrokerError;
use super::Confirmation;
use crate::record::{Topic, TopicPartition};

/// A member's line to the coordinator of its group. Nothing here waits but [`Coordinator::next`], and [`Coordinator::leave`] for a moment.
///
/// Behind it lie connections, retries and heartbeats. A request is sent again for as long as its answer is lost or says that it may succeed
/// later (a coordinator that moves, loads, or is away), and heartbeats go on by themselves from [`Answer::Joined`] until [`Answer::Gone`], whatever
/// the caller does meanwhile.
pub trait Coordinator: Send {
    /// Asks to join, or to join again. Answered by [`Answer::Joined`] once the group has gathered its members, or by [`Answer::Gone`].
    /// Takes the place of a request that was not answered yet, and of answers that were not heard yet, but for [`Answer::TransactionsEnded`], which is
    /// waited for whatever the group does, and for [`Answer::Gone`], with which this asks for nothing.
    fn join(&mut self, request: JoinRequest) -> Result<(), BrokerError>;

    /// Says what each member is assigned in the generation that was joined last, if this one leads it; else with nothing. Answered by
    /// [`Answer::Synced`], [`Answer::Rebalance`] or [`Answer::Gone`].
    fn sync(&mut self, assignments: BTreeMap<Arc<str>, MemberAssignment>) -> Result<(), BrokerError>;

    /// The next answer. Waits for it at most so long.
    ///
    /// # Errors
    /// What no later attempt mends ([`super::super::ErrorKind::Stop`]: the group may not be joined, or speaks another protocol), and, while the
    /// coordinator cannot be reached, now and then a [`super::super::ErrorKind::Retry`] that says so. The line stays good.
    fn next(&mut self, max_wait: Duration) -> Result<Option<Answer>, BrokerError>;

    /// Takes this member out of the group, or withdraws its request to join, and ends its heartbeats.
    fn leave(&mut self, reason: &str) -> Result<(), BrokerError>;

    /// Ends the transactions that producers of these ids have left open, and fences the producers. Answered by
    /// [`Answer::TransactionsEnded`], also where that could not be done in good time: what is open ends by its own timeout then, and whoever needs
    /// to waits for it.
    fn end_transactions(&mut self, transactional_ids: Vec<String>) -> Result<(), BrokerError>;

    /// Takes other members out of the group, which are known to be dead. One that is no member (any more) is no error.
    fn remove(&mut self, members: &[Arc<str>], reason: &str) -> Result<(), BrokerError>;

    /// When the membership was confirmed last. None where a member always knows at once that it is none any more.
    fn confirmation(&self) -> Option<Confirmation>;

    /// Whether the coordinator has been the same for some seconds, and was reached. Else members that live may not have found it yet.
    fn is_settled(&self) -> bool;
}

/// Asks to be a member in the next generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRequest {
    /// The member that this one is, or was in its last life; none for a new one.
    pub member: Option<Arc<str>>,
    /// What all members are told of this one.
    pub metadata: MemberMetadata,
}

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemberMetadata {
    /// The topics that it consumes.
    pub topics: Vec<Topic>,
    /// What it holds: assigned and not given up.
    pub owned: Vec<TopicPartition>,
    /// The generation in which it was assigned that; -1 for none.
    pub generation: i32,
    /// What only members of its kind can read.
    pub user_data: Vec<u8>,
}

/// What a member is assigned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemberAssignment {
    /// The partitions that it may hold from now on.
    pub partitions: Vec<TopicPartition>,
    /// What only members of its kind can read.
    pub user_data: Vec<u8>,
}

/// What the coordinator says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A generation has begun, and this is its member.
    Joined {
        /// The number of the generation.
        generation: i32,
        /// The name of this member in the group.
        member: Arc<str>,
        /// All members by their names, if this one leads the generation and is to say what each is assigned.
        members: Option<BTreeMap<Arc<str>, MemberMetadata>>,
    },
    /// What this member is assigned in the generation joined last.
    Synced(MemberAssignment),
    /// The transactions that were to be ended are.
    TransactionsEnded,
    /// The group wants all members to join again. What was committed until then stays good, and so do commits until the answer to that.
    Rebalance,
    /// This is no member any more: nothing that it held can be committed.
    Gone(Gone),
}

/// Why a membership is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// The group does not know the member: it was silent for too long, or was taken out.
    UnknownMember,
    /// The group knows the member in another generation than this: somebody else joins under the same name, unless this one was about to.
    OtherGeneration,
}
