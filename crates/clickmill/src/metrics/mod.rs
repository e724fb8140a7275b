//! Metrics in Prometheus' text format.

mod engine;
mod names;
mod text;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry};

pub use engine::{EngineStats, EngineTotals, PartitionTotals, RestoreTotals};
pub use text::TextFormat;

use crate::click::Refusal;
use engine::EngineCollector;
use names::Name;

/// All metrics of a process. What the service observes is recorded by the methods here; the engine's totals are read when
/// [`Metrics::render`] is called.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    clicks_accepted: Counter,
    clicks_rejected: Family<Labels<1>, Counter>,
    commit_duration: Histogram,
    http_duration: Family<Labels<3>, Histogram>,
    http_in_flight: Gauge,
}

/// Labels by name, all of one metric in the same order.
type Labels<const N: usize> = [(&'static str, Cow<'static, str>); N];

impl Metrics {
    /// Metrics of a process whose engine has these totals.
    pub fn new(engine: Arc<dyn EngineStats>) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(EngineCollector(engine)));
        Self {
            clicks_accepted: register(&mut registry, names::CLICKS_ACCEPTED, Counter::default()),
            clicks_rejected: register(&mut registry, names::CLICKS_REJECTED, Family::default()),
            commit_duration: register(&mut registry, names::COMMIT_DURATION, durations()),
            http_duration: register(&mut registry, names::HTTP_DURATION, Family::new_with_constructor(durations as fn() -> _)),
            http_in_flight: register(&mut registry, names::HTTP_IN_FLIGHT, Gauge::default()),
            registry,
        }
    }

    /// The intake has made that many clicks durable.
    pub fn clicks_accepted(&self, clicks: usize) {
        self.clicks_accepted.inc_by(clicks as u64);
    }

    /// The intake has rejected a click.
    pub fn click_rejected(&self, refusal: Refusal) {
        self.clicks_rejected.get_or_create(&[(names::REASON, refusal.label().into())]).inc();
    }

    /// A commit of the engine took that long.
    pub fn commit_took(&self, duration: Duration) {
        self.commit_duration.observe(duration.as_secs_f64());
    }

    /// A request has come in.
    pub fn request_started(&self) {
        self.http_in_flight.inc();
    }

    /// A request is over, answered or given up by the client.
    pub fn request_ended(&self) {
        self.http_in_flight.dec();
    }

    /// A request was answered. `route` is the pattern of the path, never the path itself.
    pub fn request_took(&self, route: Cow<'static, str>, method: &'static str, status: u16, duration: Duration) {
        let labels = [(names::ROUTE, route), (names::METHOD, method.into()), (names::STATUS, status.to_string().into())];
        self.http_duration.get_or_create(&labels).observe(duration.as_secs_f64());
    }

    /// All metrics as text.
    pub fn render(&self, format: TextFormat) -> String {
        let mut open_metrics = String::new();
        encode(&mut open_metrics, &self.registry).expect("writing to a string does not fail");
        match format {
            TextFormat::Prometheus => text::to_prometheus(&open_metrics),
            TextFormat::OpenMetrics => open_metrics,
        }
    }
}

/// Registers a metric and keeps a handle to it.
fn register<M: Metric + Clone>(registry: &mut Registry, name: Name, metric: M) -> M {
    registry.register(name.name, name.help, metric.clone());
    metric
}

/// From 0.1 ms to 26 s.
fn durations() -> Histogram {
    Histogram::new(exponential_buckets(0.000_1, 2.0, 19))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl EngineStats for Fixed {
        fn totals(&self) -> EngineTotals {
            EngineTotals {
                consumed: 12,
                counted: 9,
                late: 2,
                dead_lettered: vec![("ad_id_missing".into(), 1)],
                partitions: vec![
                    PartitionTotals { topic: "clicks".into(), partition: 3, lag: Some(7), stream_time_ms: Some(1_500) },
                    PartitionTotals { topic: "clicks".into(), partition: 4, lag: None, stream_time_ms: None },
                ],
                replayed: 25,
                quarantined: vec!["1_2".to_owned()],
                restores: vec![RestoreTotals { task: "1_3".into(), restored: 40, remaining: 60 }],
                rocksdb_sizes: vec![("sst".into(), 4_096)],
                rocksdb_cache_hits: 5,
                rocksdb_cache_misses: 1,
            }
        }
    }

    fn observed() -> Metrics {
        let metrics = Metrics::new(Arc::new(Fixed));
        metrics.clicks_accepted(3);
        metrics.click_rejected(Refusal::AdIdEmpty);
        metrics.commit_took(Duration::from_millis(3));
        metrics.request_started();
        metrics.request_took("/v1/clicks".into(), "GET", 200, Duration::from_millis(1));
        metrics
    }

    #[test]
    fn everything_is_written_under_its_name() {
        let text = observed().render(TextFormat::OpenMetrics);
        for line in [
            "clickmill_clicks_accepted_total 3",
            "clickmill_clicks_rejected_total{reason=\"ad_id_empty\"} 1",
            "clickmill_clicks_consumed_total 12",
            "clickmill_clicks_counted_total 9",
            "clickmill_clicks_late_total 2",
            "clickmill_clicks_dead_lettered_total{reason=\"ad_id_missing\"} 1",
            "clickmill_commit_duration_seconds_count 1",
            "clickmill_partition_lag_records{topic=\"clicks\",partition=\"3\"} 7.0",
            "clickmill_stream_time_seconds{topic=\"clicks\",partition=\"3\"} 1.5",
            "clickmill_task_quarantined{task=\"1_2\"} 1.0",
            "clickmill_restore_remaining_records{task=\"1_3\"} 60.0",
            "clickmill_restore_restored_records{task=\"1_3\"} 40.0",
            "clickmill_restore_replayed_records_total 25",
            "clickmill_rocksdb_size_bytes{part=\"sst\"} 4096.0",
            "clickmill_rocksdb_block_cache_hits_total 5",
            "clickmill_rocksdb_block_cache_misses_total 1",
            "clickmill_http_request_duration_seconds_count{route=\"/v1/clicks\",method=\"GET\",status=\"200\"} 1",
            "clickmill_http_requests_in_flight 1",
            "# EOF",
        ] {
            assert!(text.lines().any(|written| written == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("partition=\"4\""), "what is not known is absent, not zero:\n{text}");
    }

    /// What version 0.0.4 asks for: each metric has one HELP and one TYPE, before its samples, which lie together; a sample's name
    /// is the metric's, but for the three that a histogram has; the value is a number.
    #[test]
    fn prometheus_text_keeps_to_its_format() {
        let text = observed().render(TextFormat::Prometheus);
        let mut described: Vec<(&str, &str)> = Vec::new();
        let mut help = "";
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                help = rest.split_once(' ').expect("a name and a text").0;
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a name and a type");
                assert_eq!(name, help);
                assert!(described.iter().all(|(before, _)| *before != name), "{name} twice");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                described.push((name, kind));
            } else {
                let (series, value) = line.rsplit_once(' ').expect("a series and a value");
                value.parse::<f64>().unwrap_or_else(|_| panic!("{line}"));
                let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
                assert!(labels.ends_with('}') && !labels.contains('{'), "{line}");
                let &(metric, kind) = described.last().expect("a description first");
                let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
                assert!(name.strip_prefix(metric).is_some_and(|suffix| suffixes.contains(&suffix)), "{line} under {metric}");
            }
        }
        assert_eq!(described.len(), 18, "{text}");
        assert!(text.ends_with('\n') && text.contains("clickmill_clicks_accepted_total 3\n"));
    }
}
