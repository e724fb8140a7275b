//! The broker with faults: each does what its description says, and nothing else.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod members;

use std::sync::Arc;
use std::time::Duration;

use millstream::broker::group::Candidate;
use millstream::broker::local::MemoryBroker;
use millstream::broker::local::faults::{Call, CommitOutcome, Fault, Faults, FaultsAt, FaultyBroker, SeededFaults};
use millstream::broker::{
    Broker, CommittedOffset, ErrorKind, Fence, FetchedBatch, Isolation, LogReader, MemberEvent, Membership, TopicSettings,
    TransactionalProducer,
};
use millstream::clock::ManualClock;
use millstream::record::{Offset, Partition, Record, Timestamp, TopicPartition};

const NOW: Duration = Duration::ZERO;

fn broker() -> MemoryBroker {
    let broker = MemoryBroker::in_memory(Arc::new(ManualClock::new(Timestamp(0))));
    broker.create_topic("in", &TopicSettings::kept_for_ever(1)).unwrap();
    broker.create_topic("out", &TopicSettings::kept_for_ever(1)).unwrap();
    broker
}

fn input() -> TopicPartition {
    TopicPartition::new("in", Partition(0))
}

fn output() -> TopicPartition {
    TopicPartition::new("out", Partition(0))
}

fn assigned<M: Membership>(member: &mut M) -> Fence {
    match member.poll(NOW).unwrap() {
        MemberEvent::Assigned { fence, .. } => fence,
        other => panic!("expected Assigned, got {other:?}"),
    }
}

/// One transaction as the engine does it: a record out, a position in.
fn transact<P: TransactionalProducer>(
    producer: &mut P,
    fence: &Fence,
    position: i64,
) -> Result<(), millstream::broker::BrokerError> {
    producer.begin()?;
    producer.send(&output(), &Record::new(None, Some(b"x"), Timestamp(0)))?;
    let offset = CommittedOffset { offset: Offset(position), metadata: String::new() };
    producer.send_offsets(fence, &[(input(), offset)])?;
    producer.commit().map(drop)
}

/// Somebody else commits a record to the output.
fn send(broker: &MemoryBroker, value: &str) {
    let mut other = broker.producer("other").unwrap();
    other.begin().unwrap();
    other.send(&output(), &Record::new(None, Some(value.as_bytes()), Timestamp(0))).unwrap();
    other.commit().unwrap();
}

/// Records on the output and the group's position: they must move together.
fn outcome(broker: &MemoryBroker) -> (usize, Option<i64>) {
    let mut reader = broker.reader(&output(), Offset(0)).unwrap();
    let mut count = 0;
    while let Some(batch) = reader.read(NOW).unwrap() {
        let mut records = Vec::new();
        batch.records(&mut records).unwrap();
        count += records.len();
    }
    (count, broker.committed("group", &[input()]).unwrap().remove(0).map(|committed| committed.offset.0))
}

#[test]
fn a_crash_at_any_call_leaves_all_or_nothing() {
    for call in [Call::Begin, Call::Send, Call::SendOffsets, Call::Commit] {
        for (fault, applied) in [(Fault::CrashBefore, false), (Fault::CrashAfter, call == Call::Commit)] {
            let broker = broker();
            let instance = FaultyBroker::new(broker.clone(), Arc::new(FaultsAt::new().and(1, call, fault)));
            let mut membership = instance.join(&Candidate::new("group", "member", &["in".into()])).unwrap();
            let fence = assigned(&mut membership);
            let mut producer = instance.producer("p").unwrap();
            assert_eq!(transact(&mut producer, &fence, 1).unwrap_err().kind(), ErrorKind::Stop);
            assert!(instance.is_crashed());
            assert!(membership.poll(NOW).is_err() && producer.abort().is_err(), "the dead do nothing");
            assert_eq!(outcome(&broker), if applied { (1, Some(1)) } else { (0, None) }, "{call:?} {fault:?}");

            drop(membership);
            let next = FaultyBroker::new(broker, Arc::new(FaultsAt::new()));
            let mut successor = next.join(&Candidate::new("group", "member", &["in".into()])).unwrap();
            assert!(successor.poll(NOW).unwrap() == MemberEvent::Nothing, "the dead member still has it");
            instance.expire_members();
            assigned(&mut successor);
        }
    }
}

#[test]
fn an_unknown_outcome_is_what_it_was_told_to_be() {
    for (told, expected) in [(CommitOutcome::Applied, (1, Some(1))), (CommitOutcome::NotApplied, (0, None))] {
        let broker = broker();
        let faults = FaultsAt::new().and(1, Call::Commit, Fault::OutcomeUnknown(told));
        let instance = FaultyBroker::new(broker.clone(), Arc::new(faults));
        let mut membership = instance.join(&Candidate::new("group", "member", &["in".into()])).unwrap();
        let fence = assigned(&mut membership);
        let mut producer = instance.producer("p").unwrap();
        assert_eq!(transact(&mut producer, &fence, 1).unwrap_err().kind(), ErrorKind::OutcomeUnknown);
        assert_eq!(outcome(&broker), expected);
    }
}

#[test]
fn a_commit_in_flight_holds_readers_back_until_it_is_decided() {
    for commits in [true, false] {
        let broker = broker();
        let faults = FaultsAt::new().and(1, Call::Commit, Fault::OutcomeUnknown(CommitOutcome::InFlight));
        let instance = FaultyBroker::new(broker.clone(), Arc::new(faults));
        let mut membership = instance.join(&Candidate::new("group", "member", &["in".into()])).unwrap();
        let fence = assigned(&mut membership);
        let mut producer = instance.producer("p").unwrap();
        assert_eq!(transact(&mut producer, &fence, 1).unwrap_err().kind(), ErrorKind::OutcomeUnknown);

        // Somebody else's record comes after it, and is not to be seen before it.
        send(&broker, "y");
        let end = |isolation| broker.log_range(&output(), isolation).unwrap().end.0;
        assert_eq!((end(Isolation::ReadCommitted), end(Isolation::ReadUncommitted)), (0, 2));
        assert_eq!(broker.committed("group", &[input()]).unwrap_err().kind(), ErrorKind::Retry);
        assert!(broker.reader(&output(), Offset(0)).unwrap().read(NOW).unwrap().is_none());

        if commits {
            let open = broker.open_transactions();
            assert_eq!(open.len(), 1);
            assert!(broker.settle(open[0], true).unwrap());
            assert!(!broker.settle(open[0], false).unwrap(), "only once");
            assert_eq!(outcome(&broker), (2, Some(1)));
        } else {
            broker.producer("p").unwrap();
            assert!(broker.open_transactions().is_empty());
            assert_eq!(outcome(&broker), (1, None), "fenced, and a hole where it was");
        }
        assert_eq!(end(Isolation::ReadCommitted), 2);
    }
}

#[test]
fn burned_offsets_are_passed_over() {
    let broker = broker();
    let instance = FaultyBroker::new(broker.clone(), Arc::new(FaultsAt::new().and(1, Call::Commit, Fault::BurnOffsets(3))));
    let mut producer = instance.producer("p").unwrap();
    producer.begin().unwrap();
    producer.send(&output(), &Record::new(None, Some(b"x"), Timestamp(0))).unwrap();
    producer.commit().unwrap();
    let mut reader = broker.reader(&output(), Offset(0)).unwrap();
    assert_eq!(reader.read(NOW).unwrap().unwrap().next_offset(), Offset(4));
    assert_eq!(reader.position(), Offset(4));
    assert_eq!(broker.log_range(&output(), Isolation::ReadCommitted).unwrap().end, Offset(4));

    // A position within the hole reads an empty batch that leads out of it.
    let mut within = broker.reader(&output(), Offset(2)).unwrap();
    let batch = within.read(NOW).unwrap().unwrap();
    let mut records = Vec::new();
    batch.records(&mut records).unwrap();
    assert_eq!((records.len(), batch.next_offset()), (0, Offset(4)));
    assert!(within.read(NOW).unwrap().is_none());
}

#[test]
fn a_refused_call_changes_nothing_and_may_be_made_again() {
    let broker = broker();
    let faults = FaultsAt::new().and(1, Call::Commit, Fault::Fail(ErrorKind::Retry));
    let instance = FaultyBroker::new(broker.clone(), Arc::new(faults));
    let mut membership = instance.join(&Candidate::new("group", "member", &["in".into()])).unwrap();
    let fence = assigned(&mut membership);
    let mut producer = instance.producer("p").unwrap();
    assert_eq!(transact(&mut producer, &fence, 1).unwrap_err().kind(), ErrorKind::Retry);
    assert_eq!(outcome(&broker), (0, None));
    producer.commit().unwrap();
    assert_eq!(outcome(&broker), (1, Some(1)));
    broker.storage().set_full(true);
    assert_eq!(transact(&mut producer, &fence, 2).unwrap_err().kind(), ErrorKind::Retry);
    assert_eq!(producer.commit().unwrap_err().kind(), ErrorKind::Retry);
    assert_eq!(outcome(&broker), (1, Some(1)));
    broker.storage().set_full(false);
    producer.commit().unwrap();
    assert_eq!(outcome(&broker), (2, Some(2)));
    producer.begin().expect("the transaction is over");
}

#[test]
fn the_same_seed_gives_the_same_faults() {
    let draw = |seed| {
        let odds =
            vec![(Call::Commit, Fault::CrashBefore, 3), (Call::Commit, Fault::CrashAfter, 2), (Call::Poll, Fault::Nothing, 2)];
        let faults = SeededFaults::new(seed, odds);
        (0..100).map(|i| faults.next(if i % 3 == 0 { Call::Commit } else { Call::Poll })).collect::<Vec<_>>()
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
    let struck = draw(1).iter().flatten().count();
    assert!((30..70).contains(&struck), "{struck}");
}
