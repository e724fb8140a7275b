//! The names, labels and help of every metric. What stands here is part of the service's interface.

/// A metric's name and help. OpenMetrics adds `_total` to the names of counters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Name {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
}

const fn name(name: &'static str, help: &'static str) -> Name {
    Name { name, help }
}

/// The label that says why a click was refused, rejected or dead-lettered.
pub(super) const REASON: &str = "reason";
/// The label of a request's route, the pattern of its path.
pub(super) const ROUTE: &str = "route";
/// The label of a request's method.
pub(super) const METHOD: &str = "method";
/// The label of an answer's status.
pub(super) const STATUS: &str = "status";
/// The label of a topic.
pub(super) const TOPIC: &str = "topic";
/// The label of a partition.
pub(super) const PARTITION: &str = "partition";
/// The label of a task, `<subtopology>_<partition>`.
pub(super) const TASK: &str = "task";
/// The label of a part of RocksDB.
pub(super) const PART: &str = "part";

pub(super) const CLICKS_ACCEPTED: Name = name("clickmill_clicks_accepted", "Clicks that the intake has made durable");
pub(super) const CLICKS_REJECTED: Name = name("clickmill_clicks_rejected", "Clicks that the intake has rejected, by reason");
pub(super) const CLICKS_CONSUMED: Name = name("clickmill_clicks_consumed", "Records read from the clicks topic and committed");
pub(super) const CLICKS_COUNTED: Name = name("clickmill_clicks_counted", "Clicks counted and committed");
pub(super) const CLICKS_LATE: Name = name("clickmill_clicks_late", "Clicks sent to the late topic, their window being closed");
pub(super) const CLICKS_DEAD_LETTERED: Name =
    name("clickmill_clicks_dead_lettered", "Records sent to the dead-letter topic, by reason");
pub(super) const COMMIT_DURATION: Name = name("clickmill_commit_duration_seconds", "Time that a commit of the engine took");
pub(super) const PARTITION_LAG: Name =
    name("clickmill_partition_lag_records", "Records of a partition that are not yet processed");
pub(super) const STREAM_TIME: Name =
    name("clickmill_stream_time_seconds", "Largest event time seen in a partition, in seconds since the epoch");
pub(super) const TASK_QUARANTINED: Name =
    name("clickmill_task_quarantined", "1 for each task that reads nothing more until an operator lets it try again");
pub(super) const RESTORE_REMAINING: Name =
    name("clickmill_restore_remaining_records", "Changelog offsets that a restoring task has still to read");
pub(super) const RESTORED: Name = name("clickmill_restore_restored_records", "Changelog offsets that a restoring task has read");
pub(super) const REPLAYED: Name =
    name("clickmill_restore_replayed_records", "Changelog records that restores have replayed since the process started");
pub(super) const ROCKSDB_SIZE: Name =
    name("clickmill_rocksdb_size_bytes", "Bytes that RocksDB holds on disk and in memory, by part");
pub(super) const ROCKSDB_CACHE_HITS: Name = name("clickmill_rocksdb_block_cache_hits", "Blocks that RocksDB found in its cache");
pub(super) const ROCKSDB_CACHE_MISSES: Name =
    name("clickmill_rocksdb_block_cache_misses", "Blocks that RocksDB did not find in its cache");
pub(super) const HTTP_DURATION: Name =
    name("clickmill_http_request_duration_seconds", "Time that HTTP requests took, by route, method and status");
pub(super) const HTTP_IN_FLIGHT: Name = name("clickmill_http_requests_in_flight", "HTTP requests being worked on");
