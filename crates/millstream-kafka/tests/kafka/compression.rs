//! Compression, which librdkafka has to be built with.

use kafka_test_server::Cluster;
use millstream::broker::{Broker, TopicSettings};

use crate::support::{broker_with, produce, read_all, tp};

#[test]
fn records_are_read_however_they_are_compressed() {
    for codec in ["zstd", "lz4", "snappy", "gzip", "none"] {
        let broker = broker_with(Cluster::shared(), &[("compression.codec", codec)]);
        let to = tp(&format!("compressed-{codec}"), 0);
        broker.create_topic(&to.topic, &TopicSettings::kept_for_ever(1)).unwrap();
        let values: Vec<_> = (0..200).map(|n| format!("{n} {}", "like the others ".repeat(20))).collect();
        produce(&broker, &to, &values.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(read_all(&broker, &to), values, "{codec}");
    }
}
