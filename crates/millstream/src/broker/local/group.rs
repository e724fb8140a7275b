//! The coordinator of a consumer group: who its members are, and in which generation. What each holds is theirs to say.
//!
//! | phase | a join | a sync | a removal |
//! |---|---|---|---|
//! | preparing | waits for all other members to join | the rebalance goes on: join again | the others may be complete now |
//! | completing | by the one that was to join: the same answer; with something new to say: preparing | the leader's: stable, all others wait for it | preparing |
//! | stable | by the leader, or with something new to say: preparing; else the same answer | what the leader has said | preparing |
//!
//! A generation begins when all members have joined. Commits of the generation before are taken until then, those of the new one from then on, and no
//! others: as on Kafka, who holds a partition is never checked.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::super::group::{Answer, Gone, MemberAssignment, MemberMetadata};
use super::super::{BrokerError, CommittedOffset, ErrorKind, Fence};
use crate::record::TopicPartition;

#[derive(Debug, Default)]
pub(super) struct Group {
    generation: i32,
    /// How many members there ever were.
    joined: u64,
    members: BTreeMap<Arc<str>, Member>,
    phase: Phase,
    leader: Option<Arc<str>>,
    /// The next assignment is taken from everybody, and given again in the generation after.
    withholds: bool,
    /// What the group has committed; it outlives its members.
    pub(super) offsets: BTreeMap<TopicPartition, CommittedOffset>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Preparing,
    Completing,
    Stable,
}

#[derive(Debug, Default)]
struct Member {
    metadata: MemberMetadata,
    /// It has joined the generation that is to begin.
    joins: bool,
    /// It waits for what it is assigned.
    syncs: bool,
    assignment: MemberAssignment,
    answers: VecDeque<Answer>,
}

impl Group {
    /// A member joins, or joins again. Gives its name, which is new for a new one.
    pub(super) fn join(&mut self, name: Option<Arc<str>>, metadata: MemberMetadata) -> Result<Arc<str>, Gone> {
        let name = match name {
            Some(name) if self.members.contains_key(&name) => name,
            Some(_) => return Err(Gone::UnknownMember),
            None => {
                self.joined += 1;
                format!("member-{}", self.joined).into()
            }
        };
        let leads = self.leader.as_ref() == Some(&name);
        let member = self.members.entry(name.clone()).or_default();
        let says_nothing_new = member.metadata == metadata && !member.joins;
        member.metadata = metadata;
        member.answers.clear();
        member.syncs = false;
        if says_nothing_new && (self.phase == Phase::Completing || (self.phase == Phase::Stable && !leads)) {
            self.tell_joined(&name);
            return Ok(name);
        }
        member.joins = true;
        self.prepare();
        self.complete_if_all_have_joined();
        Ok(name)
    }

    /// A member asks for what it is assigned; the leader says what everybody is.
    pub(super) fn sync(&mut self, name: &Arc<str>, assignments: BTreeMap<Arc<str>, MemberAssignment>) {
        let leads = self.leader.as_ref() == Some(name);
        let Some(member) = self.members.get_mut(name) else { return };
        match self.phase {
            Phase::Preparing if member.answers.is_empty() => member.answers.push_back(Answer::Rebalance),
            Phase::Preparing => {}
            Phase::Completing => {
                member.syncs = true;
                if leads {
                    self.assign(assignments);
                }
            }
            Phase::Stable => member.answers.push_back(Answer::Synced(member.assignment.clone())),
        }
    }

    /// Takes a member out. Whether there was one.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        if self.members.remove(name).is_none() {
            return false;
        }
        if self.leader.as_deref() == Some(name) {
            self.leader = None;
        }
        self.prepare();
        self.complete_if_all_have_joined();
        true
    }

    /// Drops the members that were to join again and have not. Whether there were any.
    pub(super) fn drop_late(&mut self) -> bool {
        let before = self.members.len();
        if self.phase == Phase::Preparing {
            self.members.retain(|_, member| member.joins);
            self.leader = self.leader.take().filter(|leader| self.members.contains_key(leader));
            self.complete_if_all_have_joined();
        }
        self.members.len() < before
    }

    /// The generation, and the members.
    pub(super) fn describe(&self) -> (i32, BTreeSet<Arc<str>>) {
        (self.generation, self.members.keys().cloned().collect())
    }

    /// Takes everything away from everybody and gives it out again.
    pub(super) fn revoke_all(&mut self) {
        self.withholds = true;
        self.prepare();
    }

    /// The next thing that a member has to hear.
    pub(super) fn next(&mut self, name: &str) -> Option<Answer> {
        match self.members.get_mut(name) {
            Some(member) => member.answers.pop_front(),
            None => Some(Answer::Gone(Gone::UnknownMember)),
        }
    }

    /// Whether there is such a thing.
    pub(super) fn has_answer(&self, name: &str) -> bool {
        self.members.get(name).is_none_or(|member| !member.answers.is_empty())
    }

    /// Whether any member consumes the topic.
    pub(super) fn consumes(&self, topic: &str) -> bool {
        self.members.values().any(|member| member.metadata.topics.iter().any(|consumed| **consumed == *topic))
    }

    /// Whether positions may be committed on that proof.
    pub(super) fn check(&self, proof: &Fence) -> Result<(), BrokerError> {
        let refuse = |reason: String| {
            let (member, group, generation) = (proof.member(), proof.group(), proof.generation());
            let message = format!("member {member} of group {group}, generation {generation}: {reason}");
            Err(BrokerError::new(ErrorKind::AbortTransaction, message))
        };
        if !self.members.contains_key(proof.member()) {
            return refuse(format!("is no longer a member (generation {})", self.generation));
        }
        match proof.generation() == self.generation {
            true => Ok(()),
            false => refuse(format!("the group is in generation {}", self.generation)),
        }
    }

    /// All members are to join again.
    fn prepare(&mut self) {
        if self.phase == Phase::Preparing {
            return;
        }
        self.phase = Phase::Preparing;
        for member in self.members.values_mut().filter(|member| !member.joins) {
            member.syncs = false;
            member.answers.push_back(Answer::Rebalance);
        }
    }

    fn complete_if_all_have_joined(&mut self) {
        if self.phase != Phase::Preparing || self.members.is_empty() || self.members.values().any(|member| !member.joins) {
            return;
        }
        self.generation += 1;
        self.phase = Phase::Completing;
        self.leader = self.leader.take().or_else(|| self.members.keys().next().cloned());
        let names: Vec<_> = self.members.keys().cloned().collect();
        for name in names {
            self.tell_joined(&name);
        }
    }

    fn tell_joined(&mut self, name: &Arc<str>) {
        let leads = self.leader.as_ref() == Some(name);
        let metadata = |(name, member): (&Arc<str>, &Member)| (name.clone(), member.metadata.clone());
        let members = leads.then(|| self.members.iter().map(metadata).collect());
        let answer = Answer::Joined { generation: self.generation, member: name.clone(), members };
        if let Some(member) = self.members.get_mut(name) {
            member.joins = false;
            member.answers.push_back(answer);
        }
    }

    fn assign(&mut self, mut assignments: BTreeMap<Arc<str>, MemberAssignment>) {
        self.phase = Phase::Stable;
        let withholds = std::mem::take(&mut self.withholds);
        for (name, member) in &mut self.members {
            member.assignment = assignments.remove(name).unwrap_or_default();
            if withholds {
                member.assignment.partitions.clear();
            }
            if std::mem::take(&mut member.syncs) {
                member.answers.push_back(Answer::Synced(member.assignment.clone()));
            }
        }
        if withholds {
            self.prepare();
        }
    }
}
