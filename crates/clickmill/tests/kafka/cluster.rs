//! The Kafka that the scenarios share. Those that harm a broker have one of their own.

use std::sync::OnceLock;

use kafka_test_server::Cluster;

/// What has outlived its retention is looked for all the time, so that a topic with the wrong settings would lose it.
const RETENTION: [(&str, &str); 2] = [("log.retention.check.interval.ms", "500"), ("log.initial.task.delay.ms", "500")];

/// One node, which ends with this process.
pub(crate) fn shared() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(|| Cluster::start_with(1, &RETENTION))
}
