//! Members of groups: what the broker in one process adds to the contract of every broker.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use millstream::broker::group::Candidate;
use millstream::broker::local::{LocalMembership, MemoryBroker, MemoryLog};
use millstream::broker::{Broker, ErrorKind, Fence, MemberEvent, Membership, TopicSettings};
use millstream::record::TopicPartition;

use crate::{clock, tp};

const NOW: Duration = Duration::ZERO;

type Member = LocalMembership<MemoryLog>;

pub(crate) fn assigned<M: Membership>(member: &mut M) -> (Vec<TopicPartition>, Fence) {
    match member.poll(NOW).unwrap() {
        MemberEvent::Assigned { partitions, fence } => (partitions, fence),
        other => panic!("expected Assigned, got {other:?}"),
    }
}

fn broker(partitions: u32) -> MemoryBroker {
    let broker = MemoryBroker::in_memory(clock());
    broker.create_topic("clicks", &TopicSettings::kept_for_ever(partitions)).unwrap();
    broker
}

fn join(broker: &MemoryBroker, instance: &str) -> Member {
    broker.join(&Candidate::new("group", instance, &["clicks".into()])).unwrap()
}

/// What each of these members is told of its partitions, polled by turns until all is quiet.
fn told<const N: usize>(mut members: [&mut Member; N]) -> [Vec<MemberEvent>; N] {
    let mut told = std::array::from_fn(|_| Vec::new());
    let mut quiet = 0;
    while quiet < 3 {
        quiet += 1;
        for (member, told) in members.iter_mut().zip(&mut told) {
            match member.poll(NOW).unwrap() {
                MemberEvent::Nothing => {}
                MemberEvent::Assigned { partitions, .. } if partitions.is_empty() => quiet = 0,
                event => {
                    told.push(event);
                    quiet = 0;
                }
            }
        }
    }
    told
}

fn revoked(told: &[MemberEvent]) -> Vec<TopicPartition> {
    match told {
        [MemberEvent::Revoked { partitions }] => partitions.clone(),
        other => panic!("expected Revoked, got {other:?}"),
    }
}

fn came(told: &[MemberEvent]) -> Vec<TopicPartition> {
    match told {
        [MemberEvent::Assigned { partitions, .. }] => partitions.clone(),
        other => panic!("expected Assigned, got {other:?}"),
    }
}

#[test]
fn a_topic_that_grows_is_shared_out_again() {
    let broker = broker(1);
    let mut member = join(&broker, "member");
    assert_eq!(assigned(&mut member).0, [tp(0)]);
    broker.add_partitions("clicks", 2).unwrap();
    assert_eq!(came(&told([&mut member])[0]), [tp(1)]);
    assert_eq!(broker.add_partitions("clicks", 1).unwrap_err().kind(), ErrorKind::Stop);
}

#[test]
fn partitions_that_are_asked_back_go_one_by_one_and_hold_nothing_else_up() {
    let broker = broker(3);
    let (mut first, mut second, mut third) = (join(&broker, "a"), join(&broker, "b"), join(&broker, "c"));
    assert_eq!(assigned(&mut first).0.len(), 3);
    let [of_first, nothing] = told([&mut first, &mut second]);
    let going = revoked(&of_first);
    assert_eq!((going.len(), nothing.len()), (1, 0));
    // Another member joins: more is asked back. The topic grows: what is new is handed out.
    let [of_first, ..] = told([&mut first, &mut second, &mut third]);
    let going_too = revoked(&of_first);
    assert_eq!(going_too.len(), 1);
    assert_ne!(going_too, going, "nothing is asked back twice");
    broker.add_partitions("clicks", 12).unwrap();
    let [one, two, three] = told([&mut first, &mut second, &mut third]);
    assert_eq!(came(&one).len() + came(&two).len() + came(&three).len(), 9, "the new ones");

    for partitions in [going, going_too] {
        first.give_up(&partitions).unwrap();
        let [one, two, three] = told([&mut first, &mut second, &mut third]);
        let all: Vec<_> = [one, two, three].concat();
        assert_eq!(came(&all), partitions, "it comes to somebody once it was given up");
    }
}

#[test]
fn a_lost_member_is_told_so_while_it_has_partitions_to_give_up() {
    let broker = broker(2);
    let (mut first, mut second) = (join(&broker, "a"), join(&broker, "b"));
    let (_, fence) = assigned(&mut first);
    let going = revoked(&told([&mut first, &mut second])[0]);
    assert!(broker.expire_member("group", fence.member()));
    assert_eq!(came(&told([&mut second])[0]), [tp(0), tp(1)], "all of it, at once");
    first.give_up(&going).expect("it says nothing of what is gone");
    assert_eq!(first.poll(NOW).unwrap(), MemberEvent::Lost);
    let [nothing, of_second] = told([&mut first, &mut second]);
    assert_eq!(nothing, [], "a member again, with nothing yet");
    let going = revoked(&of_second);
    second.give_up(&going).unwrap();
    assert_eq!(came(&told([&mut first, &mut second])[0]), going);
}

/// Where nobody wakes it, this hangs.
#[test]
fn a_member_that_waits_is_woken() {
    const FOR_EVER: Duration = Duration::from_secs(3600);
    let broker = broker(2);
    let (mut first, mut second) = (join(&broker, "a"), join(&broker, "b"));
    assigned(&mut first);
    let is_second_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let handing_over = scope.spawn(|| {
            let mut given_up = false;
            while !is_second_done.load(Ordering::SeqCst) {
                if let MemberEvent::Revoked { partitions } = first.poll(FOR_EVER).unwrap() {
                    first.give_up(&partitions).unwrap();
                    given_up = true;
                }
            }
            given_up
        });
        while !matches!(second.poll(FOR_EVER).unwrap(), MemberEvent::Assigned { partitions, .. } if !partitions.is_empty()) {}
        is_second_done.store(true, Ordering::SeqCst);
        second.leave().unwrap();
        assert!(handing_over.join().unwrap());
    });
}

/// A copy of a data directory, say: both processes are the same member.
#[test]
fn a_member_that_another_process_was_in_a_generation_as_holds_nothing_any_more() {
    let broker = broker(1);
    let mut first = join(&broker, "a");
    let (_, old) = assigned(&mut first);
    let same =
        Candidate { incarnation: 1, member: Some(old.member().clone()), ..Candidate::new("group", "a", &["clicks".into()]) };
    let mut second = broker.join(&same).unwrap();
    assert_eq!(assigned(&mut second).0, [tp(0)]);
    broker.force_rebalance("group");
    assert_eq!(first.poll(NOW).unwrap(), MemberEvent::Lost, "what it has read since may have been counted by the other");
    let (_, newer) = loop {
        match first.poll(NOW).unwrap() {
            MemberEvent::Assigned { partitions, fence } if !partitions.is_empty() => break (partitions, fence),
            MemberEvent::Nothing => panic!("it comes again, to be begun from what is committed"),
            _ => {}
        }
    };
    assert!(newer.generation() > old.generation() + 1);
}

#[test]
fn a_member_that_left_is_of_no_use() {
    let broker = broker(1);
    let mut member = join(&broker, "member");
    assigned(&mut member);
    member.leave().unwrap();
    assert_eq!(member.poll(NOW).unwrap_err().kind(), ErrorKind::Fenced);
    member.give_up(&[tp(0)]).unwrap();
    member.leave().unwrap();
    assert_eq!(broker.join(&Candidate::new("group", "member", &["none".into()])).unwrap_err().kind(), ErrorKind::Stop);
}
