//! Members of groups: what the broker in one process adds to the contract of every broker.

use std::thread;
use std::time::Duration;

use millstream::broker::local::MemoryBroker;
use millstream::broker::{Broker, ErrorKind, Fence, MemberEvent, Membership, TopicSettings};
use millstream::record::TopicPartition;

use crate::{clock, tp};

const NOW: Duration = Duration::ZERO;

pub(crate) fn assigned<M: Membership>(member: &mut M) -> (Vec<TopicPartition>, Fence) {
    match member.poll(NOW).unwrap() {
        MemberEvent::Assigned { partitions, fence } => (partitions, fence),
        other => panic!("expected Assigned, got {other:?}"),
    }
}

fn revoked<M: Membership>(member: &mut M) -> Vec<TopicPartition> {
    match member.poll(NOW).unwrap() {
        MemberEvent::Revoked { partitions } => partitions,
        other => panic!("expected Revoked, got {other:?}"),
    }
}

fn broker(partitions: u32) -> MemoryBroker {
    let broker = MemoryBroker::in_memory(clock());
    broker.create_topic("clicks", &TopicSettings::kept_for_ever(partitions)).unwrap();
    broker
}

fn join(broker: &MemoryBroker, member: &str) -> <MemoryBroker as Broker>::Membership {
    broker.join("group", member, &["clicks".into()]).unwrap()
}

#[test]
fn a_topic_that_grows_is_shared_out_again() {
    let broker = MemoryBroker::in_memory(clock());
    broker.create_topic("clicks", &TopicSettings::kept_for_ever(1)).unwrap();
    let mut member = broker.join("group", "member", &["clicks".into()]).unwrap();
    assert_eq!(assigned(&mut member).0, [tp(0)]);
    broker.add_partitions("clicks", 2).unwrap();
    assert_eq!(assigned(&mut member).0, [tp(1)]);
    assert_eq!(broker.add_partitions("clicks", 1).unwrap_err().kind(), ErrorKind::Stop);
}

#[test]
fn partitions_that_are_asked_back_go_one_by_one_and_hold_nothing_else_up() {
    let broker = broker(3);
    let mut first = join(&broker, "first");
    assert_eq!(assigned(&mut first).0.len(), 3);
    let mut second = join(&broker, "second");
    let going = revoked(&mut first);
    assert_eq!(going.len(), 1);
    // Another member joins: more is asked back. The topic grows: something comes to the first, and it is to keep what it had.
    let mut third = join(&broker, "third");
    let going_too = revoked(&mut first);
    assert_eq!(going_too.len(), 1);
    assert_ne!(going_too, going, "nothing is asked back twice");
    broker.add_partitions("clicks", 12).unwrap();
    assert!(!assigned(&mut first).0.is_empty());

    assert_eq!(assigned(&mut second).0.len() + assigned(&mut third).0.len(), 8, "the new ones");
    assert_eq!(first.poll(NOW).unwrap(), MemberEvent::Nothing);
    for partitions in [going, going_too] {
        first.give_up(&partitions).unwrap();
        assert_eq!(assigned(&mut first).0, partitions, "it comes back once it was given up, and by itself");
        assert_eq!(first.poll(NOW).unwrap(), MemberEvent::Nothing);
    }
}

#[test]
fn a_lost_member_is_told_so_while_it_has_partitions_to_give_up() {
    let broker = broker(2);
    let mut first = join(&broker, "first");
    let (_, fence) = assigned(&mut first);
    let mut second = join(&broker, "second");
    let going = revoked(&mut first);
    assert!(broker.expire_member("group", fence.member()));
    assert_eq!(assigned(&mut second).0, [tp(0), tp(1)], "all of it, at once");
    first.give_up(&going).expect("it says nothing of what is gone");
    assert_eq!(first.poll(NOW).unwrap(), MemberEvent::Lost);
    assert_eq!(second.poll(NOW).unwrap(), MemberEvent::Nothing);
    assert_eq!(first.poll(NOW).unwrap(), MemberEvent::Nothing, "a member again, with nothing yet");
    let going = revoked(&mut second);
    second.give_up(&going).unwrap();
    assert_eq!(assigned(&mut first).0, going);
}

/// Where nobody wakes it, this hangs.
#[test]
fn a_member_that_waits_is_woken() {
    const FOR_EVER: Duration = Duration::from_secs(3600);
    let broker = broker(2);
    let mut first = join(&broker, "first");
    assigned(&mut first);
    let waiting = thread::spawn(move || first.poll(FOR_EVER).map(|event| (event, first)));
    let mut second = join(&broker, "second");
    let (event, mut first) = waiting.join().unwrap().unwrap();
    let MemberEvent::Revoked { partitions: going } = event else { panic!("expected Revoked, got {event:?}") };
    let waiting = thread::spawn(move || second.poll(FOR_EVER).map(|event| (event, second)));
    first.give_up(&going).unwrap();
    let (event, mut second) = waiting.join().unwrap().unwrap();
    assert!(matches!(event, MemberEvent::Assigned { partitions, .. } if partitions == going));
    let waiting = thread::spawn(move || second.poll(FOR_EVER));
    first.leave().unwrap();
    assert!(matches!(waiting.join().unwrap().unwrap(), MemberEvent::Assigned { .. }));
}

#[test]
fn a_member_that_left_is_of_no_use() {
    let broker = broker(1);
    let mut member = join(&broker, "member");
    member.leave().unwrap();
    assert_eq!(member.poll(NOW).unwrap_err().kind(), ErrorKind::Fenced);
    member.give_up(&[tp(0)]).unwrap();
    member.leave().unwrap();
    assert_eq!(broker.join("group", "member", &["none".into()]).unwrap_err().kind(), ErrorKind::Stop);
}
