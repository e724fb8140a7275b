//! Faults of memberships and of fetchers, and those of one partition.

use std::sync::Arc;

use millstream::broker::group::Candidate;
use millstream::broker::local::faults::{Call, Fault, FaultsAt, FaultyBroker};
use millstream::broker::{Broker, ErrorKind, Fetched, Fetcher, MemberEvent, Membership, TransactionalProducer};
use millstream::record::{Offset, Record, Timestamp};

use crate::{NOW, assigned, broker, input, outcome, output, send, transact};

#[test]
fn a_zombie_is_fenced_by_its_membership() {
    let broker = broker();
    let zombie = FaultyBroker::new(broker.clone(), Arc::new(FaultsAt::new().and(1, Call::Commit, Fault::LoseMembership)));
    let mut its_membership = zombie.join(&Candidate::new("group", "member", &["in".into()])).unwrap();
    let fence = assigned(&mut its_membership);
    let mut other = broker.join(&Candidate::new("group", "member", &["in".into()])).unwrap();
    assert_eq!(other.poll(NOW).unwrap(), MemberEvent::Nothing);
    let mut producer = zombie.producer("zombie").unwrap();
    assert_eq!(transact(&mut producer, &fence, 1).unwrap_err().kind(), ErrorKind::AbortTransaction);
    assert_eq!(outcome(&broker), (0, None));
    assigned(&mut other);
    its_membership.give_up(&[input()]).expect("it says nothing of what is gone");
    assert_eq!(its_membership.poll(NOW).unwrap(), MemberEvent::Lost);
    assert_eq!(its_membership.poll(NOW).unwrap(), MemberEvent::Nothing, "a member again, with nothing yet");
}

#[test]
fn a_forced_rebalance_takes_everything_and_gives_it_back() {
    let broker = broker();
    let instance = FaultyBroker::new(broker.clone(), Arc::new(FaultsAt::new().and(3, Call::Poll, Fault::Rebalance)));
    let mut membership = instance.join(&Candidate::new("group", "member", &["in".into()])).unwrap();
    assigned(&mut membership);
    let before = assigned(&mut membership);
    assert_eq!(membership.poll(NOW).unwrap(), MemberEvent::Revoked { partitions: vec![input()] });
    let mut producer = instance.producer("p").unwrap();
    let before = Some(assigned(&mut membership)).filter(|newer| *newer != before).expect("a newer proof");
    transact(&mut producer, &before, 1).expect("still ours until it is given up");
    membership.give_up(&[input()]).unwrap();
    let after = assigned(&mut membership);
    assert!(after.generation() > before.generation());
    assert_eq!(transact(&mut producer, &before, 2).unwrap_err().kind(), ErrorKind::AbortTransaction);
    producer.abort().unwrap();
    transact(&mut producer, &after, 2).unwrap();
    assert_eq!(outcome(&broker), (2, Some(2)));
}

#[test]
fn a_fault_at_a_membership_or_a_fetcher_is_that_call_s_alone() {
    let broker = broker();
    let faults = FaultsAt::new()
        .and(1, Call::Join, Fault::Fail(ErrorKind::Retry))
        .and(1, Call::Fetcher, Fault::Fail(ErrorKind::Retry))
        .and(1, Call::Poll, Fault::Nothing)
        .and(3, Call::JoinGroup, Fault::Fail(ErrorKind::Retry))
        .and(1, Call::Fetch, Fault::Nothing)
        .and(2, Call::Fetch, Fault::Fail(ErrorKind::Retry));
    let instance = FaultyBroker::new(broker.clone(), Arc::new(faults));
    assert_eq!(instance.join(&Candidate::new("group", "member", &["in".into()])).unwrap_err().kind(), ErrorKind::Retry);
    let mut membership = instance.join(&Candidate::new("group", "member", &["in".into()])).unwrap();
    assert_eq!(membership.poll(NOW).unwrap(), MemberEvent::Nothing);
    assigned(&mut membership);
    broker.force_rebalance("group");
    assigned(&mut membership);
    assert_eq!(membership.poll(NOW).unwrap(), MemberEvent::Revoked { partitions: vec![input()] });
    membership.give_up(&[input()]).unwrap();
    assert_eq!(membership.poll(NOW).unwrap_err().kind(), ErrorKind::Retry);
    assigned(&mut membership);

    send(&broker, "x");
    assert_eq!(instance.fetcher().unwrap_err().kind(), ErrorKind::Retry);
    let mut fetcher = instance.fetcher().unwrap();
    fetcher.start(&output(), Offset(0)).unwrap();
    assert!(matches!(fetcher.poll(NOW).unwrap(), Fetched::Nothing));
    assert_eq!(fetcher.poll(NOW).unwrap_err().kind(), ErrorKind::Retry);
    assert!(matches!(fetcher.poll(NOW).unwrap(), Fetched::Batch(_)));
}

#[test]
fn a_crash_ends_fetchers_and_leaves_members_behind() {
    for (nth, call, fault) in [(3, Call::JoinGroup, Fault::CrashBefore), (1, Call::Fetch, Fault::CrashAfter)] {
        let broker = broker();
        let instance = FaultyBroker::new(broker.clone(), Arc::new(FaultsAt::new().and(nth, call, fault)));
        let mut membership = instance.join(&Candidate::new("group", "member", &["in".into()])).unwrap();
        assigned(&mut membership);
        let mut fetcher = instance.fetcher().unwrap();
        fetcher.start(&input(), Offset(0)).unwrap();
        let mut other = broker.join(&Candidate::new("group", "other", &["in".into()])).unwrap();
        other.poll(NOW).unwrap();
        broker.force_rebalance("group");
        assigned(&mut membership);
        other.poll(NOW).unwrap();
        assert!(matches!(membership.poll(NOW).unwrap(), MemberEvent::Revoked { .. }));
        match call {
            Call::JoinGroup => {
                membership.give_up(&[input()]).unwrap();
                assert!(membership.poll(NOW).is_err());
            }
            _ => assert!(fetcher.poll(NOW).is_err()),
        }
        assert!(instance.is_crashed());
        assert!(membership.poll(NOW).is_err(), "the dead do nothing");
        assert!(fetcher.start(&input(), Offset(0)).is_err() && fetcher.poll(NOW).is_err(), "{call:?} {fault:?}");
        assert!(instance.fetcher().is_err() && instance.join(&Candidate::new("group", "member", &["in".into()])).is_err());
        drop((membership, fetcher));
        for _ in 0..3 {
            let told = other.poll(NOW).unwrap();
            let is_nothing = matches!(&told, MemberEvent::Assigned { partitions, .. } if partitions.is_empty());
            assert!(is_nothing || told == MemberEvent::Nothing, "the dead member still has it, or has it again: {told:?}");
        }
        instance.expire_members();
        assigned(&mut other);
    }
}

#[test]
fn one_partition_alone_fails_where_it_was_told_to() {
    let broker = broker();
    let fails = |kind| Fault::FailPartition(kind);
    let faults = FaultsAt::new()
        .and(1, Call::Fetch, fails(ErrorKind::Stop))
        .and(1, Call::Send, fails(ErrorKind::AbortTransaction))
        .and(1, Call::Commit, fails(ErrorKind::Retry))
        .and(2, Call::Commit, fails(ErrorKind::Retry));
    let instance = FaultyBroker::new(broker.clone(), Arc::new(faults));
    let mut producer = instance.producer("p").unwrap();
    producer.begin().unwrap();
    let record = Record::new(None, Some(b"x"), Timestamp(0));
    let refused = producer.send(&output(), &record).unwrap_err();
    assert_eq!((refused.kind(), refused.partition()), (ErrorKind::AbortTransaction, Some(&output())));
    producer.send(&input(), &record).unwrap();
    let refused = producer.commit().unwrap_err();
    assert_eq!((refused.kind(), refused.partition()), (ErrorKind::Retry, Some(&input())));
    producer.abort().unwrap();
    producer.begin().unwrap();
    producer.commit().expect("there is no partition to fail");
    assert_eq!(outcome(&broker), (0, None));

    send(&broker, "x");
    let mut fetcher = instance.fetcher().unwrap();
    fetcher.start(&output(), Offset(0)).unwrap();
    let Fetched::Failed(partition, error) = fetcher.poll(NOW).unwrap() else { panic!("failed") };
    assert_eq!((&partition, error.kind(), error.partition()), (&output(), ErrorKind::Stop, Some(&output())));
    assert!(matches!(fetcher.poll(NOW).unwrap(), Fetched::Nothing), "not until it is started again");
    fetcher.start(&output(), Offset(0)).unwrap();
    assert!(matches!(fetcher.poll(NOW).unwrap(), Fetched::Batch(_)));
}

/// Polls until there is a proof, and says how many polls brought nothing before.
fn polls_until_assigned<M: Membership>(member: &mut M) -> usize {
    (0..10).find(|_| matches!(member.poll(NOW).unwrap(), MemberEvent::Assigned { .. })).expect("assigned in the end")
}

#[test]
fn what_is_lost_on_the_line_to_the_coordinator_is_sent_again_and_what_is_late_comes() {
    let faults = [
        (Call::JoinGroup, Fault::LoseRequest),
        (Call::JoinGroup, Fault::LoseAnswer),
        (Call::SyncGroup, Fault::LoseRequest),
        (Call::SyncGroup, Fault::LoseAnswer),
        (Call::Poll, Fault::Late(3)),
    ];
    for (call, fault) in faults {
        let broker = broker();
        let instance = FaultyBroker::new(broker.clone(), Arc::new(FaultsAt::new().and(1, call, fault)));
        let mut membership = instance.join(&Candidate::new("group", "member", &["in".into()])).unwrap();
        let polls = polls_until_assigned(&mut membership);
        assert_eq!(polls, if fault == Fault::Late(3) { 4 } else { 0 }, "{call:?} {fault:?}");
        assert_eq!(broker.describe_group("group").1.len(), 1, "{call:?} {fault:?}: it is one member all the while");
    }
}

#[test]
fn an_answer_that_is_late_may_be_out_of_date_when_it_comes() {
    let broker = broker();
    let instance = FaultyBroker::new(broker.clone(), Arc::new(FaultsAt::new().and(2, Call::Poll, Fault::Late(1))));
    let mut membership = instance.join(&Candidate::new("group", "member", &["in".into()])).unwrap();
    assert_eq!(membership.poll(NOW).unwrap(), MemberEvent::Nothing, "what it is assigned is on its way");
    instance.expire_members();
    assert_eq!(membership.poll(NOW).unwrap(), MemberEvent::Nothing);
    let fence = assigned(&mut membership);
    assert!(transact(&mut instance.producer("p").unwrap(), &fence, 1).is_err(), "it is no member any more");
    assert_eq!(membership.poll(NOW).unwrap(), MemberEvent::Lost);
    assigned(&mut membership);
}

#[test]
fn a_member_that_does_not_join_again_in_time_is_dropped_and_the_others_go_on() {
    let broker = broker();
    let candidate = |name| Candidate::new("group", name, &["in".into()]);
    let (mut slow, mut quick) = (broker.join(&candidate("slow")).unwrap(), broker.join(&candidate("quick")).unwrap());
    let fence = assigned(&mut slow);
    assert!(!broker.time_out_rebalance("group"), "there is none");
    assert_eq!(quick.poll(NOW).unwrap(), MemberEvent::Nothing);
    assert!(broker.time_out_rebalance("group"));
    assert!(assigned(&mut quick).generation() > fence.generation());
    let mut producer = broker.producer("p").unwrap();
    assert_eq!(transact(&mut producer, &fence, 1).unwrap_err().kind(), ErrorKind::AbortTransaction);
    assert_eq!(slow.poll(NOW).unwrap(), MemberEvent::Lost);
}
