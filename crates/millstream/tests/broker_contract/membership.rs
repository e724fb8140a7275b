//! Members of groups, and the handing over of partitions between them.

use std::time::{Duration, Instant};

use millstream::broker::group::Candidate;
use millstream::broker::{
    Broker, CommittedOffset, ErrorKind, Fence, MemberEvent, Membership, TopicSettings, TransactionalProducer,
};
use millstream::record::{Offset, Record, Timestamp, Topic, TopicPartition};

use super::{Place, SOON, at, kind, read_all, tp};

pub(super) fn contract<B: Broker>(broker: &B, place: Place) {
    offsets_carry_metadata(broker, place);
    partitions_pass_from_hand_to_hand(broker, place);
    a_member_that_left_cannot_commit(broker, place);
}

/// What a poll brings. A coordinator that is not there yet brings nothing.
fn polled<M: Membership>(member: &mut M, max_wait: Duration) -> MemberEvent {
    match member.poll(max_wait) {
        Err(error) if error.kind() == ErrorKind::Retry => MemberEvent::Nothing,
        event => event.unwrap(),
    }
}

/// The next event but for those that tell of nothing, or of a new proof alone.
fn event<M: Membership>(member: &mut M) -> MemberEvent {
    let began = Instant::now();
    loop {
        match polled(member, SOON.saturating_sub(began.elapsed())) {
            MemberEvent::Assigned { partitions, .. } if partitions.is_empty() => {}
            MemberEvent::Nothing => assert!(began.elapsed() < SOON, "no event comes"),
            event => return event,
        }
    }
}

fn assigned<M: Membership>(member: &mut M) -> (Vec<TopicPartition>, Fence) {
    match event(member) {
        MemberEvent::Assigned { partitions, fence } => (partitions, fence),
        other => panic!("expected Assigned, got {other:?}"),
    }
}

/// Polls both members of a handing over, for a group may ask each of them for something before it goes on. Gives what the taker is
/// told, and what the giver is told other than a new proof, which is noted.
fn poll_both<M: Membership>(giver: &mut M, proof: &mut Fence, taker: &mut M, max_wait: Duration) -> (MemberEvent, MemberEvent) {
    let given = match polled(giver, Duration::ZERO) {
        MemberEvent::Assigned { partitions, fence } if partitions.is_empty() => {
            *proof = fence;
            MemberEvent::Nothing
        }
        event => event,
    };
    (given, polled(taker, max_wait))
}

/// Whether the taker is told of nothing that comes to it.
fn takes_nothing(event: &MemberEvent) -> bool {
    match event {
        MemberEvent::Assigned { partitions, .. } => partitions.is_empty(),
        event => *event == MemberEvent::Nothing,
    }
}

/// What is asked back of the giver. Its proof, as it is noted, is good for that still.
fn revoked<M: Membership>(giver: &mut M, proof: &mut Fence, taker: &mut M) -> Vec<TopicPartition> {
    let began = Instant::now();
    loop {
        let (given, taken) = poll_both(giver, proof, taker, Duration::from_millis(20));
        assert!(takes_nothing(&taken), "nothing was given up, and {taken:?}");
        match given {
            MemberEvent::Revoked { partitions } => return partitions,
            MemberEvent::Nothing => assert!(began.elapsed() < SOON, "nothing is asked back"),
            other => panic!("expected Revoked, got {other:?}"),
        }
    }
}

/// Polls both for a while, in which nothing is to happen.
fn nothing_moves<M: Membership>(giver: &mut M, proof: &mut Fence, taker: &mut M, place: Place) {
    // In a process whatever happens has happened before a call returns.
    let (rounds, max_wait) = if place == Place::InProcess { (3, Duration::ZERO) } else { (20, Duration::from_millis(50)) };
    for _ in 0..rounds {
        let (given, taken) = poll_both(giver, proof, taker, max_wait);
        assert!(given == MemberEvent::Nothing && takes_nothing(&taken), "nothing was given up, and {given:?}, {taken:?}");
    }
}

/// What has come to the taker. The giver's proof, as it is noted, is good for what stays with it: in a cluster once both are in the
/// same generation.
fn handed_over<M: Membership>(giver: &mut M, proof: &mut Fence, taker: &mut M, place: Place) -> Vec<TopicPartition> {
    let (began, mut taken, mut generation) = (Instant::now(), Vec::new(), 0);
    loop {
        let (given, told) = poll_both(giver, proof, taker, Duration::from_millis(20));
        assert_eq!(given, MemberEvent::Nothing);
        match told {
            MemberEvent::Nothing => {}
            MemberEvent::Assigned { partitions, fence } => {
                taken.extend(partitions);
                generation = fence.generation();
            }
            other => panic!("expected Assigned, got {other:?}"),
        }
        if !taken.is_empty() && (place == Place::InProcess || generation == proof.generation()) {
            return taken;
        }
        assert!(began.elapsed() < SOON, "nothing is handed over");
    }
}

/// Commits a position of each partition, or says why not.
fn commit_positions<P: TransactionalProducer>(producer: &mut P, proof: &Fence, of: &[&TopicPartition]) -> Result<(), ErrorKind> {
    let positions: Vec<_> = of.iter().map(|partition| ((*partition).clone(), at(0))).collect();
    producer.begin().unwrap();
    match producer.send_offsets(proof, &positions).and_then(|()| producer.commit()) {
        Ok(_) => Ok(()),
        Err(error) => {
            producer.abort().unwrap();
            Err(error.kind())
        }
    }
}

fn offsets_carry_metadata<B: Broker>(broker: &B, place: Place) {
    broker.create_topic("metadata", &TopicSettings::kept_for_ever(2)).unwrap();
    let mut member = broker.join(&Candidate::new("metadata", "member", &["metadata".into()])).unwrap();
    let (partitions, fence) = assigned(&mut member);
    assert_eq!(partitions, [tp("metadata", 0), tp("metadata", 1)]);
    assert_eq!(broker.committed("metadata", &partitions).unwrap(), [None, None]);
    let offset = CommittedOffset { offset: Offset(0), metadata: "AgAA=".to_owned() };
    let mut producer = broker.producer("metadata").unwrap();
    producer.begin().unwrap();
    producer.send_offsets(&fence, &[(partitions[1].clone(), offset.clone())]).unwrap();
    if place == Place::InProcess {
        assert_eq!(broker.committed("metadata", &partitions).unwrap(), [None, None], "not before the commit");
    }
    producer.commit().unwrap();
    assert_eq!(broker.committed("metadata", &partitions).unwrap(), [None, Some(offset)]);
    member.leave().unwrap();
}

fn partitions_pass_from_hand_to_hand<B: Broker>(broker: &B, place: Place) {
    let topic: Topic = "hands".into();
    broker.create_topic(&topic, &TopicSettings::kept_for_ever(4)).unwrap();
    let mut first = broker.join(&Candidate::new("hands", "first", std::slice::from_ref(&topic))).unwrap();
    let (all, mut proof) = assigned(&mut first);
    assert_eq!(all.len(), 4);
    let mut second = broker.join(&Candidate::new("hands", "second", &[topic])).unwrap();
    let going = revoked(&mut first, &mut proof, &mut second);
    assert_eq!(going.len(), 2, "half of them, and no more");
    let stayed: Vec<_> = all.iter().filter(|partition| !going.contains(partition)).collect();

    // What is asked back stays, however often both poll, and may be committed together with the rest; giving up what is not asked
    // back says nothing.
    nothing_moves(&mut first, &mut proof, &mut second, place);
    first.give_up(&[stayed[0].clone()]).unwrap();
    nothing_moves(&mut first, &mut proof, &mut second, place);
    let mut producer = broker.producer("hands-first").unwrap();
    commit_positions(&mut producer, &proof, &all.iter().collect::<Vec<_>>()).unwrap();
    first.give_up(&going).unwrap();
    let mut still_good = proof.clone();
    assert_eq!(handed_over(&mut first, &mut still_good, &mut second, place), going);
    assert!(broker.committed("hands", &all).unwrap().iter().all(Option::is_some));

    // From here on not, while those that stayed are.
    assert_eq!(commit_positions(&mut producer, &proof, &[&going[0]]), Err(ErrorKind::AbortTransaction));
    commit_positions(&mut producer, &still_good, &stayed).unwrap();

    second.leave().unwrap();
    let (back, newer) = assigned(&mut first);
    assert_eq!(back, going);
    let refused = commit_positions(&mut producer, &proof, &[&going[0]]);
    assert_eq!(refused, Err(ErrorKind::AbortTransaction), "the old proof is not good for what came back");
    commit_positions(&mut producer, &newer, &[&going[0], stayed[0]]).unwrap();
    first.leave().unwrap();
}

fn a_member_that_left_cannot_commit<B: Broker>(broker: &B, place: Place) {
    broker.create_topic("left", &TopicSettings::kept_for_ever(1)).unwrap();
    let mut member = broker.join(&Candidate::new("left", "member", &["left".into()])).unwrap();
    let (partitions, proof) = assigned(&mut member);
    let mut producer = broker.producer("left").unwrap();
    producer.begin().unwrap();
    producer.send(&partitions[0], &Record::new(None, Some(b"late"), Timestamp(1))).unwrap();
    let offsets = [(partitions[0].clone(), at(0))];
    if place == Place::InProcess {
        producer.send_offsets(&proof, &offsets).unwrap();
        member.leave().unwrap();
        assert_eq!(kind(producer.commit()), ErrorKind::AbortTransaction);
    } else {
        member.leave().unwrap();
        assert_eq!(kind(producer.send_offsets(&proof, &offsets)), ErrorKind::AbortTransaction);
    }
    producer.abort().unwrap();
    assert_eq!(broker.committed("left", &partitions).unwrap(), [None]);
    assert_eq!(read_all(broker, &partitions[0]), [""; 0]);
}
