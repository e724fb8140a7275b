//! The assignor by examples, one rule after the other, and by a model of a group that lives through anything.

mod model;
mod properties;
mod rules;

use std::sync::Arc;

use super::*;
use crate::record::{Partition, TopicPartition};

/// The lag up to which a copy has caught up in these tests.
const ACCEPTABLE: u64 = 10;

fn task(topic: &str, partition: u32) -> TopicPartition {
    TopicPartition::new(topic, Partition(partition))
}

fn tasks(topic: &str, partitions: u32, stateful: bool) -> impl Iterator<Item = (TopicPartition, TaskInfo)> {
    (0..partitions).map(move |partition| (task(topic, partition), TaskInfo { stateful }))
}

fn options() -> Options {
    Options { acceptable_lag: Lag { records: ACCEPTABLE, ms: 1_000 }, ..Options::default() }
}

fn behind(records: u64) -> StateCopy {
    StateCopy { lag: Some(Lag { records, ms: 0 }) }
}

fn id(name: &str) -> Arc<str> {
    Arc::from(name)
}

/// What has to hold of every outcome.
fn check(situation: &Situation, outcome: &Outcome) {
    let assignment = &outcome.assignment;
    assert!(assignment.members.keys().eq(situation.members.keys()), "every member has an entry");
    let warmups: usize = assignment.members.values().map(|roles| roles.warmup.len()).sum();
    assert!(warmups <= situation.options.max_warmups, "{warmups} warm-ups");
    for (member, roles) in &assignment.members {
        assert!(roles.active.is_disjoint(&roles.standby), "{member}: {roles:?}");
        assert!(roles.active.is_disjoint(&roles.warmup), "{member}: {roles:?}");
        assert!(roles.standby.is_disjoint(&roles.warmup), "{member}: {roles:?}");
        assert!(situation.members[member].understood || *roles == Roles::default(), "{member} is not understood");
        assert!(roles.standby.iter().chain(&roles.warmup).all(|task| situation.tasks[task].stateful), "{member}: {roles:?}");
    }
    for (task, info) in &situation.tasks {
        check_task(situation, outcome, task, info.stateful);
    }
}

fn check_task(situation: &Situation, outcome: &Outcome, task: &TopicPartition, stateful: bool) {
    let assignment = &outcome.assignment;
    let active: Vec<_> = assignment.members.iter().filter(|(_, roles)| roles.active.contains(task)).map(|(id, _)| id).collect();
    let owners: Vec<_> = situation.members.iter().filter(|(_, state)| state.owned.contains_key(task)).map(|(id, _)| id).collect();
    assert!(active.len() <= 1, "{task} is active at {active:?}");
    let target = match (active.first(), assignment.moving.get(task)) {
        (Some(active), None) => {
            assert!(owners.iter().all(|owner| owner == active), "{task} goes to {active}, owned by {owners:?}");
            *active
        }
        (None, Some(target)) => {
            assert!(owners.iter().any(|owner| *owner != target), "{task} waits for nobody, owned by {owners:?}");
            target
        }
        (None, None) => {
            assert!(!situation.members.values().any(|member| member.understood), "{task} has no owner");
            return;
        }
        both => panic!("{task}: {both:?}"),
    };
    let [owner] = owners[..] else { return };
    let (from, to) = (&situation.members[owner], &situation.members[target]);
    if stateful && owner != target && from.understood && from.owned[task] == Stage::Running {
        assert!(situation.ends_known, "{task} moves although no lag is known");
        let lag = to.copies.get(task).and_then(|copy| copy.lag);
        assert!(
            lag.is_some_and(|lag| lag.is_within(situation.options.acceptable_lag)),
            "{task} moves to {target} too early: {lag:?}"
        );
    }
}
