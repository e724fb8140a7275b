//! Who gets which partition: even within each topic, and with as few moves as evenness allows.

use std::collections::{BTreeMap, BTreeSet};

use crate::record::{Partition, Topic, TopicPartition};

/// A member's number; a member that joined later has a larger one.
pub(super) type MemberId = u64;

/// Assigns every partition of every topic to one of its subscribers.
///
/// Within a topic no member has two partitions more than another. Who gets the odd ones is decided by the fewest partitions so far,
/// then by who has more of the topic already, then by age. A member keeps what it has up to its share.
pub(super) fn assign(
    topics: &BTreeMap<Topic, u32>,
    members: &BTreeMap<MemberId, BTreeSet<Topic>>,
    current: &BTreeMap<TopicPartition, MemberId>,
) -> BTreeMap<TopicPartition, MemberId> {
    let mut load: BTreeMap<MemberId, u32> = BTreeMap::new();
    let mut target = BTreeMap::new();
    for (topic, &partitions) in topics {
        let subscribers: Vec<MemberId> = members.iter().filter(|(_, topics)| topics.contains(topic)).map(|(id, _)| *id).collect();
        if subscribers.is_empty() {
            continue;
        }
        for (partition, member) in assign_topic(topic, partitions, subscribers, current, &load) {
            *load.entry(member).or_default() += 1;
            target.insert(TopicPartition::new(topic.clone(), partition), member);
        }
    }
    target
}

fn assign_topic(
    topic: &Topic,
    partitions: u32,
    mut subscribers: Vec<MemberId>,
    current: &BTreeMap<TopicPartition, MemberId>,
    load: &BTreeMap<MemberId, u32>,
) -> BTreeMap<Partition, MemberId> {
    let holder = |partition| current.get(&TopicPartition::new(topic.clone(), partition));
    let mut held: BTreeMap<MemberId, u32> = BTreeMap::new();
    for member in (0..partitions).filter_map(|partition| holder(Partition(partition))) {
        *held.entry(*member).or_default() += 1;
    }
    let count = |of: &BTreeMap<MemberId, u32>, member: MemberId| of.get(&member).copied().unwrap_or(0);
    subscribers.sort_by_key(|&id| (count(load, id), u32::MAX - count(&held, id), id));
    let (share, odd) = (partitions / subscribers.len() as u32, partitions as usize % subscribers.len());
    let mut room: Vec<(MemberId, u32)> =
        subscribers.into_iter().enumerate().map(|(i, id)| (id, share + u32::from(i < odd))).collect();

    let mut assigned = BTreeMap::new();
    for partition in (0..partitions).map(Partition) {
        let Some(member) = holder(partition) else { continue };
        if let Some((_, left)) = room.iter_mut().find(|(id, left)| id == member && *left > 0) {
            *left -= 1;
            assigned.insert(partition, *member);
        }
    }
    for partition in (0..partitions).map(Partition) {
        if assigned.contains_key(&partition) {
            continue;
        }
        if let Some((member, left)) = room.iter_mut().find(|(_, left)| *left > 0) {
            *left -= 1;
            assigned.insert(partition, *member);
        }
    }
    assigned
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Members = BTreeMap<MemberId, BTreeSet<Topic>>;

    fn arbitrary() -> impl Strategy<Value = (BTreeMap<Topic, u32>, Members, Vec<MemberId>)> {
        let topics = prop::collection::vec(1..9u32, 1..4);
        let members = prop::collection::btree_map(0..6u64, prop::collection::btree_set(0..4usize, 1..4), 1..5);
        (topics, members, prop::collection::vec(0..6u64, 0..30)).prop_map(|(topics, members, holders)| {
            let name = |i: usize| Topic::from(format!("t{i}"));
            let count = topics.len();
            let topics = topics.into_iter().enumerate().map(|(i, n)| (name(i), n)).collect();
            let members = members.into_iter().map(|(id, set)| (id, set.into_iter().map(|i| name(i % count)).collect())).collect();
            (topics, members, holders)
        })
    }

    proptest! {
        #[test]
        fn even_complete_and_stable((topics, members, holders) in arbitrary()) {
            let all = topics.iter().flat_map(|(topic, n)| (0..*n).map(|p| TopicPartition::new(topic.clone(), Partition(p))));
            let current: BTreeMap<_, _> = all.clone().zip(holders).collect();
            let target = assign(&topics, &members, &current);
            for partition in all {
                let has_subscriber = members.values().any(|topics| topics.contains(&partition.topic));
                prop_assert_eq!(target.contains_key(&partition), has_subscriber);
            }
            for (topic, _) in topics.iter() {
                let counts: Vec<usize> = members.iter().filter(|(_, subscribed)| subscribed.contains(topic))
                    .map(|(id, _)| target.iter().filter(|(p, m)| p.topic == *topic && *m == id).count()).collect();
                let spread = counts.iter().max().unwrap_or(&0) - counts.iter().min().unwrap_or(&0);
                prop_assert!(spread <= 1, "{topic}: {counts:?}");
            }
            for (partition, member) in &target {
                prop_assert!(members[member].contains(&partition.topic));
            }
            prop_assert_eq!(assign(&topics, &members, &target), target.clone(), "a second look moves nothing");
        }

        #[test]
        fn a_member_that_joins_takes_no_more_than_its_share(partitions in 1..20u32, members in 1..6u64) {
            let topics = BTreeMap::from([(Topic::from("t"), partitions)]);
            let of = |n: u64| -> Members { (0..n).map(|id| (id, BTreeSet::from([Topic::from("t")]))).collect() };
            let before = assign(&topics, &of(members), &BTreeMap::new());
            let after = assign(&topics, &of(members + 1), &before);
            let moved: Vec<_> = after.iter().filter(|(p, m)| before[*p] != **m).collect();
            prop_assert!(moved.iter().all(|(_, m)| **m == members), "only to the new one: {moved:?}");
        }
    }
}
