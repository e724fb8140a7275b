//! Topics, by an independent consumer and admin client.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::service::pause;

const TIMEOUT: Duration = Duration::from_secs(30);

/// How long the broker may take until an open transaction has ended, be it by its timeout, and until a read gets on.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn create(servers: &str, name: &str, partitions: u32, settings: &[(&str, &str)]) {
    create_topic(servers, NewTopic::new(name, partitions as i32, TopicReplication::Fixed(1)), settings);
}

/// A topic with each partition on those brokers.
pub(crate) fn create_on(servers: &str, name: &str, brokers: &[&[i32]], settings: &[(&str, &str)]) {
    create_topic(servers, NewTopic::new(name, brokers.len() as i32, TopicReplication::Variable(brokers)), settings);
}

fn create_topic<'a>(servers: &str, topic: NewTopic<'a>, settings: &[(&'a str, &'a str)]) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new().set("bootstrap.servers", servers).create().unwrap();
    let name = topic.name;
    let topic = settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
    let created = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(async { admin.create_topics([&topic], &AdminOptions::new().operation_timeout(Some(TIMEOUT))).await });
    created.unwrap().pop().unwrap().unwrap();
    // The broker knows of it a moment later.
    partition_count(&consumer(servers, "topics", "read_committed"), name);
}

/// Lets a topic grow to so many partitions.
pub(crate) fn add_partitions(servers: &str, name: &str, partitions: usize) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new().set("bootstrap.servers", servers).create().unwrap();
    let grown = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
        let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
        admin.create_partitions([&NewPartitions::new(name, partitions)], &options).await
    });
    grown.unwrap().pop().unwrap().unwrap();
    let (consumer, began) = (consumer(servers, "topics", "read_committed"), Instant::now());
    while partition_count(&consumer, name) < partitions as i32 {
        assert!(began.elapsed() < TIMEOUT, "topic {name} does not grow");
        pause(Duration::from_millis(50));
    }
}

fn consumer(servers: &str, group: &str, isolation: &str) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers).set("group.id", group).set("isolation.level", isolation);
    config.set("enable.auto.commit", "false").set("enable.partition.eof", "true").set("reconnect.backoff.max.ms", "1000");
    config.create().unwrap()
}

fn partition_count(consumer: &BaseConsumer, topic: &str) -> i32 {
    let began = Instant::now();
    loop {
        let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT).unwrap();
        match metadata.topics().first().map_or(0, |topic| topic.partitions().len()) {
            0 => assert!(began.elapsed() < TIMEOUT, "there is no topic {topic}"),
            count => return count as i32,
        }
        pause(Duration::from_millis(50));
    }
}

/// Whether there is such a topic.
pub(crate) fn exists(servers: &str, topic: &str) -> bool {
    let all = consumer(servers, "topics", "read_committed").fetch_metadata(None, TIMEOUT).unwrap();
    all.topics().iter().any(|found| found.name() == topic)
}

/// The first offset and the end of each partition.
pub(crate) fn ranges(servers: &str, topic: &str) -> Vec<(i64, i64)> {
    let consumer = consumer(servers, "ranges", "read_uncommitted");
    (0..partition_count(&consumer, topic)).map(|partition| watermarks(&consumer, topic, partition)).collect()
}

/// The first offset and the end of a partition, as soon as a broker that has just started knows them. A reader of committed records is
/// told the last stable offset as the end.
fn watermarks(consumer: &BaseConsumer, topic: &str, partition: i32) -> (i64, i64) {
    let began = Instant::now();
    loop {
        match consumer.fetch_watermarks(topic, partition, TIMEOUT) {
            Ok(watermarks) => return watermarks,
            Err(error) => assert!(began.elapsed() < PATIENCE, "{topic} {partition}: {error}"),
        }
        pause(Duration::from_millis(100));
    }
}

/// The group's committed position in each partition of a topic; none where it has none.
pub(crate) fn committed(servers: &str, group: &str, topic: &str) -> Vec<Option<i64>> {
    let consumer = consumer(servers, group, "read_committed");
    let mut list = TopicPartitionList::new();
    list.add_partition_range(topic, 0, partition_count(&consumer, topic) - 1);
    let committed = consumer.committed_offsets(list, TIMEOUT).unwrap();
    let offset = |offset| if let Offset::Offset(offset) = offset { Some(offset) } else { None };
    committed.elements().iter().map(|element| offset(element.offset())).collect()
}

/// A consumer of what is committed, from the beginning of each partition on.
pub(crate) fn from_the_beginning(servers: &str, topic: &str) -> BaseConsumer {
    let consumer = consumer(servers, "follower", "read_committed");
    let mut list = TopicPartitionList::new();
    for partition in 0..partition_count(&consumer, topic) {
        list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    consumer
}

/// Visits everything that is committed, each partition in its order. No transaction may stay open.
pub(crate) fn read(servers: &str, topic: &str, mut visit: impl FnMut(&BorrowedMessage<'_>)) {
    wait_for_open_transactions(servers, topic);
    let consumer = from_the_beginning(servers, topic);
    let mut unread: BTreeSet<i32> = (0..partition_count(&consumer, topic)).collect();
    let mut moved = Instant::now();
    while !unread.is_empty() {
        assert!(moved.elapsed() < PATIENCE, "{topic}: partitions {unread:?} are not read to their ends");
        match consumer.poll(Duration::from_millis(100)) {
            None => continue,
            Some(Ok(message)) => visit(&message),
            Some(Err(KafkaError::PartitionEOF(partition))) => _ = unread.remove(&partition),
            // The client goes on by itself.
            Some(Err(_)) => continue,
        }
        moved = Instant::now();
    }
}

/// Waits until what is there now can be read: what lies behind an open transaction cannot before that has ended.
fn wait_for_open_transactions(servers: &str, topic: &str) {
    let committed = consumer(servers, "reader", "read_committed");
    let ends: Vec<_> = ranges(servers, topic).into_iter().map(|(_, end)| end).collect();
    let began = Instant::now();
    loop {
        let stable: Vec<_> = (0..ends.len() as i32).map(|partition| watermarks(&committed, topic, partition).1).collect();
        if ends.iter().zip(&stable).all(|(end, stable)| stable >= end) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "a transaction in {topic} stays open: stable up to {stable:?} of {ends:?}");
        pause(Duration::from_millis(200));
    }
}
