//! The engine's own totals, read when somebody asks.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelValue, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::names::{self, Name};

/// Where the metrics take the engine's totals from.
pub trait EngineStats: Send + Sync + 'static {
    /// The totals as of now. Called once for every scrape.
    fn totals(&self) -> EngineTotals;
}

/// What the engine has done since the process started, and how it stands.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EngineTotals {
    /// Records of the clicks topic that are committed.
    pub consumed: u64,
    /// Clicks counted.
    pub counted: u64,
    /// Clicks that were late.
    pub late: u64,
    /// Records dead-lettered, by the reason's label.
    pub dead_lettered: Vec<(Cow<'static, str>, u64)>,
    /// The partitions that are read.
    pub partitions: Vec<PartitionTotals>,
    /// The tasks that are quarantined.
    pub quarantined: Vec<String>,
    /// The tasks that are restoring.
    pub restores: Vec<RestoreTotals>,
    /// Changelog records that restores have replayed.
    pub replayed: u64,
    /// What RocksDB holds, by part, such as `sst` or `memtables`, in bytes.
    pub rocksdb_sizes: Vec<(Cow<'static, str>, u64)>,
    /// Blocks found in RocksDB's cache.
    pub rocksdb_cache_hits: u64,
    /// Blocks not found there.
    pub rocksdb_cache_misses: u64,
}

/// How a partition stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionTotals {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// Records not yet processed; none while that is not known.
    pub lag: Option<u64>,
    /// The largest event time seen there, in epoch milliseconds; none before the first record.
    pub stream_time_ms: Option<i64>,
}

/// How far a restore has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreTotals {
    /// The task, `<subtopology>_<partition>`.
    pub task: String,
    /// Changelog offsets read.
    pub restored: u64,
    /// Changelog offsets still to read.
    pub remaining: u64,
}

/// Writes the totals of an engine.
pub(super) struct EngineCollector(pub(super) Arc<dyn EngineStats>);

impl fmt::Debug for EngineCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EngineCollector")
    }
}

impl Collector for EngineCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let totals = self.0.totals();
        counter(&mut encoder, names::CLICKS_CONSUMED, totals.consumed)?;
        counter(&mut encoder, names::CLICKS_COUNTED, totals.counted)?;
        counter(&mut encoder, names::CLICKS_LATE, totals.late)?;
        let reasons = totals.dead_lettered.iter().map(|(reason, count)| ([(names::REASON, reason.as_ref())], *count));
        counters(&mut encoder, names::CLICKS_DEAD_LETTERED, reasons)?;
        encode_partitions(&mut encoder, &totals.partitions)?;
        let quarantined = totals.quarantined.iter().map(|task| ([(names::TASK, task.as_str())], 1.0));
        gauges(&mut encoder, names::TASK_QUARANTINED, quarantined)?;
        let remaining = totals.restores.iter().map(|r| ([(names::TASK, r.task.as_str())], r.remaining as f64));
        gauges(&mut encoder, names::RESTORE_REMAINING, remaining)?;
        let restored = totals.restores.iter().map(|r| ([(names::TASK, r.task.as_str())], r.restored as f64));
        gauges(&mut encoder, names::RESTORED, restored)?;
        counter(&mut encoder, names::REPLAYED, totals.replayed)?;
        let sizes = totals.rocksdb_sizes.iter().map(|(part, bytes)| ([(names::PART, part.as_ref())], *bytes as f64));
        gauges(&mut encoder, names::ROCKSDB_SIZE, sizes)?;
        counter(&mut encoder, names::ROCKSDB_CACHE_HITS, totals.rocksdb_cache_hits)?;
        counter(&mut encoder, names::ROCKSDB_CACHE_MISSES, totals.rocksdb_cache_misses)
    }
}

fn encode_partitions(encoder: &mut DescriptorEncoder<'_>, partitions: &[PartitionTotals]) -> fmt::Result {
    let labels = |p: &PartitionTotals| [(names::TOPIC, p.topic.clone()), (names::PARTITION, p.partition.to_string())];
    let lags = partitions.iter().filter_map(|p| Some((labels(p), p.lag? as f64)));
    gauges(encoder, names::PARTITION_LAG, lags)?;
    let stream_times = partitions.iter().filter_map(|p| Some((labels(p), p.stream_time_ms? as f64 / 1_000.0)));
    gauges(encoder, names::STREAM_TIME, stream_times)
}

fn counter(encoder: &mut DescriptorEncoder<'_>, metric: Name, total: u64) -> fmt::Result {
    let mut encoder = encoder.encode_descriptor(metric.name, metric.help, None, MetricType::Counter)?;
    encoder.encode_counter::<NoLabelSet, _, u64>(&total, None)
}

fn counters<const N: usize, V: EncodeLabelValue>(
    encoder: &mut DescriptorEncoder<'_>,
    metric: Name,
    totals: impl Iterator<Item = ([(&'static str, V); N], u64)>,
) -> fmt::Result {
    let mut encoder = encoder.encode_descriptor(metric.name, metric.help, None, MetricType::Counter)?;
    for (labels, total) in totals {
        encoder.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&total, None)?;
    }
    Ok(())
}

fn gauges<const N: usize, V: EncodeLabelValue>(
    encoder: &mut DescriptorEncoder<'_>,
    metric: Name,
    values: impl Iterator<Item = ([(&'static str, V); N], f64)>,
) -> fmt::Result {
    let mut encoder = encoder.encode_descriptor(metric.name, metric.help, None, MetricType::Gauge)?;
    for (labels, value) in values {
        encoder.encode_family(&labels)?.encode_gauge(&value)?;
    }
    Ok(())
}
