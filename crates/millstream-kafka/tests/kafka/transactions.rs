//! Transactions: hidden until they commit, gone when they are aborted, and refused to whoever was replaced.

use std::time::Duration;

use millstream::broker::group::Candidate;
use millstream::broker::{Broker, ErrorKind, Fence, Isolation, LogReader, Membership, TopicSettings, TransactionalProducer};
use millstream::record::{Offset, Record, Timestamp};

use crate::support::{assigned, at, broker, broker_of, produce, read_all, tp};

#[test]
fn records_are_hidden_until_their_transaction_commits() {
    let broker = broker();
    let to = tp("hidden", 0);
    broker.create_topic("hidden", &TopicSettings::kept_for_ever(1)).unwrap();
    produce(&broker, &to, &["before"]);
    let mut producer = broker.producer("hidden").unwrap();
    producer.begin().unwrap();
    let large = "x".repeat(2 << 20);
    // More than one batch, so that the broker has some of it before the commit.
    for _ in 0..3 {
        producer.send(&to, &Record::new(None, Some(&large.as_bytes()[..900_000]), Timestamp(1))).unwrap();
    }
    let began = std::time::Instant::now();
    while broker.log_range(&to, Isolation::ReadUncommitted).unwrap().end < Offset(3) {
        assert!(began.elapsed() < crate::support::SOON, "nothing is written");
    }
    assert_eq!(broker.log_range(&to, Isolation::ReadCommitted).unwrap().end, Offset(2), "the record before and its marker");
    let mut reader = broker.reader(&to, Offset(0)).unwrap();
    assert_eq!(crate::support::texts(&reader.read(Duration::from_secs(5)).unwrap().unwrap()), ["before"]);
    assert!(reader.read(Duration::from_millis(300)).unwrap().is_none());
    producer.commit().unwrap();
    assert_eq!(read_all(&broker, &to).len(), 4);
}

#[test]
fn an_aborted_transaction_leaves_nothing_and_the_next_one_commits() {
    let broker = broker();
    let to = tp("aborted", 0);
    broker.create_topic("aborted", &TopicSettings::kept_for_ever(1)).unwrap();
    let mut producer = broker.producer("aborted").unwrap();
    for round in 0..3 {
        producer.begin().unwrap();
        producer.send(&to, &Record::new(None, Some(b"given up"), Timestamp(1))).unwrap();
        producer.abort().unwrap();
        producer.begin().unwrap();
        let value = format!("kept {round}");
        producer.send(&to, &Record::new(None, Some(value.as_bytes()), Timestamp(1))).unwrap();
        let delivered = producer.commit().unwrap();
        assert_eq!(delivered.keys().cloned().collect::<Vec<_>>(), std::slice::from_ref(&to));
    }
    assert_eq!(read_all(&broker, &to), ["kept 0", "kept 1", "kept 2"]);
}

#[test]
fn a_successor_ends_an_open_transaction_at_once() {
    let broker = broker();
    let to = tp("crashed", 0);
    broker.create_topic("crashed", &TopicSettings::kept_for_ever(1)).unwrap();
    let mut producer = broker.producer("crashed").unwrap();
    producer.begin().unwrap();
    producer.send(&to, &Record::new(None, Some(b"lost"), Timestamp(1))).unwrap();
    drop(producer);
    broker.producer("crashed").unwrap();
    produce(&broker, &to, &["kept"]);
    assert_eq!(read_all(&broker, &to), ["kept"]);
}

#[test]
fn a_zombie_is_fenced_by_its_generation() {
    let broker = broker();
    broker.create_topic("zombie", &TopicSettings::kept_for_ever(1)).unwrap();
    let from = tp("zombie", 0);
    produce(&broker, &from, &["a", "b", "c"]);
    let mut zombie = broker.join(&Candidate::new("zombie", "member", &["zombie".into()])).unwrap();
    let (_, old) = assigned(&mut zombie);
    let mut of_zombie = broker.producer("zombie-1").unwrap();
    of_zombie.begin().unwrap();
    of_zombie.send(&from, &Record::new(None, Some(b"of the zombie"), Timestamp(1))).unwrap();

    // It is taken for dead, and another member takes over and commits, with a producer of its own.
    zombie.leave().unwrap();
    let mut heir = broker.join(&Candidate::new("zombie", "member", &["zombie".into()])).unwrap();
    let (_, new) = assigned(&mut heir);
    let mut of_heir = broker.producer("zombie-2").unwrap();
    of_heir.begin().unwrap();
    of_heir.send_offsets(&new, &[(from.clone(), at(3))]).unwrap();
    of_heir.commit().unwrap();

    let refused = of_zombie.send_offsets(&old, &[(from.clone(), at(1))]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AbortTransaction, "{refused}");
    of_zombie.abort().unwrap();
    assert_eq!(broker.committed("zombie", std::slice::from_ref(&from)).unwrap(), [Some(at(3))]);
    assert_eq!(read_all(&broker, &from), ["a", "b", "c"]);
    heir.leave().unwrap();
}

#[test]
fn a_transaction_that_no_membership_fences_is_refused() {
    let broker = broker();
    broker.create_topic("unfenced", &TopicSettings::kept_for_ever(1)).unwrap();
    let mut producer = broker.producer("unfenced").unwrap();
    producer.begin().unwrap();
    let nobody = Fence::new("unfenced", -1, "");
    let refused = producer.send_offsets(&nobody, &[(tp("unfenced", 0), at(0))]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Fenced, "{refused}");
}

#[test]
fn a_record_that_is_too_large_for_its_topic_stops_with_the_topic_and_the_way_out() {
    let broker = broker();
    for topic in ["large", "roomy"] {
        broker.create_topic(topic, &TopicSettings::kept_for_ever(1)).unwrap();
    }
    broker.alter_topic_config("roomy", &[("max.message.bytes", "4000000".to_owned())]).unwrap();
    let mut producer = broker.producer("large").unwrap();
    // Nothing that compression could make smaller.
    let large: Vec<_> = (0..3_000_000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let record = Record::new(None, Some(&large), Timestamp(1));
    producer.begin().unwrap();
    let refused = producer.send(&tp("large", 0), &record).and_then(|()| producer.commit()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Stop);
    assert_eq!(refused.partition(), Some(&tp("large", 0)));
    let message = refused.to_string();
    assert!(message.contains("large-0") && message.contains("max.message.bytes"), "{message}");
    producer.abort().unwrap();
    producer.begin().unwrap();
    producer.send(&tp("roomy", 0), &record).unwrap();
    producer.commit().unwrap();
}

#[test]
fn an_unknown_topic_is_named() {
    let broker = broker();
    let refused = broker.join(&Candidate::new("nobody", "member", &["no-such-topic".into()])).err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Stop);
    assert!(refused.to_string().contains("no-such-topic"), "{refused}");
    let refused = broker.log_range(&tp("no-such-topic", 0), Isolation::ReadCommitted).unwrap_err();
    assert!(refused.kind() == ErrorKind::Stop && refused.to_string().contains("no-such-topic"), "{refused}");
}

/// The answer to a commit is lost with the broker: nothing is taken for committed that is not, nor the other way round.
#[test]
fn a_commit_without_an_answer_has_an_unknown_outcome_and_is_settled_by_the_successor() {
    let cluster = kafka_test_server::Cluster::start(1);
    let broker = broker_of(&cluster);
    broker.create_topic("unknown", &TopicSettings::kept_for_ever(1)).unwrap();
    let to = tp("unknown", 0);
    let mut producer = broker.producer("unknown").unwrap();
    producer.begin().unwrap();
    producer.send(&to, &Record::new(None, Some(b"perhaps"), Timestamp(1))).unwrap();
    // The record is written before the broker hangs, so that only the end of the transaction is open.
    while broker.log_range(&to, Isolation::ReadUncommitted).unwrap().end < Offset(1) {}
    // And the producer has heard of it: else it would know that nothing can have committed.
    std::thread::park_timeout(Duration::from_secs(1));
    cluster.suspend(0);
    let outcome = producer.commit();
    cluster.resume(0);
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    drop(producer);
    let mut successor = broker.producer("unknown").unwrap();
    successor.begin().unwrap();
    successor.send(&to, &Record::new(None, Some(b"surely"), Timestamp(1))).unwrap();
    successor.commit().unwrap();
    let values = read_all(&broker, &to);
    assert!(values == ["surely"] || values == ["perhaps", "surely"], "{values:?}");
}
