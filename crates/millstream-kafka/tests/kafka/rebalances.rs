//! Partitions that pass from member to member.

use std::thread;
use std::time::{Duration, Instant};

use kafka_test_server::Cluster;
use millstream::broker::{Broker, Fetcher, MemberEvent, Membership, TopicSettings, TransactionalProducer};
use millstream::record::{Offset, Topic, TopicPartition};
use millstream_kafka::{KafkaBroker, KafkaConfig, KafkaMembership};

use crate::support::{SOON, assigned, at, broker, broker_with, fetched_to, poll_until, produce, revoked, settled_end, tp};

/// Another member, polled on a thread of its own, as an engine would, until it is assigned something.
fn heir(broker: &KafkaBroker, group: &str, topic: &Topic) -> thread::JoinHandle<(Vec<TopicPartition>, KafkaMembership)> {
    let mut member = broker.join(group, "heir", std::slice::from_ref(topic)).unwrap();
    thread::spawn(move || {
        let (partitions, _) = assigned(&mut member);
        (partitions, member)
    })
}

/// Polls for so long, and sees no more than new proofs.
fn stays_quiet(member: &mut KafkaMembership, time: Duration) {
    let began = Instant::now();
    while began.elapsed() < time {
        match member.poll(Duration::from_millis(50)).unwrap() {
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
    let mut first = broker.join("moving", "first", std::slice::from_ref(&topic)).unwrap();
    let (all, proof) = assigned(&mut first);
    let heir = heir(&broker, "moving", &topic);
    let (going, proof) = revoked(&mut first, proof);
    assert_eq!(going.len(), 2);
    let staying = all.iter().find(|partition| !going.contains(partition)).unwrap();
    stays_quiet(&mut first, Duration::from_secs(1));
    // What is not asked back says nothing, and half of what is is not all.
    first.give_up(&[staying.clone(), going[0].clone()]).unwrap();
    stays_quiet(&mut first, Duration::from_secs(1));
    assert!(!heir.is_finished(), "nobody has it until it is given up");
    let mut producer = broker.producer("moving").unwrap();
    producer.begin().unwrap();
    producer.send_offsets(&proof, &[(going[1].clone(), at(7)), (staying.clone(), at(3))]).unwrap();
    producer.commit().unwrap();
    first.give_up(&going[1..]).unwrap();
    let began = Instant::now();
    while !heir.is_finished() {
        assert!(began.elapsed() < SOON);
        stays_quiet(&mut first, Duration::from_millis(50));
    }
    let (come, _second) = heir.join().unwrap();
    assert_eq!(come, going);
    assert_eq!(broker.committed("moving", &come).unwrap(), [None, Some(at(7))]);
}

#[test]
fn a_member_that_misses_its_polls_is_told_that_it_has_lost_everything() {
    let quick = [("max.poll.interval.ms", "6000"), ("session.timeout.ms", "6000")];
    let broker = broker_with(Cluster::shared(), &quick);
    broker.create_topic("missed", &TopicSettings::kept_for_ever(1)).unwrap();
    let from = tp("missed", 0);
    let mut member = broker.join("missed", "member", &["missed".into()]).unwrap();
    let (_, old) = assigned(&mut member);
    thread::park_timeout(Duration::from_secs(8));
    poll_until(&mut member, |event| matches!(event, MemberEvent::Lost).then_some(()));
    let (_, new) = assigned(&mut member);
    let mut producer = broker.producer("missed").unwrap();
    producer.begin().unwrap();
    assert!(producer.send_offsets(&old, &[(from.clone(), at(0))]).is_err(), "the old proof is good for nothing");
    producer.abort().unwrap();
    producer.begin().unwrap();
    producer.send_offsets(&new, &[(from, at(0))]).unwrap();
    producer.commit().unwrap();
}

/// The group goes on without a member that does not give up in time what it was asked for. librdkafka does not tell it, and keeps what
/// others have had meanwhile.
#[test]
fn a_member_that_is_put_out_while_it_gives_up_loses_everything() {
    let quick = [("max.poll.interval.ms", "6000"), ("session.timeout.ms", "6000")];
    let broker = broker_with(Cluster::shared(), &quick);
    let topic: Topic = "put-out".into();
    broker.create_topic(&topic, &TopicSettings::kept_for_ever(2)).unwrap();
    let mut first = broker.join("put-out", "first", std::slice::from_ref(&topic)).unwrap();
    let (all, proof) = assigned(&mut first);
    let second = heir(&broker, "put-out", &topic);
    let (going, old) = revoked(&mut first, proof);
    // It cannot join the next generation before it has given up, and so is not in it.
    let third = heir(&broker, "put-out", &topic);
    poll_until(&mut first, |event| matches!(event, MemberEvent::Lost).then_some(()));
    first.give_up(&going).unwrap();
    let began = Instant::now();
    while !(second.is_finished() && third.is_finished()) {
        assert!(began.elapsed() < SOON, "the others have nothing");
        first.poll(Duration::from_millis(50)).unwrap();
    }
    // They end, and everything comes back, under another proof.
    let mut back = Vec::new();
    drop((second.join().unwrap(), third.join().unwrap()));
    let new = poll_until(&mut first, |event| match event {
        MemberEvent::Assigned { partitions, fence } => {
            back.extend(partitions);
            back.sort();
            (back == all).then_some(fence)
        }
        MemberEvent::Revoked { partitions } => panic!("{partitions:?} was never told to be assigned"),
        _ => None,
    });
    assert_ne!(new.member(), old.member());
    let mut producer = broker.producer("put-out").unwrap();
    producer.begin().unwrap();
    producer.send_offsets(&new, &[(all[0].clone(), at(0)), (all[1].clone(), at(0))]).unwrap();
    producer.commit().unwrap();
}

/// The session is longer than the test waits.
#[test]
fn a_static_member_that_starts_again_gets_its_partitions_back_at_once() {
    let properties = [("session.timeout.ms", "45000"), ("heartbeat.interval.ms", "1000")];
    let properties = properties.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let config = KafkaConfig::new(Cluster::shared().bootstrap_servers(), properties).unwrap().with_static_membership();
    let broker = KafkaBroker::new(config).unwrap();
    broker.create_topic("static", &TopicSettings::kept_for_ever(2)).unwrap();
    let mut before = broker.join("static", "app-0", &["static".into()]).unwrap();
    let (had, old) = assigned(&mut before);
    // A static member does not leave: to the group this is a crash.
    drop(before);
    let mut after = broker.join("static", "app-0", &["static".into()]).unwrap();
    let (has, new) = assigned(&mut after);
    assert_eq!(has, had);
    let mut producer = broker.producer("static").unwrap();
    producer.begin().unwrap();
    assert!(producer.send_offsets(&old, &[(tp("static", 0), at(0))]).is_err(), "whoever it was before cannot commit any more");
    producer.abort().unwrap();
    producer.begin().unwrap();
    producer.send_offsets(&new, &[(tp("static", 0), at(0))]).unwrap();
    producer.commit().unwrap();
}

/// By default it would take minutes.
#[test]
fn partitions_that_are_added_to_a_topic_are_assigned_and_fetched() {
    let broker = broker();
    broker.create_topic("growing", &TopicSettings::kept_for_ever(1)).unwrap();
    let old = tp("growing", 0);
    let mut member = broker.join("growing", "member", &["growing".into()]).unwrap();
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
