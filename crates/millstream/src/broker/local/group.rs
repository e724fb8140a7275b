//! Consumer groups: members, what each holds, and the handing over between them.
//!
//! A partition is in the hands of one member at most. It goes over in steps:
//!
//! | step | the partition is | until |
//! |---|---|---|
//! | a rebalance wants it elsewhere | held, to be revoked | its holder polls and is told `Revoked` |
//! | told | held, may still be committed | its holder gives it up, leaves or is expired |
//! | free | handed to the member that the rebalance chose | that member polls and is told `Assigned` |
//!
//! Between being told and giving up a member goes on polling, and learns whatever else there is to learn. A partition that was told
//! `Revoked` goes, even where a later rebalance wants it where it is: it then comes back as one that is free.
//!
//! Every rebalance begins a new generation, and so does every giving up. A commit is valid where the member of its proof holds every partition named, and has
//! done so since a generation that is not after the proof's. So a proof stays good for the partitions that stay, and is worth
//! nothing for one that went away, even where it came back to the same member since.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::{BrokerError, CommittedOffset, ErrorKind, Fence, MemberEvent};
use super::assignment::{MemberId, assign};
use crate::record::{Topic, TopicPartition};

#[derive(Debug, Default)]
pub(super) struct Group {
    generation: i32,
    joined: MemberId,
    members: BTreeMap<MemberId, Member>,
    held: BTreeMap<TopicPartition, Holding>,
    target: BTreeMap<TopicPartition, MemberId>,
    /// Whether a member may commit what it does not hold, as on Kafka.
    trusts_members: bool,
    /// How many members keep a copy of each partition's store, beside the one that holds it.
    standbys: usize,
    /// What the group has committed; it outlives its members.
    pub(super) offsets: BTreeMap<TopicPartition, CommittedOffset>,
}

#[derive(Debug, Default)]
struct Member {
    topics: BTreeSet<Topic>,
    /// Held, and not told yet.
    assigned: BTreeSet<TopicPartition>,
    /// To be revoked, and not told yet.
    to_revoke: BTreeSet<TopicPartition>,
    /// Told, and not given up yet.
    revoking: BTreeSet<TopicPartition>,
    /// What it is to keep copies of, and what it was told last.
    standbys: BTreeSet<TopicPartition>,
    told_standbys: BTreeSet<TopicPartition>,
    /// The newest generation that it has a proof of.
    told_generation: i32,
}

impl Member {
    /// Whether it has something to learn of the partitions.
    fn has_event(&self) -> bool {
        !(self.to_revoke.is_empty() && self.assigned.is_empty()) || self.standbys != self.told_standbys
    }
}

#[derive(Debug, Clone, Copy)]
struct Holding {
    member: MemberId,
    /// The generation in which the member got it.
    since: i32,
}

impl Group {
    /// Adds a member and shares the partitions anew. `partitions` says how many each topic has.
    pub(super) fn join(&mut self, topics: &[Topic], partitions: &BTreeMap<Topic, u32>) -> MemberId {
        let id = self.joined;
        self.joined += 1;
        let topics = topics.iter().cloned().collect();
        self.members.insert(id, Member { topics, ..Member::default() });
        self.rebalance(partitions);
        id
    }

    /// Takes a member out, with all that it holds. Whether there was one.
    pub(super) fn remove(&mut self, id: MemberId, partitions: &BTreeMap<Topic, u32>) -> bool {
        let was_there = self.members.remove(&id).is_some();
        if was_there {
            self.held.retain(|_, holding| holding.member != id);
            self.rebalance(partitions);
        }
        was_there
    }

    /// Shares the partitions anew, in a new generation.
    pub(super) fn rebalance(&mut self, partitions: &BTreeMap<Topic, u32>) {
        self.generation += 1;
        let members = self.members.iter().map(|(id, member)| (*id, member.topics.clone())).collect();
        let holders = self.held.iter().map(|(partition, holding)| (partition.clone(), holding.member)).collect();
        self.target = assign(partitions, &members, &holders);
        let held: Vec<_> = self.held.iter().map(|(partition, holding)| (partition.clone(), holding.member)).collect();
        for (partition, holder) in held {
            let stays = self.target.get(&partition) == Some(&holder);
            let Some(member) = self.members.get_mut(&holder) else { continue };
            if stays {
                member.to_revoke.remove(&partition);
            } else if member.assigned.remove(&partition) {
                self.held.remove(&partition);
            } else if !member.revoking.contains(&partition) {
                member.to_revoke.insert(partition);
            }
        }
        self.hand_out();
    }

    /// Copies are kept by the members that come after the one that holds the partition, or after the one that is to hold it; and by that one,
    /// until it does.
    fn share_standbys(&mut self) {
        let subscribers = |topic: &Topic| {
            let subscribed = self.members.iter().filter(|(_, member)| member.topics.contains(topic));
            subscribed.map(|(id, _)| *id).collect::<Vec<_>>()
        };
        let mut standbys: BTreeMap<MemberId, BTreeSet<TopicPartition>> = BTreeMap::new();
        for (partition, owner) in &self.target {
            let subscribers = subscribers(&partition.topic);
            let holder = self.held.get(partition).map(|holding| holding.member);
            let behind = subscribers.iter().chain(&subscribers).skip_while(|id| *id != owner).take(subscribers.len());
            for id in behind.filter(|id| Some(**id) != holder).take(self.standbys) {
                standbys.entry(*id).or_default().insert(partition.clone());
            }
        }
        for (id, member) in &mut self.members {
            member.standbys = standbys.remove(id).unwrap_or_default();
        }
    }

    /// From the next rebalance on so many members beside its holder keep a copy of each partition's store.
    pub(super) fn keep_standbys(&mut self, standbys: usize) {
        self.standbys = standbys;
    }

    /// Takes everything away from everybody and gives it out again: the members see `Revoked`, then `Assigned`.
    pub(super) fn revoke_all(&mut self) {
        self.generation += 1;
        for (partition, holding) in &self.held {
            let Some(member) = self.members.get_mut(&holding.member) else { continue };
            if !member.revoking.contains(partition) && !member.assigned.contains(partition) {
                member.to_revoke.insert(partition.clone());
            }
        }
    }

    /// Whether a poll of that member would bring an event.
    pub(super) fn has_event(&self, id: MemberId) -> bool {
        self.members.get(&id).is_none_or(|member| member.has_event() || self.has_newer_proof(member))
    }

    /// Whether its proofs are worth nothing any more. Where it is checked what members hold, they stay good.
    fn has_newer_proof(&self, member: &Member) -> bool {
        self.trusts_members && member.told_generation < self.generation
    }

    /// A member of this group, which has that name, polls: the next thing that it has to learn.
    pub(super) fn poll(&mut self, name: &Arc<str>, id: MemberId) -> MemberEvent {
        let Some(member) = self.members.get_mut(&id) else {
            return MemberEvent::Lost;
        };
        if !member.to_revoke.is_empty() {
            let told = std::mem::take(&mut member.to_revoke);
            member.revoking.extend(told.iter().cloned());
            return MemberEvent::Revoked { partitions: told.into_iter().collect() };
        }
        if !member.assigned.is_empty() || (self.trusts_members && member.told_generation < self.generation) {
            let partitions = std::mem::take(&mut member.assigned).into_iter().collect();
            member.told_generation = self.generation;
            return MemberEvent::Assigned { partitions, fence: Fence::new(name.clone(), self.generation, member_name(id)) };
        }
        if member.standbys != member.told_standbys {
            member.told_standbys = member.standbys.clone();
            return MemberEvent::Standbys { partitions: member.standbys.iter().cloned().collect() };
        }
        MemberEvent::Nothing
    }

    /// A member gives up those of these partitions that it was told to: they are free from here on. Whether there were any, so that
    /// somebody may have events now.
    pub(super) fn give_up(&mut self, id: MemberId, partitions: &[TopicPartition]) -> bool {
        let Some(member) = self.members.get_mut(&id) else { return false };
        let given_up: Vec<_> = partitions.iter().filter(|partition| member.revoking.remove(*partition)).collect();
        if given_up.is_empty() {
            return false;
        }
        for partition in given_up {
            self.held.remove(partition);
        }
        // What goes back to the member that had it must not be good under a proof that it was given before.
        self.generation += 1;
        self.hand_out();
        true
    }

    /// From now on a proof is judged as Kafka does: by its generation alone, which has to be the newest. Who owns a partition is never
    /// checked: it is for the engine to commit nothing of what it has given up or lost.
    pub(super) fn trust_members(&mut self) {
        self.trusts_members = true;
    }

    /// Whether any member consumes the topic.
    pub(super) fn consumes(&self, topic: &str) -> bool {
        self.members.values().any(|member| member.topics.contains(topic))
    }

    /// Whether positions of these partitions may be committed on that proof.
    pub(super) fn check<'a>(
        &self,
        proof: &Fence,
        partitions: impl Iterator<Item = &'a TopicPartition>,
    ) -> Result<(), BrokerError> {
        let refuse = |reason: String| {
            let (member, group, generation) = (proof.member(), proof.group(), proof.generation());
            let message = format!("member {member} of group {group}, generation {generation}: {reason}");
            Err(BrokerError::new(ErrorKind::AbortTransaction, message))
        };
        let Some(id) = parse_member_name(proof.member()).filter(|id| self.members.contains_key(id)) else {
            return refuse(format!("is no longer a member (generation {})", self.generation));
        };
        if self.trusts_members {
            return match proof.generation() == self.generation {
                true => Ok(()),
                false => refuse(format!("the group is in generation {}", self.generation)),
            };
        }
        for partition in partitions {
            match self.held.get(partition) {
                Some(holding) if holding.member == id && holding.since <= proof.generation() => {}
                _ => return refuse(format!("does not hold {partition} under this generation")),
            }
        }
        Ok(())
    }

    /// Gives every partition that nobody holds to the member that is to have it.
    fn hand_out(&mut self) {
        for (partition, id) in &self.target {
            if self.held.contains_key(partition) {
                continue;
            }
            if let Some(member) = self.members.get_mut(id) {
                self.held.insert(partition.clone(), Holding { member: *id, since: self.generation });
                member.assigned.insert(partition.clone());
            }
        }
        self.share_standbys();
    }
}

/// The name that a member carries in its proof.
pub(super) fn member_name(id: MemberId) -> Arc<str> {
    format!("member-{id}").into()
}

pub(super) fn parse_member_name(name: &str) -> Option<MemberId> {
    name.strip_prefix("member-")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Partition;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Join,
        Poll(usize),
        /// The member, and which of the partitions that it was told to give up, by turns.
        GiveUp(usize, usize),
        Remove(usize),
        RevokeAll,
        Grow,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => Just(Step::Join),
            12 => any::<usize>().prop_map(Step::Poll),
            6 => (any::<usize>(), 1..4_usize).prop_map(|(member, every)| Step::GiveUp(member, every)),
            1 => any::<usize>().prop_map(Step::Remove),
            1 => Just(Step::RevokeAll),
            1 => Just(Step::Grow),
        ]
    }

    /// What a member believes.
    #[derive(Debug, Default)]
    struct Belief {
        held: BTreeSet<TopicPartition>,
        /// Held, and told to give up.
        going: BTreeSet<TopicPartition>,
        /// Its newest proof.
        generation: i32,
        /// What it has given up, and its newest proof then.
        gone: Vec<(TopicPartition, i32)>,
    }

    impl Belief {
        fn poll(&mut self, group: &mut Group, id: MemberId) {
            match group.poll(&"g".into(), id) {
                MemberEvent::Assigned { partitions, fence } => {
                    self.held.extend(partitions);
                    self.generation = fence.generation();
                }
                MemberEvent::Revoked { partitions } => self.going.extend(partitions),
                MemberEvent::Lost => panic!("member {id} was not removed"),
                MemberEvent::Standbys { partitions } => {
                    let kept = BTreeSet::from_iter(partitions);
                    assert!(
                        kept.iter().all(|partition| group.held.get(partition).is_none_or(|held| held.member != id)),
                        "it holds them"
                    );
                }
                MemberEvent::Nothing => {}
            }
        }

        fn give_up(&mut self, group: &mut Group, id: MemberId, every: usize) {
            let given_up: Vec<_> = self.going.iter().step_by(every).cloned().collect();
            // What is not asked back, it says nothing of.
            let said: Vec<_> = given_up.iter().chain(self.held.difference(&self.going)).cloned().collect();
            assert_eq!(group.give_up(id, &said), !given_up.is_empty());
            for partition in given_up {
                self.held.remove(&partition);
                self.going.remove(&partition);
                self.gone.push((partition, self.generation));
            }
        }
    }

    fn proof(id: MemberId, generation: i32) -> Fence {
        Fence::new("g", generation, member_name(id))
    }

    fn check_all(group: &Group, beliefs: &BTreeMap<MemberId, Belief>) -> Result<(), TestCaseError> {
        let mut seen = BTreeSet::new();
        for (id, belief) in beliefs {
            for partition in &belief.held {
                prop_assert!(seen.insert(partition.clone()), "{partition} is in two hands");
                prop_assert!(group.check(&proof(*id, belief.generation), std::iter::once(partition)).is_ok());
            }
            for (partition, generation) in &belief.gone {
                prop_assert!(
                    group.check(&proof(*id, *generation), std::iter::once(partition)).is_err(),
                    "{partition} was given up"
                );
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn a_partition_is_in_one_hand_at_most(steps in prop::collection::vec(step(), 1..80)) {
            let topic: Topic = "t".into();
            let mut counts = BTreeMap::from([(topic.clone(), 3)]);
            let mut group = Group::default();
            group.keep_standbys(1);
            let mut beliefs: BTreeMap<MemberId, Belief> = BTreeMap::new();
            let pick = |beliefs: &BTreeMap<MemberId, Belief>, n: usize| beliefs.keys().nth(n % beliefs.len().max(1)).copied();
            for step in steps {
                match step {
                    Step::Join => drop(beliefs.insert(group.join(std::slice::from_ref(&topic), &counts), Belief::default())),
                    Step::Poll(n) => if let Some(id) = pick(&beliefs, n) {
                        beliefs.get_mut(&id).unwrap().poll(&mut group, id);
                    },
                    Step::GiveUp(n, every) => if let Some(id) = pick(&beliefs, n) {
                        beliefs.get_mut(&id).unwrap().give_up(&mut group, id, every);
                    },
                    Step::Remove(n) => if let Some(id) = pick(&beliefs, n) {
                        let zombie = beliefs.remove(&id).unwrap();
                        prop_assert!(group.remove(id, &counts));
                        prop_assert!(group.check(&proof(id, zombie.generation), zombie.held.iter()).is_err());
                        prop_assert!(!group.give_up(id, &Vec::from_iter(zombie.going)));
                    },
                    Step::RevokeAll => group.revoke_all(),
                    Step::Grow => {
                        *counts.get_mut(&topic).unwrap() += 1;
                        group.rebalance(&counts);
                    }
                }
                check_all(&group, &beliefs)?;
            }
            // Left alone, everything finds an owner.
            let is_busy = |group: &Group, id: MemberId, belief: &Belief| group.has_event(id) || !belief.going.is_empty();
            while let Some((id, belief)) = beliefs.iter_mut().find(|(id, belief)| is_busy(&group, **id, belief)) {
                belief.poll(&mut group, *id);
                belief.give_up(&mut group, *id, 1);
            }
            check_all(&group, &beliefs)?;
            let held: BTreeSet<_> = beliefs.values().flat_map(|belief| belief.held.iter().cloned()).collect();
            let all: BTreeSet<_> = (0..counts[&topic]).map(|p| TopicPartition::new(topic.clone(), Partition(p))).collect();
            prop_assert_eq!(held, if beliefs.is_empty() { BTreeSet::new() } else { all });
        }
    }
}
