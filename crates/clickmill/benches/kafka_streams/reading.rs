//! What it costs a plain consumer to read the topic: the floor for whoever counts it.

use std::process::Command;
use std::time::{Duration, Instant};

use kafka_test_server::Cluster;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use crate::load::Load;
use crate::process::processor_time;

/// The variable that makes this program the consumer: `SERVERS TOPIC CLICKS`.
const READ: &str = "SIDE_BY_SIDE_READ";

pub(crate) fn is_asked_for() -> bool {
    std::env::var_os(READ).is_some()
}

/// The processor time that a process of its own takes to read the topic.
pub(crate) fn measure(cluster: &Cluster, load: &Load) -> Duration {
    let asked = format!("{} {} {}", cluster.bootstrap_servers(), load.topic, load.clicks);
    let read = Command::new(std::env::current_exe().unwrap()).env(READ, asked).output().expect("this program can be started");
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    Duration::from_millis(String::from_utf8_lossy(&read.stdout).trim().parse().expect("milliseconds"))
}

/// Reads as it was asked, and prints the processor time that it took.
pub(crate) fn read() {
    let asked = std::env::var(READ).unwrap();
    let words: Vec<_> = asked.split(' ').collect();
    let [servers, topic, clicks] = words[..] else { panic!("{READ}={asked}: SERVERS TOPIC CLICKS is accepted") };
    let clicks: u64 = clicks.parse().unwrap();
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("group.id", "reading")
        .set("enable.auto.commit", "false")
        .set("fetch.queue.backoff.ms", "5")
        .create()
        .unwrap();
    let mut all = TopicPartitionList::new();
    for partition in 0..8 {
        all.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&all).unwrap();
    let (mut read, mut bytes, began) = (0, 0, Instant::now());
    while read < clicks {
        assert!(began.elapsed() < Duration::from_secs(600), "{read} of {clicks} clicks were read");
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            bytes += message.unwrap().payload().map_or(0, <[u8]>::len);
            read += 1;
        }
    }
    assert!(bytes > 0);
    println!("{}", processor_time(std::process::id()).as_millis());
}
