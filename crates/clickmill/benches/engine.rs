//! Clicks on one core, from JSON bytes in the clicks topic to committed counts: `cargo bench --workspace --bench engine`.
//!
//! Each run counts [`CLICKS`] clicks that lie ready in 8 partitions, on one engine thread with the service's own commit policy, until
//! every count is committed and every final window sent on. As a run is a million clicks, its milliseconds are nanoseconds a click.

mod rig;

use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

use clickmill::click::{ClickDecoder, ClickFields, TimestampSource};
use clickmill::config::{Config, Sources};
use clickmill::generate::{ClickGenerator, EventTimes, Traffic};
use clickmill::serve::{STORE, ad_clicks};
use divan::Bencher;
use divan::counter::ItemsCount;
use millstream::broker::local::{LogStorage, MemoryLog, Unit};
use millstream::partitioner::partition_for_key;
use millstream::query::{CountQueries, Period, ReadOptions};
use millstream::record::{Partition, Record, Timestamp, TopicPartition};
use millstream_rocksdb::broker::RocksLog;
use rig::{Rig, START, SkippingClock};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const CLICKS: usize = 1_000_000;
const PARTITIONS: u32 = 8;
/// The clicks of a run span 20 minutes: four windows of five minutes, and a bit of a fifth.
const STEP_MS: f64 = 1.2;
const CLICKS_PER_UNIT: usize = 5_000;

fn main() {
    divan::main();
}

/// How clicks fall on ads.
#[derive(Clone, Copy)]
enum Ads {
    ThousandByZipf,
    MillionByZipf,
    MillionAlike,
}

const ADS: [Ads; 3] = [Ads::ThousandByZipf, Ads::MillionByZipf, Ads::MillionAlike];

impl fmt::Display for Ads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ads::ThousandByZipf => "1,000 ads, Zipf 1.0",
            Ads::MillionByZipf => "1,000,000 ads, Zipf 1.0",
            Ads::MillionAlike => "1,000,000 ads, uniform",
        })
    }
}

/// A generated click with what a producer would know of it.
struct Click {
    line: Vec<u8>,
    ad: Vec<u8>,
    event_time: Timestamp,
}

impl Ads {
    fn clicks(self) -> &'static [Click] {
        static CLICKS: [LazyLock<Vec<Click>>; 3] = [
            LazyLock::new(|| generate(1_000, 1.0)),
            LazyLock::new(|| generate(1_000_000, 1.0)),
            LazyLock::new(|| generate(1_000_000, 0.0)),
        ];
        &CLICKS[self as usize]
    }
}

fn generate(ads: u64, zipf: f64) -> Vec<Click> {
    let none = Duration::ZERO;
    let traffic = Traffic { seed: 7, ads, zipf, disorder: Duration::from_secs(5), late: 0.0, late_by: none, bad: 0.0 };
    let mut generator = ClickGenerator::new(&traffic).expect("the traffic is in range");
    let times = EventTimes::Spaced { start_ms: START.0, step_ms: STEP_MS };
    let decoder = ClickDecoder::new(ClickFields::default(), TimestampSource::Field, none);
    let click = |number| {
        let mut line = Vec::new();
        generator.write_click(times.at(number, 0), &mut line);
        line.pop();
        let decoded = decoder.decode(&line, Timestamp(i64::MAX)).expect("no bad clicks were asked for");
        let (ad, event_time) = (decoded.ad_id.as_bytes().to_vec(), decoded.timestamp);
        Click { line, ad, event_time }
    };
    (0..CLICKS as u64).map(click).collect()
}

fn config(keyed_by_ad: bool) -> Config {
    let mut config = Config::load(&Sources::default()).expect("the defaults are valid");
    config.clicks.partitions = PARTITIONS;
    config.clicks.keyed_by_ad = keyed_by_ad;
    config
}

/// Puts the clicks into the topic: as they come, or by ad where it is keyed so.
fn preload<S: LogStorage>(rig: &Rig<S>, config: &Config, clicks: &[Click]) {
    for (unit_number, chunk) in clicks.chunks(CLICKS_PER_UNIT).enumerate() {
        let mut unit = Unit::new();
        for (i, click) in chunk.iter().enumerate() {
            let in_turn = Partition(((unit_number + i) % PARTITIONS as usize) as u32);
            let partition = if config.clicks.keyed_by_ad { partition_for_key(&click.ad, PARTITIONS) } else { in_turn };
            let to = TopicPartition::new(config.clicks.topic.as_str(), partition);
            unit.add(&to, &Record::new(Some(&click.ad), Some(&click.line), click.event_time));
        }
        rig.append(unit);
    }
}

fn bench<S: LogStorage>(bencher: Bencher<'_, '_>, ads: Ads, keyed_by_ad: bool, rig: impl Fn(&Config) -> Rig<S>) {
    let (config, clicks) = (config(keyed_by_ad), ads.clicks());
    let loaded = || {
        let rig = rig(&config);
        preload(&rig, &config, clicks);
        rig
    };
    bencher.counter(ItemsCount::new(CLICKS)).with_inputs(loaded).bench_local_refs(|rig| {
        rig.run();
        let ever = Period { from: Timestamp(0), to: Timestamp(i64::MAX) };
        let windows = rig.counts.totals(ever, ReadOptions::default()).expect("every partition answers").value;
        assert_eq!(windows.iter().map(|window| window.count).sum::<i64>(), CLICKS as i64);
    });
}

fn in_memory(config: &Config) -> Rig<MemoryLog> {
    let clock = SkippingClock::new();
    let topology = ad_clicks(config).expect("the topology can be built");
    Rig::new(config, topology, STORE, rig::memory_broker(&clock), rig::memory_stores(), clock, None)
}

fn on_rocksdb_stores(config: &Config) -> Rig<MemoryLog> {
    let (clock, dir) = (SkippingClock::new(), tempfile::tempdir().expect("there is room for a directory"));
    let topology = ad_clicks(config).expect("the topology can be built");
    let stores = rig::rocks_stores(dir.path(), config, rig::budget(config));
    Rig::new(config, topology, STORE, rig::memory_broker(&clock), stores, clock, Some(dir))
}

fn on_disk(config: &Config) -> Rig<RocksLog> {
    let (clock, dir) = (SkippingClock::new(), tempfile::tempdir().expect("there is room for a directory"));
    let topology = ad_clicks(config).expect("the topology can be built");
    let budget = rig::budget(config);
    let broker = rig::embedded_broker(dir.path(), &clock, &budget);
    let stores = rig::rocks_stores(dir.path(), config, budget);
    Rig::new(config, topology, STORE, broker, stores, clock, Some(dir))
}

/// Through the repartition topic, as clicks come from anywhere.
#[divan::bench_group(sample_count = 5, sample_size = 1)]
mod shuffled {
    use super::*;

    #[divan::bench(args = ADS)]
    fn in_memory(bencher: Bencher<'_, '_>, ads: Ads) {
        bench(bencher, ads, false, super::in_memory);
    }

    #[divan::bench(args = ADS)]
    fn memory_broker_rocksdb_stores(bencher: Bencher<'_, '_>, ads: Ads) {
        bench(bencher, ads, false, on_rocksdb_stores);
    }

    #[divan::bench(args = ADS)]
    fn embedded_broker_rocksdb_stores(bencher: Bencher<'_, '_>, ads: Ads) {
        bench(bencher, ads, false, on_disk);
    }
}

/// Without a shuffle: the clicks topic is keyed by ad.
#[divan::bench_group(sample_count = 5, sample_size = 1)]
mod keyed_by_ad {
    use super::*;

    #[divan::bench(args = ADS)]
    fn in_memory(bencher: Bencher<'_, '_>, ads: Ads) {
        bench(bencher, ads, true, super::in_memory);
    }

    #[divan::bench(args = ADS)]
    fn memory_broker_rocksdb_stores(bencher: Bencher<'_, '_>, ads: Ads) {
        bench(bencher, ads, true, on_rocksdb_stores);
    }

    #[divan::bench(args = ADS)]
    fn embedded_broker_rocksdb_stores(bencher: Bencher<'_, '_>, ads: Ads) {
        bench(bencher, ads, true, on_disk);
    }
}
