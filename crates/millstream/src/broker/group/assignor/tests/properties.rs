//! What holds of any group, whatever happens to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::super::*;
use super::model::Group;
use super::{id, options, task, tasks};

fn name(number: usize) -> String {
    format!("i{number}")
}

/// What happens to a group between two rounds.
#[derive(Debug, Clone, Copy)]
enum Event {
    Join { threads: u32, rack: u8 },
    Die(usize),
    ComeBack(usize),
    Drain(usize),
    Understand(usize, bool),
    LoseDisk(usize),
    Progress(u64),
    GiveUp(u8),
    EndsUnknown(bool),
    LagsUnknown(bool),
    Pass(i64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (1..4u32, 0..3u8).prop_map(|(threads, rack)| Event::Join { threads, rack }),
        2 => (0..8usize).prop_map(Event::Die),
        2 => (0..8usize).prop_map(Event::ComeBack),
        1 => (0..8usize).prop_map(Event::Drain),
        1 => (0..8usize, any::<bool>()).prop_map(|(node, understood)| Event::Understand(node, understood)),
        1 => (0..8usize).prop_map(Event::LoseDisk),
        3 => (0..2_000u64).prop_map(Event::Progress),
        3 => any::<u8>().prop_map(Event::GiveUp),
        1 => any::<bool>().prop_map(Event::EndsUnknown),
        1 => any::<bool>().prop_map(Event::LagsUnknown),
        2 => (0..70_000i64).prop_map(Event::Pass),
    ]
}

fn happen(group: &mut Group, event: Event, alike: bool) {
    let nth = |keys: Vec<Arc<str>>, n: usize| keys.get(n % keys.len().max(1)).cloned();
    let living = |group: &Group, n| nth(group.nodes.keys().cloned().collect(), n);
    match event {
        Event::Join { threads, rack } if group.nodes.len() + group.away.len() < 8 => {
            let (threads, rack) = if alike { (1, 0) } else { (threads, rack) };
            let rack = ["a", "b"].get(rack as usize).copied();
            group.join(&name(group.nodes.len() + group.away.len()), threads, rack);
        }
        Event::Join { .. } => {}
        Event::Die(n) => living(group, n).into_iter().for_each(|name| group.leave(&name)),
        Event::ComeBack(n) => nth(group.away.keys().cloned().collect(), n).into_iter().for_each(|name| group.come_back(&name)),
        Event::Drain(n) => living(group, n).into_iter().for_each(|name| group.nodes.get_mut(&name).unwrap().draining = true),
        Event::Understand(n, understood) => {
            living(group, n).into_iter().for_each(|name| group.nodes.get_mut(&name).unwrap().not_understood = !understood);
        }
        Event::LoseDisk(n) => {
            let name = nth(group.away.keys().cloned().collect(), n);
            name.into_iter().for_each(|name| group.away.get_mut(&name).unwrap().disk.clear());
        }
        Event::Progress(by) => group.progress(by),
        Event::GiveUp(mask) => group.give_up(|number| mask & (1 << (number % 8)) != 0),
        Event::EndsUnknown(unknown) => group.ends_unknown = unknown,
        Event::LagsUnknown(unknown) => group.lags_unknown = unknown,
        Event::Pass(ms) => group.now_ms += ms,
    }
}

/// Trouble ends: who drains goes, all are understood, somebody is there.
fn calm(group: &mut Group) {
    (group.ends_unknown, group.lags_unknown) = (false, false);
    for name in group.nodes.keys().cloned().collect::<Vec<_>>() {
        group.nodes.get_mut(&name).unwrap().not_understood = false;
        if group.nodes[&name].draining {
            group.leave(&name);
        }
    }
    if group.nodes.is_empty() {
        group.join("last", 1, None);
    }
}

fn kinds() -> impl Strategy<Value = BTreeMap<TopicPartition, TaskInfo>> {
    prop::collection::vec((1..7u32, any::<bool>()), 1..4).prop_map(|kinds| {
        let kinds = kinds.into_iter().enumerate();
        kinds
            .flat_map(|(number, (partitions, stateful))| tasks(&format!("t{number}"), partitions, stateful).collect::<Vec<_>>())
            .collect()
    })
}

/// A group of nodes that are alike, at rest.
fn at_rest(nodes: usize, tasks: BTreeMap<TopicPartition, TaskInfo>, num_standbys: usize) -> Group {
    let mut group = Group { tasks, options: Options { num_standbys, ..options() }, ..Group::default() };
    (0..nodes).for_each(|number| group.join(&name(number), 1, None));
    group.settle();
    group
}

fn moved(before: &BTreeMap<TopicPartition, Arc<str>>, after: &BTreeMap<TopicPartition, Arc<str>>) -> Vec<TopicPartition> {
    after.iter().filter(|(task, owner)| before.get(*task) != Some(owner)).map(|(task, _)| task.clone()).collect()
}

/// All standbys have caught up, as a roll-out waits for before it goes on to the next instance.
fn wait_until_ready(group: &mut Group) {
    for _ in 0..3 {
        group.now_ms += 1_000;
        group.round();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(768))]

    #[test]
    fn whatever_happens_comes_to_rest(
        tasks in kinds(),
        (num_standbys, max_warmups) in (0..3usize, 1..4usize),
        alike in any::<bool>(),
        events in prop::collection::vec((event(), any::<bool>()), 0..60),
    ) {
        // What holds of every round is checked by the group itself.
        let mut group = Group { tasks, options: Options { num_standbys, max_warmups, ..options() }, ..Group::default() };
        for (event, then_rebalance) in events {
            happen(&mut group, event, alike);
            if then_rebalance {
                group.rebalance();
            }
        }
        calm(&mut group);
        group.settle();
        let (owners, built) = (group.owners(), group.built);
        for _ in 0..3 {
            group.round();
        }
        prop_assert_eq!(group.owners(), owners, "rest is rest");
        prop_assert_eq!(group.built, built);
    }

    #[test]
    fn the_same_situation_gives_the_same_outcome(
        tasks in kinds(),
        num_standbys in 0..3usize,
        events in prop::collection::vec(event(), 0..30),
    ) {
        let mut group = Group { tasks, options: Options { num_standbys, ..options() }, ..Group::default() };
        for event in events {
            happen(&mut group, event, false);
            group.rebalance();
            let situation = group.situation();
            // The same, inserted backwards.
            let mut turned = situation.clone();
            turned.tasks = situation.tasks.clone().into_iter().rev().collect();
            turned.members = situation.members.clone().into_iter().rev().collect();
            prop_assert_eq!(assign(&situation), assign(&turned));
        }
    }

    #[test]
    fn who_joins_takes_its_share_and_nothing_else_moves(
        partitions in 1..24u32, nodes in 1..6usize, num_standbys in 0..2usize, stateful in any::<bool>(),
    ) {
        let mut group = at_rest(nodes, tasks("t", partitions, stateful).collect(), num_standbys);
        let before = group.owners();
        group.join("new", 1, None);
        group.settle();
        let after = group.owners();
        let share = partitions as usize / (nodes + 1);
        let moved = moved(&before, &after);
        prop_assert!(moved.iter().all(|task| after[task] == id("new")), "only to the new one: {:?}", moved);
        prop_assert_eq!(moved.len(), share);
    }

    #[test]
    fn of_who_dies_only_its_own_tasks_move(
        partitions in 1..24u32, nodes in 2..6usize, stateful in any::<bool>(), dead in 0..6usize,
    ) {
        let mut group = at_rest(nodes, tasks("t", partitions, stateful).collect(), 0);
        let before = group.owners();
        let dead = id(&name(dead % nodes));
        group.leave(&dead);
        group.round();
        let at_once = group.owners();
        prop_assert_eq!(at_once.len(), before.len(), "all have an owner again at once");
        group.settle();
        let after = group.owners();
        prop_assert!(moved(&before, &after).iter().all(|task| before[task] == dead));
        prop_assert_eq!(at_once, after);
    }

    #[test]
    fn with_standbys_those_of_the_dead_go_to_its_standbys_at_once(partitions in 1..24u32, nodes in 2..6usize, dead in 0..6usize) {
        let mut group = at_rest(nodes, tasks("t", partitions, true).collect(), 1);
        let (before, roles, built) = (group.owners(), group.previous.members.clone(), group.built);
        let dead = id(&name(dead % nodes));
        group.leave(&dead);
        group.rebalance();
        for (task, _) in before.iter().filter(|(_, owner)| **owner == dead) {
            let owner = group.owner(task).unwrap();
            prop_assert!(roles[owner].standby.contains(task), "{} goes to {}", task, owner);
            prop_assert_eq!(group.nodes[owner].owned[task], Stage::Running);
        }
        prop_assert_eq!(group.built, built);
    }

    #[test]
    fn a_rolling_restart_builds_no_copy(
        partitions in 1..16u32,
        (more, stateless) in (0..8u32, 0..8u32),
        order in Just(vec![0usize, 1, 2]).prop_shuffle(),
        by_signal in any::<[bool; 3]>(),
        away_rounds in 0..4usize,
    ) {
        let kinds = tasks("agg", partitions, true).chain(tasks("more", more, true)).chain(tasks("src", stateless, false)).collect();
        let mut group = at_rest(3, kinds, 1);
        let built = group.built;
        for (node, drains) in order.into_iter().zip(by_signal) {
            let node = name(node);
            if drains {
                group.nodes.get_mut(node.as_str()).unwrap().draining = true;
                wait_until_ready(&mut group);
                prop_assert!(group.nodes[node.as_str()].owned.is_empty(), "all was taken over while it was still there");
            }
            group.leave(&node);
            for _ in 0..=away_rounds {
                group.now_ms += 10_000;
                group.round();
                let without = group.tasks.len() - group.owners().len();
                prop_assert!(without <= group.previous.moving.len(), "only what is handed over has no owner");
            }
            group.come_back(&node);
            wait_until_ready(&mut group);
            prop_assert_eq!(group.built, built, "after {} is back", node);
        }
        group.settle();
        prop_assert_eq!(group.built, built);
    }

    #[test]
    fn what_runs_is_protected_while_lags_are_unknown(tasks in kinds(), nodes in 1..5usize, num_standbys in 0..2usize, by_ends in any::<bool>()) {
        let mut group = at_rest(nodes, tasks, num_standbys);
        let before = group.owners();
        (group.ends_unknown, group.lags_unknown) = (by_ends, true);
        // A new leader, who knows nothing of before.
        group.previous = Assignment::default();
        group.join("new", 3, None);
        for _ in 0..3 {
            group.rebalance();
            group.give_up(|_| true);
        }
        for task in moved(&before, &group.owners()) {
            prop_assert!(!group.tasks[&task].stateful, "{} moved", task);
        }
        calm(&mut group);
        group.settle();
    }
}

#[test]
fn many_partitions_and_members_are_assigned_in_no_time() {
    let kinds = tasks("agg", 1_024, true).chain(tasks("src", 1_024, false)).collect();
    let mut group = Group { tasks: kinds, options: Options { num_standbys: 1, ..options() }, ..Group::default() };
    let racks = ["a", "b", "c"];
    (0..32).for_each(|number| group.join(&name(number), 1 + number as u32 % 2, Some(racks[number % 3])));
    let mut slowest = std::time::Duration::ZERO;
    let mut time = |group: &mut Group| {
        let situation = group.situation();
        let begin = std::time::Instant::now();
        assign(&situation);
        slowest = slowest.max(begin.elapsed());
        group.round();
    };
    time(&mut group);
    time(&mut group);
    group.join("new", 2, Some("a"));
    time(&mut group);
    group.leave("i7");
    time(&mut group);
    // The worst case: half of the members come at once, when all else was waited for.
    (0..16).for_each(|number| group.leave(&name(number)));
    group.now_ms += 100_000;
    time(&mut group);
    group.now_ms += 100_000;
    time(&mut group);
    (0..16).for_each(|number| group.come_back(&name(number)));
    time(&mut group);
    time(&mut group);
    println!("the slowest of these assignments took {slowest:?}");
}

#[test]
fn two_instances_with_two_partitions_of_two_kinds_have_one_of_each() {
    let group = at_rest(2, tasks("agg", 2, true).chain(tasks("src", 2, false)).collect(), 0);
    for node in group.nodes.values() {
        let topics: BTreeSet<_> = node.owned.keys().map(|task| task.topic.clone()).collect();
        assert_eq!((node.owned.len(), topics.len()), (2, 2), "{:?}", node.owned);
    }
    let owner = |topic, partition| group.owner(&task(topic, partition)).unwrap();
    assert_ne!(owner("agg", 0), owner("agg", 1));
    assert_ne!(owner("src", 0), owner("src", 1));
}
