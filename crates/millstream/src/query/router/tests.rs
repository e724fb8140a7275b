use super::*;
use crate::broker::group::Directory;
use crate::query::Period;
use crate::query::part::{Part, PartialCounts};
use crate::query::view::{InstanceStatus, TaskReport};
use crate::record::{Timestamp, TopicPartition};
use crate::task::{Role, TaskId, TaskState};

const LIMITS: RouterLimits = RouterLimits { deadline: Duration::from_secs(10), failover_wait: Duration::from_secs(1) };
const STALE: ReadOptions = ReadOptions { allow_partial: false, allow_stale: true, max_stale_records: None };
const TOTALS: Question = Question::Totals { period: Period { from: Timestamp(0), to: Timestamp(10) } };

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Who owns which partition, and who keeps a copy of which.
fn holders(generation: i32, owners: &[(&str, u32)], copies: &[(&str, u32)]) -> Holders {
    let mut directory = Directory { generation, ..Directory::default() };
    let members = &mut directory.assignment.members;
    let task = |partition| TopicPartition::new("shuffled", Partition(partition));
    owners.iter().for_each(|(who, of)| _ = members.entry((*who).into()).or_default().active.insert(task(*of)));
    copies.iter().for_each(|(who, of)| _ = members.entry((*who).into()).or_default().standby.insert(task(*of)));
    Holders::new(&"shuffled".into(), &directory, &[])
}

fn router(partitions: u32, read: ReadOptions) -> Router {
    Router::new("me".into(), TOTALS, (0..partitions).map(Partition).collect(), read, LIMITS)
}

fn answer(generation: i32, standing: Standing, partitions: &[u32]) -> Parts {
    let part = |partition: &u32| Part { partition: Partition(*partition), standing, position: None, closed_through: 0 };
    let counts = partitions.iter().map(|partition| (Timestamp(0), 1 << partition)).map(|(_, count)| count).sum();
    let counts = PartialCounts::Windows(vec![(Timestamp(0), counts)]);
    Parts { generation, parts: partitions.iter().map(part).collect(), counts }
}

/// What is to be sent, as (who, which partitions), with the numbers of the requests.
fn sent(next: &Next) -> Vec<(RequestId, &str, Vec<u32>)> {
    let Next::Wait { requests, .. } = next else { panic!("it is over") };
    let of = |request: &Request| request.ask.partitions.iter().map(|partition| partition.0).collect();
    requests.iter().map(|request| (request.id, &*request.instance, of(request))).collect()
}

fn late(_: &str) -> Duration {
    ms(20)
}

/// The partitions that were answered for, and the sum of the counts: one bit for each partition.
fn taken(router: Router) -> (Vec<u32>, i64) {
    let answers = router.into_answers();
    let mut partitions: Vec<u32> = answers.iter().flat_map(|answer| &answer.parts).map(|part| part.partition.0).collect();
    partitions.sort_unstable();
    let counts = answers.iter().map(|answer| match &answer.counts {
        PartialCounts::Windows(windows) => windows.iter().map(|(_, count)| count).sum::<i64>(),
        PartialCounts::Keys(_) => 0,
    });
    (partitions, counts.sum())
}

#[test]
fn each_instance_is_asked_once_for_all_that_it_owns() {
    let holders = holders(1, &[("me", 0), ("a", 1), ("a", 2)], &[]);
    let mut router = router(3, ReadOptions::default());
    let next = router.next(ms(0), &holders, &late);
    assert_eq!(sent(&next), [(1, "a", vec![1, 2]), (2, "me", vec![0])]);
    router.answered(1, answer(1, Standing::Active, &[1, 2]), ms(1));
    router.answered(1, answer(1, Standing::Active, &[1, 2]), ms(1));
    router.answered(2, answer(1, Standing::Active, &[0]), ms(1));
    assert_eq!(router.next(ms(1), &holders, &late), Next::Done);
    assert_eq!(taken(router), (vec![0, 1, 2], 0b111));
}

#[test]
fn an_owner_that_is_gone_is_waited_for_until_there_is_another() {
    let before = holders(1, &[("a", 0)], &[]);
    let mut router = router(1, ReadOptions::default());
    router.next(ms(0), &before, &late);
    router.failed(1, ms(2));
    let next = router.next(ms(2), &before, &late);
    assert!(sent(&next).is_empty());
    assert!(matches!(next, Next::Wait { until, .. } if until == ms(7)));
    let next = router.next(ms(3), &holders(2, &[("b", 0)], &[]), &late);
    assert_eq!(sent(&next), [(2, "b", vec![0])]);
    router.answered(2, answer(2, Standing::Active, &[0]), ms(4));
    assert_eq!(router.next(ms(4), &holders(2, &[("b", 0)], &[]), &late), Next::Done);
    assert_eq!(taken(router).0, [0]);
}

#[test]
fn an_owner_that_ceases_to_be_one_is_not_waited_for() {
    let mut router = router(1, ReadOptions::default());
    router.next(ms(0), &holders(1, &[("a", 0)], &[]), &late);
    let after = holders(2, &[("b", 0)], &[]);
    assert_eq!(sent(&router.next(ms(5), &after, &late)), [(2, "b", vec![0])]);
    router.answered(1, answer(1, Standing::Active, &[0]), ms(6));
    assert!(matches!(router.next(ms(6), &after, &late), Next::Wait { .. }));
    router.answered(2, answer(2, Standing::Active, &[0]), ms(7));
    assert_eq!(router.next(ms(7), &after, &late), Next::Done);
}

#[test]
fn without_an_owner_it_is_given_up_after_the_wait() {
    let nobody = holders(1, &[], &[]);
    let (mut router, mut now, mut asked) = (router(1, ReadOptions::default()), ms(0), 0);
    loop {
        let (requests, until) = match router.next(now, &nobody, &late) {
            Next::Done => break,
            Next::Wait { requests, until } => (requests, until),
        };
        asked += requests.len();
        requests.iter().for_each(|request| router.failed(request.id, now));
        now = if requests.is_empty() { until } else { now };
    }
    assert_eq!(now, ms(1_000));
    assert!((10..60).contains(&asked), "{asked}");
    assert!(taken(router).0.is_empty());
}

#[test]
fn a_copy_is_asked_at_once_where_stale_is_allowed() {
    let holders = holders(1, &[("a", 0)], &[("b", 0), ("c", 0)]);
    let mut router = router(1, STALE);
    router.next(ms(0), &holders, &late);
    router.failed(1, ms(1));
    assert_eq!(sent(&router.next(ms(1), &holders, &late)), [(2, "b", vec![0])]);
    router.failed(2, ms(1));
    assert_eq!(sent(&router.next(ms(1), &holders, &late)), [(3, "c", vec![0])]);
    router.answered(3, answer(1, Standing::Stale { lag: Some(4) }, &[0]), ms(1));
    assert_eq!(router.next(ms(1), &holders, &late), Next::Done);
}

#[test]
fn a_copy_is_no_answer_where_it_is_not_allowed_or_too_far_behind() {
    let owner = holders(1, &[("a", 0)], &[]);
    for (read, lag) in [
        (ReadOptions::default(), Some(0)),
        (ReadOptions { max_stale_records: Some(3), ..STALE }, Some(4)),
        (ReadOptions { max_stale_records: Some(3), ..STALE }, None),
    ] {
        let mut router = router(1, read);
        router.next(ms(0), &owner, &late);
        router.answered(1, answer(1, Standing::Stale { lag }, &[0]), ms(1));
        assert!(matches!(router.next(ms(1), &owner, &late), Next::Wait { .. }));
        assert!(taken(router).0.is_empty());
    }
}

#[test]
fn what_takes_long_is_sent_again_and_taken_once() {
    let owner = holders(1, &[("a", 0), ("a", 1)], &[]);
    let mut slow = router(2, ReadOptions::default());
    assert!(matches!(slow.next(ms(0), &owner, &late), Next::Wait { until, .. } if until == ms(20)));
    assert_eq!(sent(&slow.next(ms(20), &owner, &late)), [(2, "a", vec![0, 1])]);
    assert!(sent(&slow.next(ms(40), &owner, &late)).is_empty(), "one second try");
    slow.answered(2, answer(1, Standing::Active, &[0, 1]), ms(41));
    slow.answered(1, answer(1, Standing::Active, &[0, 1]), ms(41));
    assert_eq!(slow.next(ms(41), &owner, &late), Next::Done);
    assert_eq!(taken(slow), (vec![0, 1], 0b11));

    // To copies, each of which has a part; the owner comes first after all.
    let copies = holders(1, &[("a", 0), ("a", 1)], &[("b", 0), ("c", 1)]);
    let mut slow = router(2, STALE);
    slow.next(ms(0), &copies, &late);
    assert_eq!(sent(&slow.next(ms(20), &copies, &late)), [(2, "b", vec![0]), (3, "c", vec![1])]);
    slow.answered(2, answer(1, Standing::Stale { lag: Some(0) }, &[0]), ms(21));
    slow.answered(1, answer(1, Standing::Active, &[0, 1]), ms(22));
    slow.answered(3, answer(1, Standing::Stale { lag: Some(0) }, &[1]), ms(23));
    assert_eq!(slow.next(ms(23), &copies, &late), Next::Done);
    assert_eq!(taken(slow), (vec![0, 1], 0b11));

    // The owner dies: what a copy has brought is taken, and the other one waited for.
    let mut slow = router(2, STALE);
    slow.next(ms(0), &copies, &late);
    slow.next(ms(20), &copies, &late);
    slow.answered(2, answer(1, Standing::Stale { lag: Some(0) }, &[0]), ms(21));
    slow.failed(1, ms(22));
    slow.answered(3, answer(1, Standing::Stale { lag: Some(0) }, &[1]), ms(23));
    assert_eq!(slow.next(ms(23), &copies, &late), Next::Done);
    assert_eq!(taken(slow), (vec![0, 1], 0b11));
}

#[test]
fn answers_of_two_assignments_are_asked_for_again() {
    let before = holders(1, &[("me", 0), ("a", 1)], &[]);
    let mut router = router(2, ReadOptions::default());
    router.next(ms(0), &before, &late);
    router.answered(2, answer(1, Standing::Active, &[0]), ms(1));
    router.answered(1, answer(2, Standing::Active, &[1]), ms(1));
    let next = router.next(ms(1), &before, &late);
    assert!(sent(&next).is_empty(), "what is here may be nobody's: it is left alone for a moment");
    let after = holders(2, &[("b", 0), ("a", 1)], &[]);
    assert_eq!(sent(&router.next(ms(6), &after, &late)), [(3, "b", vec![0])]);
    router.answered(3, answer(2, Standing::Active, &[0]), ms(7));
    assert_eq!(router.next(ms(7), &after, &late), Next::Done);
    assert_eq!(taken(router), (vec![0, 1], 0b11));
}

#[test]
fn what_stayed_where_it_was_is_good_in_the_next_generation() {
    let before = holders(1, &[("me", 0), ("a", 1)], &[]);
    let mut router = router(2, ReadOptions::default());
    router.next(ms(0), &before, &late);
    router.answered(2, answer(1, Standing::Active, &[0]), ms(1));
    router.answered(1, answer(1, Standing::Active, &[1]), ms(1));
    assert_eq!(router.next(ms(1), &holders(2, &[("me", 0), ("a", 1)], &[]), &late), Next::Done);
}

#[test]
fn an_answer_to_something_else_is_none() {
    let owner = holders(1, &[("a", 0)], &[]);
    let keys = Parts { counts: PartialCounts::Keys(Vec::new()), ..answer(1, Standing::Active, &[0]) };
    for wrong in [answer(1, Standing::Active, &[1]), answer(1, Standing::Active, &[0, 0]), answer(1, Standing::Active, &[]), keys]
    {
        let mut router = router(1, ReadOptions::default());
        router.next(ms(0), &owner, &late);
        router.answered(1, wrong, ms(1));
        assert!(taken(router).0.is_empty());
    }
}

#[test]
fn the_deadline_ends_it_with_what_is_there() {
    let owners = holders(1, &[("a", 0), ("b", 1)], &[]);
    let mut router = router(2, ReadOptions::default());
    router.next(ms(0), &owners, &|_| ms(60_000));
    router.answered(1, answer(1, Standing::Active, &[0]), ms(1));
    assert!(matches!(router.next(ms(1), &owners, &late), Next::Wait { until, .. } if until == LIMITS.deadline));
    assert_eq!(router.next(LIMITS.deadline, &owners, &late), Next::Done);
    assert_eq!(taken(router), (vec![0], 1));
}

#[test]
fn before_the_group_has_told_anything_what_is_here_is_asked() {
    let nothing = Holders::default();
    let mut router = router(2, ReadOptions::default());
    assert_eq!(sent(&router.next(ms(0), &nothing, &late)), [(1, "me", vec![0, 1])]);
    router.answered(1, answer(0, Standing::Active, &[0, 1]), ms(1));
    assert_eq!(router.next(ms(1), &nothing, &late), Next::Done);
}

#[test]
fn a_restoring_owner_is_a_copy() {
    let report = TaskReport {
        id: TaskId { subtopology: 1, partition: Partition(0) },
        input: TopicPartition::new("shuffled", Partition(0)),
        role: Role::Active,
        state: TaskState::Restoring,
        position: None,
        lag: Some(5),
        closed_through: 0,
        restore: None,
        trouble: None,
        quarantined_since: None,
    };
    let status = InstanceStatus { instance: "a".into(), generation: 1, tasks: vec![report], ..InstanceStatus::default() };
    let holders = Holders::new(&"shuffled".into(), &Directory { generation: 1, ..Directory::default() }, &[status]);
    assert_eq!(sent(&router(1, STALE).next(ms(0), &holders, &late)), [(1, "a", vec![0])]);
}
