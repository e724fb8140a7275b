//! The fifteen rules of an assignment, one after the other, each by an example that shows it alone.

use std::collections::BTreeSet;

use super::super::*;
use super::{behind, check, id, options, task, tasks};
use crate::record::TopicPartition;

const UNKNOWN: StateCopy = StateCopy { lag: None };

/// A situation in which nobody has anything.
fn group(members: &[&str], tasks: impl IntoIterator<Item = (TopicPartition, TaskInfo)>) -> Situation {
    Situation {
        tasks: tasks.into_iter().collect(),
        members: members.iter().map(|name| (id(name), MemberState::default())).collect(),
        options: options(),
        ends_known: true,
        ..Situation::default()
    }
}

impl Situation {
    fn with_standbys(mut self, num_standbys: usize) -> Self {
        self.options.num_standbys = num_standbys;
        self
    }

    fn member(mut self, name: &str, change: impl FnOnce(&mut MemberState)) -> Self {
        change(self.members.get_mut(name).expect("a member"));
        self
    }

    /// A member runs these partitions of the topic `t`.
    fn runs(self, name: &str, partitions: impl IntoIterator<Item = u32>) -> Self {
        self.member(name, |member| member.owned.extend(partitions.into_iter().map(|number| (task("t", number), Stage::Running))))
    }

    fn has_copy(self, name: &str, partition: u32, copy: StateCopy) -> Self {
        self.member(name, |member| {
            member.copies.insert(task("t", partition), copy);
        })
    }

    /// What a member was assigned before, of the topic `t`.
    fn was(mut self, name: &str, active: &[u32], standby: &[u32], warmup: &[u32]) -> Self {
        let of = |numbers: &[u32]| numbers.iter().map(|number| task("t", *number)).collect();
        let roles = Roles { active: of(active), standby: of(standby), warmup: of(warmup) };
        self.previous.members.insert(id(name), roles);
        self
    }

    fn rack(self, name: &str, rack: &str) -> Self {
        self.member(name, |member| member.rack = Some(id(rack)))
    }

    fn assign(&self) -> Outcome {
        let outcome = assign(self);
        check(self, &outcome);
        outcome
    }
}

impl Outcome {
    fn numbers(&self, name: &str, role: impl Fn(&Roles) -> &BTreeSet<TopicPartition>) -> Vec<u32> {
        role(&self.assignment.members[name]).iter().map(|task| task.partition.0).collect()
    }

    fn active(&self, name: &str) -> Vec<u32> {
        self.numbers(name, |roles| &roles.active)
    }

    fn standby(&self, name: &str) -> Vec<u32> {
        self.numbers(name, |roles| &roles.standby)
    }

    fn warmup(&self, name: &str) -> Vec<u32> {
        self.numbers(name, |roles| &roles.warmup)
    }

    fn target(&self, partition: u32) -> Option<&str> {
        self.assignment.moving.get(&task("t", partition)).map(|id| &**id)
    }
}

#[test]
fn rule_1_what_the_ideal_asks_for_is_moved_gradually() {
    let situation = group(&["a", "b"], tasks("t", 4, true)).runs("a", 0..4);
    let first = situation.assign();
    assert_eq!(first.active("a"), [0, 1, 2, 3], "all goes on where it runs");
    assert_eq!((first.active("b"), first.warmup("b")), (vec![], vec![2, 3]), "the ideal is begun");

    let warm = situation.was("a", &[0, 1, 2, 3], &[], &[]).was("b", &[], &[], &[2, 3]);
    let warm = warm.has_copy("b", 2, behind(0)).has_copy("b", 3, behind(500));
    let second = warm.assign();
    assert_eq!((second.active("a"), second.target(2)), (vec![0, 1, 3], Some("b")), "one at a time, as they catch up");
}

#[test]
fn rule_2_kinds_are_balanced_separately_those_with_state_first_and_by_threads() {
    let kinds = tasks("a-stateless", 1, false).chain(tasks("t", 1, true));
    let one_each = group(&["a", "b"], kinds).assign();
    assert_eq!(one_each.assignment.members["a"].active, BTreeSet::from([task("t", 0)]), "state first");
    assert_eq!(one_each.assignment.members["b"].active, BTreeSet::from([task("a-stateless", 0)]), "the odd one makes up for it");

    let kinds = tasks("t", 8, true).chain(tasks("src", 4, false));
    let by_threads = group(&["a", "b"], kinds).member("a", |member| member.threads = 3).assign();
    let count =
        |name: &str, topic| by_threads.assignment.members[name].active.iter().filter(|task| &*task.topic == topic).count();
    assert_eq!((count("a", "t"), count("b", "t")), (6, 2));
    assert_eq!((count("a", "src"), count("b", "src")), (3, 1));
}

#[test]
fn rule_3_last_owner_then_replica_then_disk_then_load() {
    let all = ["a", "b", "c", "d"];
    let with_all = group(&all, tasks("t", 4, true))
        .was("d", &[0], &[], &[])
        .was("c", &[], &[0, 1], &[])
        .has_copy("d", 0, behind(5))
        .has_copy("c", 0, behind(0))
        .has_copy("c", 1, behind(200))
        .has_copy("b", 0, behind(0))
        .has_copy("b", 1, behind(100))
        .has_copy("b", 2, behind(300))
        .has_copy("a", 2, behind(400));
    let ideal = ideal::owners(&View::new(&with_all));
    // The last owner; the replica, though state on a disk is nearer; the disk by position; who is left.
    assert_eq!(ideal, [Some(3), Some(2), Some(1), Some(0)]);

    let kept = group(&["a", "b"], tasks("t", 2, true)).runs("b", [0]).runs("a", [1]).assign();
    assert_eq!((kept.active("a"), kept.active("b")), (vec![1], vec![0]), "who runs it keeps it");
}

#[test]
fn rule_3_goes_by_quota() {
    let situation =
        group(&["a", "b"], tasks("t", 4, true)).runs("a", 0..4).has_copy("b", 1, behind(0)).has_copy("b", 2, behind(300));
    let ideal = ideal::owners(&View::new(&situation));
    assert_eq!(ideal, [Some(0), Some(1), Some(1), Some(0)], "what is given away is what the other has most of");
}

#[test]
fn rule_4_caught_up_is_running_it_or_within_the_acceptable_lag_in_records_and_in_time() {
    let move_one = |lag: Lag| {
        let situation = group(&["a", "b"], tasks("t", 2, true)).runs("a", 0..2).has_copy("b", 1, StateCopy { lag: Some(lag) });
        situation.assign().target(1).is_some()
    };
    assert!(move_one(Lag { records: 10, ms: 1_000 }));
    assert!(!move_one(Lag { records: 11, ms: 1_000 }));
    assert!(!move_one(Lag { records: 10, ms: 1_001 }));

    // Who runs the task has caught up, whatever its copy says: a lag is measured while the log grows.
    let busy = group(&["a", "b"], tasks("t", 1, true)).runs("a", [0]).has_copy("a", 0, behind(5_000)).has_copy("b", 0, behind(0));
    assert_eq!(busy.assign().active("a"), [0]);
}

#[test]
fn rule_5_the_one_further_on_holds_it() {
    // The ideal owner is the last one, which came back with what it had; a standby is further on.
    let came_back = group(&["a", "b"], tasks("t", 1, true)).was("a", &[0], &[], &[]).was("b", &[], &[0], &[]);
    let caught_up = came_back.clone().has_copy("a", 0, behind(200)).has_copy("b", 0, behind(3)).assign();
    assert_eq!((caught_up.active("b"), caught_up.warmup("a")), (vec![0], vec![0]));
    let neither = came_back.has_copy("a", 0, behind(200)).has_copy("b", 0, behind(100)).assign();
    assert_eq!(neither.active("b"), [0], "among none caught up the most advanced");

    // An owner that still restores, where another has it all.
    let restoring = group(&["a", "b"], tasks("t", 1, true))
        .member("a", |member| member.owned.extend([(task("t", 0), Stage::Restoring)]))
        .has_copy("a", 0, behind(900));
    assert_eq!(restoring.clone().has_copy("b", 0, behind(0)).assign().target(0), Some("b"));
    assert_eq!(restoring.clone().has_copy("b", 0, behind(400)).assign().target(0), Some("b"), "less than half of the way left");
    assert_eq!(restoring.has_copy("b", 0, behind(800)).assign().active("a"), [0], "side by side they do not take turns");
}

#[test]
fn rule_6_warm_ups_are_few_and_go_to_the_least_loaded() {
    // In a group of one kind both newcomers want two; each is begun with one.
    let situation = group(&["a", "b", "c"], tasks("t", 6, true)).runs("a", 0..6);
    let outcome = situation.assign();
    assert_eq!((outcome.warmup("b").len(), outcome.warmup("c").len()), (1, 1));
    assert_eq!(outcome.next_look_ms, Some(situation.options.probing_interval_ms), "a net, should no report come");
    let one = Situation { options: Options { max_warmups: 1, ..situation.options }, ..situation.clone() };
    assert_eq!(one.assign().assignment.members.values().map(|roles| roles.warmup.len()).sum::<usize>(), 1);

    // What was begun goes on, although others are less loaded.
    let begun = situation.was("a", &[0, 1, 2, 3, 4, 5], &[], &[]).was("c", &[], &[], &[1, 2]).was("b", &[], &[], &[]);
    let begun = begun.has_copy("c", 1, behind(900)).has_copy("c", 2, behind(900));
    assert_eq!(begun.assign().warmup("c"), [1, 2]);
}

#[test]
fn rule_6_moving_a_standby_counts_as_a_warm_up() {
    // All standbys are in the rack of their active tasks; a member in another rack has joined.
    let mut situation =
        group(&["a", "b", "c"], tasks("t", 4, true)).with_standbys(1).rack("a", "1").rack("b", "1").rack("c", "2");
    situation = situation.member("c", |member| member.threads = 1).runs("a", [0, 1]).runs("b", [2, 3]);
    situation = situation.was("a", &[0, 1], &[2, 3], &[]).was("b", &[2, 3], &[0, 1], &[]);
    for partition in 0..4 {
        situation = situation.has_copy(if partition < 2 { "b" } else { "a" }, partition, behind(0));
    }
    let outcome = situation.assign();
    assert_eq!(
        (outcome.standby("a"), outcome.standby("b")),
        (vec![2, 3], vec![0, 1]),
        "they stay until the others have caught up"
    );
    assert_eq!((outcome.standby("c"), outcome.warmup("c").len()), (vec![], 2));
}

#[test]
fn rule_7_a_standby_is_nowhere_else_and_goes_to_the_least_loaded() {
    let fresh = group(&["a", "b", "c"], tasks("t", 3, true)).with_standbys(1).assign();
    for name in ["a", "b", "c"] {
        assert_eq!((fresh.active(name).len(), fresh.standby(name).len()), (1, 1));
        assert_ne!(fresh.active(name), fresh.standby(name));
    }
    assert_eq!(fresh.warnings, []);

    // While a copy is expected back nothing is evened out afterwards: each place is the least loaded from the beginning.
    let mut one_away =
        group(&["a", "b", "c"], tasks("t", 4, true)).with_standbys(1).runs("a", [1, 2]).runs("b", [3]).runs("c", [0]);
    one_away.previous.absent.insert(id("x"), Absence { until_ms: 1, copies: BTreeSet::from([task("t", 3)]) });
    let one_away = one_away.assign();
    assert_eq!((one_away.standby("a"), one_away.standby("b"), one_away.standby("c")), (vec![], vec![0, 2], vec![1]));

    let too_few = group(&["a"], tasks("t", 3, true)).with_standbys(1).assign();
    assert_eq!((too_few.active("a"), too_few.standby("a")), (vec![0, 1, 2], vec![]));
    assert_eq!(too_few.warnings, [Warning::TooFewInstances { num_standbys: 1, instances: 1 }]);
    assert_eq!(too_few.warnings[0].to_string(), "1 standbys of each task are wanted, which takes 2 instances: there are 1");
}

#[test]
fn rule_8_racks_rank_above_stickiness() {
    let three = |names: &[&str]| group(names, tasks("t", 1, true)).with_standbys(1).rack("a", "1").rack("b", "1").rack("c", "2");
    let fresh = three(&["a", "b", "c"]).runs("a", [0]).assign();
    assert_eq!(fresh.standby("c"), [0], "another rack, though it is not the first");

    let sticky =
        three(&["a", "b", "c"]).runs("a", [0]).was("a", &[0], &[], &[]).was("b", &[], &[0], &[]).has_copy("b", 0, behind(0));
    assert_eq!((sticky.assign().standby("b"), sticky.assign().warmup("c")), (vec![0], vec![0]));
    assert_eq!(sticky.has_copy("c", 0, behind(1)).assign().standby("c"), [0], "once it has caught up it takes its place");

    // Two standbys differ from each other too.
    let two = group(&["a", "b", "c", "d"], tasks("t", 1, true)).with_standbys(2).runs("a", [0]);
    let two =
        two.rack("a", "1").rack("b", "2").rack("c", "2").rack("d", "3").has_copy("b", 0, behind(0)).has_copy("c", 0, behind(0));
    let two = two.assign();
    assert_eq!((two.standby("b"), two.standby("c"), two.standby("d")), (vec![0], vec![], vec![0]));
}

#[test]
fn rule_9_a_task_without_an_owner_goes_at_once_to_the_best_copy() {
    let dead = group(&["b", "c", "d"], tasks("t", 3, true))
        .was("a", &[0], &[], &[])
        .runs("b", [1])
        .runs("c", [2])
        .has_copy("b", 0, behind(900))
        .has_copy("c", 0, behind(300))
        .assign();
    assert_eq!(dead.active("c"), [0, 2], "not the ideal owner, which has nothing");
    assert_eq!(dead.target(0), None, "and nobody is waited for");
}

#[test]
fn rule_10_the_net_stays_where_it_is_and_goes_when_nothing_is_under_way() {
    let mut situation = group(&["a", "b"], tasks("t", 2, true)).runs("a", 0..2);
    let first = situation.assign();
    assert_eq!(first.next_look_ms, Some(600_000));
    (situation.previous, situation.now_ms) = (first.assignment, 50_000);
    let second = situation.assign();
    assert_eq!(second.next_look_ms, Some(600_000), "it is not put off with each look");
    situation.now_ms = 600_000;
    assert_eq!(situation.assign().next_look_ms, Some(1_200_000));
    let moved = group(&["a", "b"], tasks("t", 2, true)).runs("a", [0]).runs("b", [1]).assign();
    assert_eq!(moved.next_look_ms, None);
}

#[test]
fn rule_11_an_unknown_position_is_not_the_best_one() {
    let dead = group(&["a", "b"], tasks("t", 2, true)).has_copy("a", 0, UNKNOWN).has_copy("b", 0, behind(5_000));
    assert_eq!(dead.assign().active("b"), [0]);
    let only = group(&["a", "b"], tasks("t", 2, true)).has_copy("b", 0, UNKNOWN);
    assert_eq!(only.assign().active("b"), [0], "but better than nothing");
    let running = group(&["a", "b"], tasks("t", 2, true)).runs("a", 0..2).has_copy("b", 0, UNKNOWN).has_copy("b", 1, UNKNOWN);
    assert_eq!(running.assign().active("a"), [0, 1], "nothing that runs moves to it");
}

#[test]
fn rule_12_where_the_ends_are_unknown_the_assignment_stays() {
    let mut situation = group(&["a", "b", "c"], tasks("t", 6, true)).with_standbys(1).runs("a", [0, 1, 2, 3]).runs("b", [4]);
    situation = situation.was("a", &[0, 1, 2, 3], &[], &[]).was("b", &[4], &[0, 1], &[2]).was("x", &[5], &[], &[]);
    situation.ends_known = false;
    // What members report may be anything now.
    let situation = situation.has_copy("b", 0, behind(0)).has_copy("c", 3, behind(0)).has_copy("c", 5, UNKNOWN);
    let outcome = situation.assign();
    assert_eq!((outcome.active("a"), outcome.active("b")), (vec![0, 1, 2, 3], vec![4]));
    assert_eq!((outcome.standby("b"), outcome.warmup("b")), (vec![0, 1], vec![2]));
    assert_eq!(outcome.active("c"), [5], "that of the dead goes to the copy that there is");
    assert_eq!(outcome.standby("c"), [0; 0], "nothing is begun");
    assert_eq!(outcome.next_look_ms, Some(situation.options.retry_ms));
    assert_eq!(outcome.warnings, [Warning::EndsUnknown]);
}

#[test]
fn rule_12_what_runs_is_protected_when_no_lag_is_reported() {
    let unknown = group(&["a", "b"], tasks("t", 2, true)).with_standbys(1).runs("a", 0..2).has_copy("b", 0, UNKNOWN);
    let outcome = unknown.was("b", &[], &[0, 1], &[]).assign();
    assert_eq!((outcome.active("a"), outcome.standby("b")), (vec![0, 1], vec![0, 1]));
}

#[test]
fn rule_13_the_time_decides_nothing_but_deadlines() {
    let situation = group(&["a", "b", "c"], tasks("t", 7, true).chain(tasks("src", 4, false))).with_standbys(1).runs("b", 0..2);
    assert_eq!(situation.assign(), situation.assign());
    for now_ms in [1, 2, 3, 4, 5, 6, 7, 1_000, 987_654_321] {
        let later = Situation { now_ms, ..situation.clone() };
        assert_eq!(situation.assign().assignment.members, later.assign().assignment.members, "at {now_ms}");
    }
}

#[test]
fn rule_14_nobody_gets_what_another_lists_as_owned() {
    let stateless = group(&["a", "b"], tasks("t", 2, false)).runs("a", 0..2).assign();
    assert_eq!((stateless.active("a"), stateless.active("b"), stateless.target(1)), (vec![0], vec![], Some("b")));

    let mut given_up = group(&["a", "b"], tasks("t", 2, false)).runs("a", [0]);
    given_up.previous = stateless.assignment;
    assert_eq!(given_up.assign().active("b"), [1]);

    let twice = group(&["a", "b", "c"], tasks("t", 1, true)).runs("a", [0]).runs("b", [0]).has_copy("b", 0, behind(0)).assign();
    assert_eq!((twice.active("a"), twice.active("b"), twice.target(0)), (vec![], vec![], Some("b")));
    assert_eq!(twice.warnings, [Warning::OwnedTwice { task: task("t", 0), members: vec![id("a"), id("b")] }]);
}

#[test]
fn rule_14_what_is_given_up_goes_to_whom_it_was_given_up_for() {
    let mut moving = group(&["a", "b"], tasks("t", 2, true)).runs("a", 0..2).has_copy("b", 1, behind(0));
    moving.previous = moving.assign().assignment;
    assert_eq!(moving.previous.moving.get(&task("t", 1)), Some(&id("b")));
    moving.members.get_mut("a").expect("a member").owned.remove(&task("t", 1));
    // The old owner's copy is as good; a third member has come, too.
    moving.members.insert(id("0"), MemberState::default());
    let moving = moving.has_copy("a", 1, behind(0)).has_copy("a", 0, behind(0)).has_copy("0", 1, behind(0));
    assert_eq!(moving.assign().active("b"), [1]);
}

#[test]
fn rule_15_a_member_that_cannot_be_understood_gets_nothing_and_is_named() {
    let situation = group(&["a", "b"], tasks("t", 4, true)).with_standbys(1).runs("a", [0]).has_copy("a", 1, behind(0));
    let situation = situation.member("a", |member| member.understood = false).has_copy("b", 0, behind(700));
    let outcome = situation.assign();
    assert_eq!(outcome.assignment.members["a"], Roles::default());
    assert_eq!((outcome.active("b"), outcome.target(0)), (vec![1, 2, 3], Some("b")), "what it has it must give up first");
    assert!(outcome.warnings.contains(&Warning::NotUnderstood { member: id("a") }));

    let nobody = group(&["a"], tasks("t", 4, true)).member("a", |member| member.understood = false).assign();
    assert!(nobody.warnings.contains(&Warning::NoMember { tasks: 4 }));
}

#[test]
fn a_member_that_drains_is_replaced_by_copies_that_have_caught_up() {
    let drains = |member: &mut MemberState| member.draining = true;
    let situation = group(&["a", "b", "c"], tasks("t", 2, true)).with_standbys(1).runs("a", 0..2).member("a", drains);
    let situation = situation.was("a", &[0, 1], &[], &[]).was("b", &[], &[0], &[]).was("c", &[], &[1], &[]);
    let situation = situation.has_copy("b", 0, behind(0)).has_copy("c", 1, behind(500));
    let outcome = situation.assign();
    assert_eq!((outcome.target(0), outcome.active("a")), (Some("b"), vec![1]), "it keeps what nobody could go on with");
    assert_eq!((outcome.standby("b"), outcome.standby("c")), (vec![0], vec![1]), "whose copy is kept up to date until then");
    assert_eq!(outcome.assignment.absent[&id("a")].copies, BTreeSet::from([task("t", 0), task("t", 1)]));

    let keeps = group(&["a", "b"], tasks("t", 2, true)).with_standbys(1).runs("b", [0]).runs("a", [1]).member("a", drains);
    let keeps = keeps
        .was("a", &[1], &[0], &[])
        .was("b", &[0], &[], &[])
        .has_copy("a", 0, behind(0))
        .has_copy("b", 1, behind(70))
        .assign();
    assert_eq!((keeps.standby("a"), keeps.active("a")), (vec![0], vec![1]), "it keeps its standbys until it goes");
    assert_eq!(keeps.standby("b"), [1], "and who has some of the state may come nearer");

    let all = group(&["a", "b"], tasks("t", 3, true)).runs("a", [0]).member("a", drains).runs("b", [1]).member("b", drains);
    let all = all.has_copy("a", 1, behind(0)).has_copy("a", 2, behind(0)).assign();
    assert_eq!(
        (all.active("a"), all.active("b")),
        (vec![0, 2], vec![1]),
        "where all go nothing moves, and nothing is without an owner"
    );
}

#[test]
fn copies_of_who_went_are_not_built_elsewhere_before_its_time_is_over() {
    let mut situation = group(&["b", "c"], tasks("t", 3, true)).with_standbys(1).runs("b", [0]).runs("c", [2]);
    situation = situation.was("a", &[1], &[0], &[]).was("b", &[0], &[1], &[]).was("c", &[2], &[], &[]);
    situation = situation.was("b", &[0], &[1, 2], &[]).has_copy("b", 1, behind(0)).has_copy("b", 2, behind(0));
    let gone = situation.assign();
    assert_eq!((gone.active("b"), gone.active("c")), (vec![0, 1], vec![2]), "what it ran goes on at once");
    assert_eq!((gone.standby("c"), gone.warmup("c")), (vec![], vec![]), "what it kept is not built");
    assert_eq!(gone.next_look_ms, Some(60_000));

    situation.previous = gone.assignment;
    situation.now_ms = 59_999;
    let situation = situation.runs("b", [1]);
    assert_eq!((situation.assign().standby("c"), situation.assign().next_look_ms), (vec![], Some(60_000)), "the deadline stays");
    let over = Situation { now_ms: 60_000, ..situation.clone() }.assign();
    assert_eq!((over.standby("c"), over.assignment.absent.len()), (vec![0, 1], 0));

    // Nor are standbys evened out until then, even where it would cost little: they would move again.
    let mut uneven =
        group(&["a", "b", "c"], tasks("t", 4, true)).with_standbys(1).runs("a", [2]).runs("b", [3]).runs("c", [0, 1]);
    uneven = uneven.was("a", &[2], &[0, 1], &[]).was("b", &[3], &[], &[]).was("c", &[0, 1], &[], &[]);
    for (name, partition) in [("a", 0), ("a", 1), ("b", 0), ("b", 1)] {
        uneven = uneven.has_copy(name, partition, behind(0));
    }
    let copies = BTreeSet::from([task("t", 2), task("t", 3)]);
    uneven.previous.absent.insert(id("x"), Absence { until_ms: 1, copies });
    assert_eq!((uneven.assign().standby("a"), uneven.assign().standby("b")), (vec![0, 1], vec![]));

    // Back in time, with what it had.
    let mut back = situation;
    back.members.insert(id("a"), MemberState::default());
    let back = back.has_copy("a", 0, behind(300)).has_copy("a", 1, behind(300)).assign();
    assert_eq!((back.standby("a"), back.standby("c")), (vec![0, 1], vec![]), "it gets its copies again");
}
