//! Partitions that pass from member to member.

use std::thread;
use std::time::{Duration, Instant};

use kafka_test_server::Cluster;
use millstream::broker::group::Candidate;
use millstream::broker::{Broker, Fetcher, MemberEvent, Membership, TopicSettings, TransactionalProducer};
use millstream::record::{Offset, Topic, TopicPartition};
use millstream_kafka::{KafkaBroker, KafkaMembership};

use crate::support::{
    SOON, assigned, at, broker, broker_with, fetched_to, patiently, poll_until, produce, revoked, settled_end, tp,
};

/// Another member, polled on a thread of its own, as an engine would, until it is assigned something.
fn heir(broker: &KafkaBroker, group: &str, topic: &Topic) -> thread::JoinHandle<(Vec<TopicPartition>, KafkaMembership)> {
    let mut member = broker.join(&Candidate::new(group, "heir", std::slice::from_ref(topic))).unwrap();
    thread::spawn(move || {
        let (partitions, _) = assigned(&mut member);
        (partitions, member)
    })
}

/// Polls for so long, and sees no more than new proofs.
fn stays_quiet(member: &mut KafkaMembership, time: Duration) {
    let began = Instant::now();
    while began.elapsed() < time {
        match patiently(|| member.poll(Duration::from_millis(50))) {
            MemberEvent::Nothing => {}
            MemberEvent::Assigned { partitions, .. } if partitions.is_empty() => {}
            event => panic!("{event:?}"),
        }
    }
}

/// While a partition is asked back nobody else has it, and it can be committed, until all that was asked back is given up; the new
/// owner sees what was.
#[test]
fn a_revoked_partition_is_handed_on_when_it_is_given_up() {
    let broker = broker();
    let topic: Topic = "moving".into();
    broker.create_topic(&topic, &TopicSettings::kept_for_ever(4)).unwrap();
    let mut first = broker.join(&Candidate::new("moving", "first", std::slice::from_ref(&topic))).unwrap();
    let (all, proof) = assigned(&mut first);
    let heir = heir(&broker, "moving", &topic);
    let (going, proof) = revoked(&mut first, proof);
    assert_eq!(going.len(), 2);
    let staying = all.iter().find(|partition| !going.contains(partition)).unwrap();
    stays_quiet(&mut first, Duration::from_secs(1));
    // What is not asked back says nothing.
    first.give_up(std::slice::from_ref(staying)).unwrap();
    stays_quiet(&mut first, Duration::from_secs(1));
    assert!(!heir.is_finished(), "nobody has it until it is given up");
    let mut producer = broker.producer("moving").unwrap();
    producer.begin().unwrap();
    producer.send_offsets(&proof, &[(going[1].clone(), at(7)), (staying.clone(), at(3))]).unwrap();
    producer.commit().unwrap();
    first.give_up(&going).unwrap();
    let began = Instant::now();
    while !heir.is_finished() {
        assert!(began.elapsed() < SOON);
        stays_quiet(&mut first, Duration::from_millis(50));
    }
    let (come, _second) = heir.join().unwrap();
    assert_eq!(come, going);
    assert_eq!(broker.committed("moving", &come).unwrap(), [None, Some(at(7))]);
}

/// The group goes on without a member that does not join again in time.
#[test]
fn a_member_that_is_not_polled_while_the_group_gathers_loses_everything() {
    let broker = broker();
    let topic: Topic = "missed".into();
    broker.create_topic(&topic, &TopicSettings::kept_for_ever(1)).unwrap();
    let from = tp("missed", 0);
    let mut member = broker.join(&Candidate::new("missed", "member", std::slice::from_ref(&topic))).unwrap();
    let (_, old) = assigned(&mut member);
    let began = Instant::now();
    let (come, mut heir) = heir(&broker, "missed", &topic).join().unwrap();
    eprintln!("the group went on after {:?}", began.elapsed());
    assert_eq!(come, std::slice::from_ref(&from));
    poll_until(&mut member, |event| matches!(event, MemberEvent::Lost).then_some(()));
    let mut producer = broker.producer("missed").unwrap();
    producer.begin().unwrap();
    assert!(producer.send_offsets(&old, &[(from.clone(), at(0))]).is_err(), "the old proof is good for nothing");
    producer.abort().unwrap();
    heir.leave().unwrap();
    let new = poll_until(&mut member, |event| match event {
        MemberEvent::Assigned { partitions, fence } if partitions == [from.clone()] => Some(fence),
        _ => None,
    });
    producer.begin().unwrap();
    producer.send_offsets(&new, &[(from, at(0))]).unwrap();
    producer.commit().unwrap();
}

/// The session is longer than the test waits.
#[test]
fn an_instance_that_starts_again_goes_on_as_the_member_that_it_was() {
    let broker = broker_with(Cluster::shared(), &[("session.timeout.ms", "45000"), ("heartbeat.interval.ms", "1000")]);
    broker.create_topic("again", &TopicSettings::kept_for_ever(2)).unwrap();
    let candidate = Candidate { incarnation: 1, ..Candidate::new("again", "app-0", &["again".into()]) };
    let mut before = broker.join(&candidate).unwrap();
    let (had, old) = assigned(&mut before);
    // To the group this is a crash.
    before.abandon();
    drop(before);
    let began = Instant::now();
    let mut after = broker.join(&Candidate { incarnation: 2, member: Some(old.member().clone()), ..candidate.clone() }).unwrap();
    let (has, new) = assigned(&mut after);
    assert!(began.elapsed() < Duration::from_secs(20), "it did not wait for the session: {:?}", began.elapsed());
    assert_eq!((has, new.member()), (had, old.member()));
    let mut producer = broker.producer("again").unwrap();
    producer.begin().unwrap();
    assert!(producer.send_offsets(&old, &[(tp("again", 0), at(0))]).is_err(), "whoever it was before cannot commit any more");
    producer.abort().unwrap();
    producer.begin().unwrap();
    producer.send_offsets(&new, &[(tp("again", 0), at(0))]).unwrap();
    producer.commit().unwrap();

    // One that the group does not know any more is a new one.
    after.leave().unwrap();
    let mut last = broker.join(&Candidate { incarnation: 3, member: Some(new.member().clone()), ..candidate }).unwrap();
    let (has, newest) = assigned(&mut last);
    assert_eq!(has.len(), 2);
    assert_ne!(newest.member(), new.member());
}

/// By default it would take minutes.
#[test]
fn partitions_that_are_added_to_a_topic_are_assigned_and_fetched() {
    let broker = broker();
    broker.create_topic("growing", &TopicSettings::kept_for_ever(1)).unwrap();
    let old = tp("growing", 0);
    let mut member = broker.join(&Candidate::new("growing", "member", &["growing".into()])).unwrap();
    assigned(&mut member);
    let mut fetcher = broker.fetcher().unwrap();
    fetcher.start(&old, Offset(0)).unwrap();
    produce(&broker, &old, &["old"]);
    assert_eq!(fetched_to(&mut fetcher, &old, settled_end(&broker, &old)), ["old"]);
    let began = Instant::now();
    grow("growing", 3);
    let (new, _) = assigned(&mut member);
    eprintln!("assigned after {:?}", began.elapsed());
    assert_eq!(new, [tp("growing", 1), tp("growing", 2)]);
    for partition in &new {
        fetcher.start(partition, Offset(0)).unwrap();
        produce(&broker, partition, &["new"]);
        assert_eq!(fetched_to(&mut fetcher, partition, settled_end(&broker, partition)), ["new"]);
    }
    eprintln!("fetched after {:?}", began.elapsed());
}

/// Gives a topic on the shared server that many partitions.
fn grow(topic: &str, partitions: usize) {
    use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
    let mut config = rdkafka::ClientConfig::new();
    let admin: AdminClient<_> = config.set("bootstrap.servers", Cluster::shared().bootstrap_servers()).create().unwrap();
    let options = AdminOptions::new().request_timeout(Some(SOON));
    let wanted = [NewPartitions::new(topic, partitions)];
    let mut grown = Box::pin(admin.create_partitions(&wanted, &options));
    let began = Instant::now();
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let std::task::Poll::Ready(outcome) = grown.as_mut().poll(&mut context) {
            outcome.unwrap().pop().unwrap().unwrap();
            return;
        }
        assert!(began.elapsed() < SOON, "no answer");
        thread::park_timeout(Duration::from_millis(10));
    }
}
