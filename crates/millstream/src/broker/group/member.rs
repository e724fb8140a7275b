//! A member of a group: what it holds, and under which proof. It decides; the line to the coordinator does the talking.
//!
//! | phase | what comes | what follows |
//! |---|---|---|
//! | to join | | `join`, with everything that is held: joining |
//! | joining | joined, in a new generation | the proof of all that is held is renewed; the leader assigns: to sync |
//! | to sync | | `sync`: syncing |
//! | syncing | synced: what is assigned | what is new is told, what is held and not assigned is asked back: stable |
//! | stable | a task was given up, a copy that was waited for has caught up, a topic has grown, a deadline has passed | to join |
//! | any but to join | the group rebalances | to join |
//! | any | the member is gone | everything is lost: to join, as a new one |
//!
//! These rules are what counting exactly once rests on, for the coordinator never checks who holds a partition:
//! - A proof is renewed only for what the join request listed as held, by a membership that has not been interrupted: not even by one generation.
//! - A partition leaves that list only by [`Membership::give_up`], after its last transaction has ended.
//! - After a membership that is over, nothing is held, and the next request lists nothing.
//! - A partition that another member lists is assigned to nobody else ([`super::assignor`]).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::super::{BrokerError, ErrorKind, Fence, MemberEvent, Membership, StoreCopy};
use super::leader::Leader;
use super::roll::Roll;
use super::user_data::{self, MemberInfo};
use super::{
    Answer, Candidate, Confirmation, Coordinator, Directory, Gone, JoinRequest, MemberAssignment, MemberMetadata,
    transactional_id,
};
use crate::record::{Timestamp, TopicPartition};

/// How many partitions topics have, as last heard. Answers at once.
pub trait PartitionCounts: Send + Sync {
    /// How many the topic has; none where it is not known.
    fn partitions(&self, topic: &str) -> Option<u32>;
}

/// A member of a group of which one member says what each holds. Dropping it leaves the group.
pub struct GroupMember<C: Coordinator> {
    coordinator: C,
    candidate: Candidate,
    counts: Arc<dyn PartitionCounts>,
    /// The time of the last report.
    now: Timestamp,
    phase: Phase,
    left: bool,
    /// It is about to leave, and others are to go on.
    is_leaving: bool,
    /// The name in the group, and the generation joined last.
    name: Option<Arc<str>>,
    generation: i32,
    /// Told to be ours, and not given up or lost since.
    held: BTreeSet<TopicPartition>,
    /// Held, and asked back.
    going: BTreeSet<TopicPartition>,
    /// Held, and not told yet: what those have left open who had it before is being ended.
    untold: BTreeSet<TopicPartition>,
    /// Instances that are gone, and whose transactions were ended.
    ended: BTreeSet<Arc<str>>,
    /// Lives of instances that this member has taken out of the group.
    evicted: BTreeSet<(Arc<str>, u64)>,
    roll: Roll,
    /// Whether anything was told of this membership.
    is_told: bool,
    /// Given up since this member asked to join last: what it is assigned of that in answer is not taken, for it is not the proof of this generation that
    /// it may come back under.
    given_up: BTreeSet<TopicPartition>,
    /// What of it the engine has been told.
    standbys: BTreeSet<TopicPartition>,
    /// What lies on this instance's disk.
    copies: BTreeMap<TopicPartition, StoreCopy>,
    /// Copies that the group waits for: their tasks come here when they have caught up, which the group does not know yet.
    awaited: BTreeSet<TopicPartition>,
    /// Copies that had caught up when this member joined last.
    said_caught_up: BTreeSet<TopicPartition>,
    /// Rises whenever a rebalance is wanted: the group begins one only for a member that says something new.
    wanted: u32,
    is_rebalance_wanted: bool,
    /// Where this member leads the group.
    leads: Option<Leader>,
    /// What the group was told last of who holds what.
    directory: Arc<Directory>,
    events: VecDeque<MemberEvent>,
}

/// What has to be done or waited for next.
#[derive(Debug)]
enum Phase {
    ToJoin,
    Joining,
    ToSync(BTreeMap<Arc<str>, MemberAssignment>),
    Syncing,
    Stable,
}

impl<C: Coordinator> std::fmt::Debug for GroupMember<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, generation, phase, held, .. } = self;
        f.debug_struct("GroupMember")
            .field("name", name)
            .field("generation", generation)
            .field("phase", phase)
            .field("held", held)
            .finish_non_exhaustive()
    }
}

impl<C: Coordinator> GroupMember<C> {
    /// A member to be. It joins with its first poll.
    pub fn new(coordinator: C, candidate: Candidate, counts: Arc<dyn PartitionCounts>) -> Self {
        let name = candidate.member.clone();
        Self {
            coordinator,
            candidate,
            counts,
            now: Timestamp::default(),
            phase: Phase::ToJoin,
            left: false,
            is_leaving: false,
            name,
            generation: -1,
            held: BTreeSet::new(),
            going: BTreeSet::new(),
            given_up: BTreeSet::new(),
            untold: BTreeSet::new(),
            ended: BTreeSet::new(),
            evicted: BTreeSet::new(),
            roll: Roll::default(),
            is_told: false,
            standbys: BTreeSet::new(),
            copies: BTreeMap::new(),
            awaited: BTreeSet::new(),
            said_caught_up: BTreeSet::new(),
            wanted: 0,
            is_rebalance_wanted: false,
            leads: None,
            directory: Arc::default(),
            events: VecDeque::new(),
        }
    }

    /// The line to the coordinator.
    pub fn coordinator(&self) -> &C {
        &self.coordinator
    }

    /// Forgets the membership without leaving, as a crash does. This member is of no use from here on.
    pub fn abandon(&mut self) {
        self.left = true;
    }

    /// Does what the phase asks for.
    fn act(&mut self) -> Result<(), BrokerError> {
        if matches!(self.phase, Phase::Stable) {
            if let Some(reason) =
                self.leads.as_ref().and_then(|leader| leader.wants_rebalance(&self.candidate, &*self.counts, self.now))
            {
                self.want_rebalance(reason);
            }
            if self.coordinator.is_settled() && self.roll.is_to_be_called(&self.directory, self.now) {
                self.want_rebalance("an instance is silent");
            }
            // Not before: a rebalance that is begun while another is under way would never end.
            if self.is_rebalance_wanted {
                self.phase = Phase::ToJoin;
            }
        }
        match &self.phase {
            Phase::ToJoin => {
                self.coordinator.join(self.request())?;
                let caught_up = self.copies.iter().filter(|(_, copy)| copy.is_caught_up);
                self.said_caught_up = caught_up.map(|(task, _)| task.clone()).collect();
                self.is_rebalance_wanted = false;
                self.given_up.clear();
                self.phase = Phase::Joining;
            }
            Phase::ToSync(assignments) => {
                self.coordinator.sync(assignments.clone())?;
                self.phase = Phase::Syncing;
            }
            Phase::Joining | Phase::Syncing | Phase::Stable => {}
        }
        Ok(())
    }

    fn request(&self) -> JoinRequest {
        let Candidate { instance, incarnation, topics, threads, endpoint, rack, .. } = &self.candidate;
        let info = MemberInfo {
            instance: instance.clone(),
            incarnation: *incarnation,
            wanted: self.wanted,
            is_leaving: self.is_leaving,
            threads: *threads,
            endpoint: endpoint.clone(),
            rack: rack.clone(),
            copies: self.copies.clone(),
            directory: self.directory.clone(),
        };
        let metadata = MemberMetadata {
            topics: topics.clone(),
            owned: self.held.iter().cloned().collect(),
            generation: self.generation,
            user_data: user_data::encode(&info),
        };
        JoinRequest { member: self.name.clone(), metadata }
    }

    fn hear(&mut self, answer: Answer) -> Result<(), BrokerError> {
        match answer {
            Answer::Joined { generation, member, members } => self.joined(generation, member, members),
            Answer::Synced(assignment) => self.synced(&assignment),
            Answer::TransactionsEnded => self.tell_untold(),
            Answer::Rebalance => self.phase = Phase::ToJoin,
            Answer::Gone(gone) => return self.lost(gone),
        }
        Ok(())
    }

    fn joined(&mut self, generation: i32, member: Arc<str>, members: Option<BTreeMap<Arc<str>, MemberMetadata>>) {
        // Under another name nothing was listed. And where a generation has passed without this member, somebody else was in it under its name, and may have
        // held what it holds.
        let is_unbroken = self.generation < 0 || (self.generation..=self.generation + 1).contains(&generation);
        if self.name.as_ref() != Some(&member) || !is_unbroken {
            let is_listed = self.name.as_ref() == Some(&member) && !self.held.is_empty();
            self.lose();
            // The group waits for this member to give up what it has listed, and must hear that it does not hold it.
            if is_listed {
                self.want_rebalance("what this member has listed is lost");
            }
        }
        (self.generation, self.name) = (generation, Some(member));
        if !self.held.is_empty() {
            self.tell_assigned(Vec::new());
        }
        self.leads = members.as_ref().map(|_| Leader::default());
        let assignments = match (&mut self.leads, &members) {
            (Some(leader), Some(members)) => {
                leader.assign(&self.candidate, &*self.counts, &self.directory, (generation, self.now), members)
            }
            _ => BTreeMap::new(),
        };
        self.phase = Phase::ToSync(assignments);
    }

    fn synced(&mut self, assignment: &MemberAssignment) {
        self.phase = Phase::Stable;
        let before = self.directory.clone();
        match user_data::decode::<Directory>(&assignment.user_data) {
            Some(directory) => self.directory = Arc::new(directory),
            None => tracing::warn!(
                group = %self.candidate.group,
                "the group's leader speaks a version of the assignment that this program does not read: it takes no tasks"
            ),
        }
        let assigned: BTreeSet<_> =
            assignment.partitions.iter().filter(|partition| !self.given_up.contains(*partition)).cloned().collect();
        let come: Vec<_> = assigned.difference(&self.held).cloned().collect();
        let gone: Vec<_> = self.held.difference(&assigned).filter(|held| !self.going.contains(*held)).cloned().collect();
        self.roll.answered(&self.directory, self.now);
        self.revoke(gone);
        self.take(come, &before);
        self.follow_roles();
    }

    /// Asks partitions back. What was not told yet goes at once.
    fn revoke(&mut self, gone: Vec<TopicPartition>) {
        let (untold, told): (Vec<_>, Vec<_>) = gone.into_iter().partition(|partition| self.untold.remove(partition));
        if !untold.is_empty() {
            self.drop_held(&untold);
        }
        if !told.is_empty() {
            self.going.extend(told.iter().cloned());
            self.events.push_back(MemberEvent::Revoked { partitions: told });
        }
    }

    /// Takes partitions over: at once, or when the transactions are ended that those have left open who had them `before` and are gone.
    fn take(&mut self, come: Vec<TopicPartition>, before: &Directory) {
        self.held.extend(come.iter().cloned());
        let now = &self.directory;
        self.ended.retain(|instance| !now.instances.contains_key(instance));
        let known = before.threads().into_iter().chain(now.threads());
        let gone = known.filter(|(instance, _)| !now.instances.contains_key(instance) && !self.ended.contains(instance));
        let gone: BTreeMap<_, _> = gone.collect();
        if come.is_empty() || gone.is_empty() {
            // One that gets nothing is told that, once.
            if !come.is_empty() || !self.is_told {
                self.tell_assigned(come);
            }
            return;
        }
        let group = &self.candidate.group;
        let ids_of = |(instance, threads): (&Arc<str>, &u32)| {
            (0..=*threads as usize).map(|n| transactional_id(group, instance, n)).collect()
        };
        let ids: Vec<Vec<_>> = gone.iter().map(ids_of).collect();
        tracing::info!(%group, instances = ?gone.keys().collect::<Vec<_>>(), "instances are gone: what they have left open is ended");
        self.untold.extend(come);
        self.ended.extend(gone.into_keys());
        if let Err(error) = self.coordinator.end_transactions(ids.concat()) {
            tracing::warn!(%error, group = %self.candidate.group, "what instances that are gone have left open ends by itself");
            self.tell_untold();
        }
    }

    fn tell_untold(&mut self) {
        let untold = std::mem::take(&mut self.untold);
        if !untold.is_empty() || !self.is_told {
            self.tell_assigned(untold.into_iter().collect());
        }
        self.follow_roles();
    }

    /// Tells which copies are to be kept, and finds which of them the group waits for.
    fn follow_roles(&mut self) {
        let roles = self.name.as_ref().and_then(|name| self.directory.roles_of(name));
        let warmups = roles.into_iter().flat_map(|roles| &roles.warmup);
        let moving = self.directory.assignment.moving.iter();
        let comes_here = moving.filter(|(_, to)| **to == self.candidate.instance).map(|(task, _)| task);
        self.awaited = warmups.chain(comes_here).filter(|task| !self.said_caught_up.contains(*task)).cloned().collect();
        let mut standbys: BTreeSet<_> = roles.into_iter().flat_map(|roles| roles.standby.union(&roles.warmup)).cloned().collect();
        // A copy that is about to be promoted stays open until it is.
        standbys.extend(self.untold.intersection(&self.standbys).cloned());
        if standbys != self.standbys {
            self.standbys = standbys;
            self.events.push_back(MemberEvent::Standbys { partitions: self.standbys.iter().cloned().collect() });
        }
        self.notice_caught_up();
    }

    fn tell_assigned(&mut self, partitions: Vec<TopicPartition>) {
        if let Some(name) = &self.name {
            let fence = Fence::new(self.candidate.group.clone(), self.generation, name.clone());
            self.events.push_back(MemberEvent::Assigned { partitions, fence });
            self.is_told = true;
        }
    }

    /// These are not held any more.
    fn drop_held<'a>(&mut self, partitions: impl IntoIterator<Item = &'a TopicPartition>) {
        for partition in partitions {
            self.held.remove(partition);
            self.given_up.insert(partition.clone());
        }
        self.want_rebalance("tasks were given up");
    }

    /// This is no member any more.
    fn lost(&mut self, gone: Gone) -> Result<(), BrokerError> {
        let name = self.name.take();
        self.lose();
        self.phase = Phase::ToJoin;
        match gone {
            Gone::UnknownMember => Ok(()),
            Gone::OtherGeneration => {
                let (group, name) = (&self.candidate.group, name.unwrap_or_default());
                let message = format!(
                    "another process has joined group {group} as {name}, which is this instance: is its data directory a copy? Give each \
                     instance a data directory of its own"
                );
                Err(BrokerError::new(ErrorKind::Stop, message))
            }
        }
    }

    /// Everything that was told is lost.
    fn lose(&mut self) {
        // Copies may have been told before any task was.
        let was_told = std::mem::take(&mut self.is_told) || !self.standbys.is_empty();
        self.standbys.clear();
        self.held.clear();
        self.going.clear();
        self.given_up.clear();
        self.untold.clear();
        self.awaited.clear();
        self.leads = None;
        self.generation = -1;
        if was_told {
            self.events.push_back(MemberEvent::Lost);
        }
    }

    /// Lets the group rebalance, once the rebalance that may be under way is through.
    fn want_rebalance(&mut self, reason: &str) {
        tracing::debug!(group = %self.candidate.group, reason, "a rebalance is wanted");
        self.wanted = self.wanted.wrapping_add(1);
        self.is_rebalance_wanted = true;
    }

    fn notice_caught_up(&mut self) {
        let copies = &self.copies;
        let before = self.awaited.len();
        self.awaited.retain(|task| !copies.get(task).is_some_and(|copy| copy.is_caught_up));
        if self.awaited.len() < before {
            self.want_rebalance("a copy that the group waits for has caught up");
        }
    }

    fn check_member(&self) -> Result<(), BrokerError> {
        match self.left {
            false => Ok(()),
            true => {
                let message = format!("this member has left group {}", self.candidate.group);
                Err(BrokerError::new(ErrorKind::Fenced, message))
            }
        }
    }
}

impl<C: Coordinator> Membership for GroupMember<C> {
    fn poll(&mut self, max_wait: Duration) -> Result<MemberEvent, BrokerError> {
        self.check_member()?;
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            self.act()?;
            match self.coordinator.next(max_wait)? {
                Some(answer) => self.hear(answer)?,
                None => return Ok(MemberEvent::Nothing),
            }
        }
    }

    /// After the membership was lost or left this does nothing: its partitions have gone to others already.
    fn give_up(&mut self, partitions: &[TopicPartition]) -> Result<(), BrokerError> {
        let given_up: Vec<_> = partitions.iter().filter(|partition| self.going.remove(*partition)).collect();
        if given_up.is_empty() {
            return Ok(());
        }
        self.drop_held(given_up);
        Ok(())
    }

    fn report(&mut self, now: Timestamp, copies: BTreeMap<TopicPartition, StoreCopy>) {
        self.now = now;
        self.copies = copies;
        self.notice_caught_up();
    }

    fn evict(&mut self, instance: &str, incarnation: u64) -> Result<(), BrokerError> {
        let known = self.directory.instances.get(instance).filter(|info| info.incarnation == incarnation);
        let Some(info) = known.filter(|info| Some(&info.member) != self.name.as_ref()) else { return Ok(()) };
        if !self.evicted.insert((instance.into(), incarnation)) {
            return Ok(());
        }
        tracing::info!(group = %self.candidate.group, instance, member = %info.member, "an instance has ended: it is taken out of the group");
        self.coordinator.remove(std::slice::from_ref(&info.member), "the process has ended")?;
        self.want_rebalance("an instance has ended");
        Ok(())
    }

    fn suspect(&mut self, silent: &BTreeMap<Arc<str>, u64>) {
        self.roll.suspect(silent, self.directory.generation);
    }

    fn confirmation(&self) -> Option<Confirmation> {
        self.coordinator.confirmation()
    }

    fn hand_over(&mut self) {
        if !std::mem::replace(&mut self.is_leaving, true) {
            self.want_rebalance("this member is about to leave");
        }
    }

    fn has_handed_over(&self) -> bool {
        let is_settled = matches!(self.phase, Phase::Stable) && !self.is_rebalance_wanted && self.going.is_empty();
        self.is_leaving && (is_settled || self.held.is_empty() || self.directory.instances.len() <= 1)
    }

    fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    fn leave(&mut self) -> Result<(), BrokerError> {
        self.left = true;
        self.coordinator.leave("the instance stops")
    }
}

impl<C: Coordinator> Drop for GroupMember<C> {
    fn drop(&mut self) {
        if !self.left
            && let Err(error) = self.coordinator.leave("the instance joins anew")
        {
            tracing::debug!(%error, group = %self.candidate.group, "the group could not be told that a member leaves");
        }
    }
}
