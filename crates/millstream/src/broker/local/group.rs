//! Consumer groups: members, what each holds, and the handing over between them.
//!
//! A partition is in the hands of one member at most. It goes over in steps:
//!
//! | step | the partition is | until |
//! |---|---|---|
//! | a rebalance wants it elsewhere | held, to be revoked | its holder polls and is told `Revoked` |
//! | told | held, may still be committed | its holder polls again, leaves or is expired |
//! | free | handed to the member that the rebalance chose | that member polls and is told `Assigned` |
//!
//! Every rebalance begins a new generation. A commit is valid where the member of its proof holds every partition named, and has
//! done so since a generation that is not after the proof's. So a proof stays good for the partitions that stay, and is worth
//! nothing for one that went away, even where it came back to the same member since.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::{BrokerError, CommittedOffset, ErrorKind, GroupMetadata};
use super::assignment::{MemberId, assign};
use crate::record::{Topic, TopicPartition};

#[derive(Debug, Default)]
pub(super) struct Group {
    generation: i32,
    joined: MemberId,
    members: BTreeMap<MemberId, Member>,
    held: BTreeMap<TopicPartition, Holding>,
    target: BTreeMap<TopicPartition, MemberId>,
    /// What the group has committed; it outlives its members.
    pub(super) offsets: BTreeMap<TopicPartition, CommittedOffset>,
}

#[derive(Debug)]
struct Member {
    topics: BTreeSet<Topic>,
    /// Held, and not told yet.
    assigned: BTreeSet<TopicPartition>,
    /// To be revoked, and not told yet.
    to_revoke: BTreeSet<TopicPartition>,
    /// Told; given up at the next poll.
    revoking: BTreeSet<TopicPartition>,
}

#[derive(Debug, Clone, Copy)]
struct Holding {
    member: MemberId,
    /// The generation in which the member got it.
    since: i32,
}

/// What a member is to be told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum MemberEvent {
    Assigned { partitions: Vec<TopicPartition>, generation: i32 },
    Revoked { partitions: Vec<TopicPartition> },
    Lost,
}

impl Group {
    /// Adds a member and shares the partitions anew. `partitions` says how many each topic has.
    pub(super) fn join(&mut self, topics: &[Topic], partitions: &BTreeMap<Topic, u32>) -> MemberId {
        let id = self.joined;
        self.joined += 1;
        let topics = topics.iter().cloned().collect();
        let (assigned, to_revoke, revoking) = Default::default();
        self.members.insert(id, Member { topics, assigned, to_revoke, revoking });
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
        self.members.get(&id).is_none_or(|m| !(m.revoking.is_empty() && m.to_revoke.is_empty() && m.assigned.is_empty()))
    }

    /// A member polls: what it was told to give up is free from here on, and it learns what there is to learn.
    /// `freed` is set where others may have events now.
    pub(super) fn poll(&mut self, id: MemberId, freed: &mut bool) -> Option<MemberEvent> {
        let Some(member) = self.members.get_mut(&id) else {
            return Some(MemberEvent::Lost);
        };
        let revoked = std::mem::take(&mut member.revoking);
        if !revoked.is_empty() {
            self.held.retain(|partition, _| !revoked.contains(partition));
            self.hand_out();
            *freed = true;
        }
        let member = self.members.get_mut(&id)?;
        if !member.to_revoke.is_empty() {
            member.revoking = std::mem::take(&mut member.to_revoke);
            return Some(MemberEvent::Revoked { partitions: member.revoking.iter().cloned().collect() });
        }
        if member.assigned.is_empty() {
            return None;
        }
        let partitions = std::mem::take(&mut member.assigned).into_iter().collect();
        Some(MemberEvent::Assigned { partitions, generation: self.generation })
    }

    /// Whether the member still holds the partition.
    pub(super) fn holds(&self, id: MemberId, partition: &TopicPartition) -> bool {
        self.held.get(partition).is_some_and(|holding| holding.member == id)
    }

    /// Whether any member consumes the topic.
    pub(super) fn consumes(&self, topic: &str) -> bool {
        self.members.values().any(|member| member.topics.contains(topic))
    }

    /// Whether positions of these partitions may be committed on that proof.
    pub(super) fn check<'a>(
        &self,
        proof: &GroupMetadata,
        partitions: impl Iterator<Item = &'a TopicPartition>,
    ) -> Result<(), BrokerError> {
        let refuse = |reason: String| {
            let (member, group, generation) = (&proof.member, &proof.group, proof.generation);
            let message = format!("member {member} of group {group}, generation {generation}: {reason}");
            Err(BrokerError::new(ErrorKind::AbortTransaction, message))
        };
        let Some(id) = parse_member_name(&proof.member).filter(|id| self.members.contains_key(id)) else {
            return refuse(format!("is no longer a member (generation {})", self.generation));
        };
        for partition in partitions {
            match self.held.get(partition) {
                Some(holding) if holding.member == id && holding.since <= proof.generation => {}
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
        Remove(usize),
        RevokeAll,
        Grow,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => Just(Step::Join),
            12 => any::<usize>().prop_map(Step::Poll),
            1 => any::<usize>().prop_map(Step::Remove),
            1 => Just(Step::RevokeAll),
            1 => Just(Step::Grow),
        ]
    }

    /// What a member believes: what it holds, what it has been told to give up, and its newest proof.
    #[derive(Debug, Default)]
    struct Belief {
        held: BTreeSet<TopicPartition>,
        going: BTreeSet<TopicPartition>,
        generation: i32,
    }

    fn poll(group: &mut Group, id: MemberId, belief: &mut Belief) {
        let going = std::mem::take(&mut belief.going);
        belief.held.retain(|partition| !going.contains(partition));
        match group.poll(id, &mut false) {
            Some(MemberEvent::Assigned { partitions, generation }) => {
                belief.held.extend(partitions);
                belief.generation = generation;
            }
            Some(MemberEvent::Revoked { partitions }) => belief.going.extend(partitions),
            Some(MemberEvent::Lost) => panic!("member {id} was not removed"),
            None => {}
        }
    }

    fn proof(id: MemberId, generation: i32) -> GroupMetadata {
        GroupMetadata { group: "g".into(), generation, member: member_name(id) }
    }

    proptest! {
        #[test]
        fn a_partition_is_in_one_hand_at_most(steps in prop::collection::vec(step(), 1..80)) {
            let topic: Topic = "t".into();
            let mut counts = BTreeMap::from([(topic.clone(), 3)]);
            let mut group = Group::default();
            let mut beliefs: BTreeMap<MemberId, Belief> = BTreeMap::new();
            let pick = |beliefs: &BTreeMap<MemberId, Belief>, n: usize| beliefs.keys().nth(n % beliefs.len().max(1)).copied();
            for step in steps {
                match step {
                    Step::Join => drop(beliefs.insert(group.join(std::slice::from_ref(&topic), &counts), Belief::default())),
                    Step::Poll(n) => if let Some(id) = pick(&beliefs, n) {
                        poll(&mut group, id, beliefs.get_mut(&id).unwrap());
                    },
                    Step::Remove(n) => if let Some(id) = pick(&beliefs, n) {
                        let zombie = beliefs.remove(&id).unwrap();
                        prop_assert!(group.remove(id, &counts));
                        prop_assert!(group.check(&proof(id, zombie.generation), zombie.held.iter()).is_err());
                    },
                    Step::RevokeAll => group.revoke_all(),
                    Step::Grow => {
                        *counts.get_mut(&topic).unwrap() += 1;
                        group.rebalance(&counts);
                    }
                }
                let mut seen = BTreeSet::new();
                for (id, belief) in &beliefs {
                    for partition in &belief.held {
                        prop_assert!(seen.insert(partition.clone()), "{partition} is in two hands");
                        prop_assert!(group.check(&proof(*id, belief.generation), std::iter::once(partition)).is_ok());
                    }
                }
            }
            // Left alone, everything finds an owner.
            while let Some(id) = beliefs.keys().copied().find(|id| group.has_event(*id)) {
                poll(&mut group, id, beliefs.get_mut(&id).unwrap());
            }
            let held: BTreeSet<_> = beliefs.values().flat_map(|belief| belief.held.iter().cloned()).collect();
            let all: BTreeSet<_> = (0..counts[&topic]).map(|p| TopicPartition::new(topic.clone(), Partition(p))).collect();
            prop_assert_eq!(held, if beliefs.is_empty() { BTreeSet::new() } else { all });
        }
    }
}
