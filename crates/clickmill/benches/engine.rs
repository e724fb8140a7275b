//! Clicks on one core, from JSON bytes in the clicks topic to committed counts: `cargo bench --workspace --bench engine [-- PART-OF-NAME]`.
//!
//! Each run counts [`CLICKS`] clicks that lie ready in 8 partitions, on one engine thread with the service's own commit policy, until
//! every count is committed and every final window sent on. All cases run once before any runs again, so that what disturbs the
//! machine falls on all of them; medians are printed. Beside the time that passes stands the processor time of the engine thread, and
//! that of all threads (RocksDB's flushes and compactions run on threads of their own), which others on the machine do not lengthen.

mod processor_time;
mod rig;

use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

use clickmill::click::{ClickDecoder, ClickFields, TimestampSource};
use clickmill::config::{Config, Sources};
use clickmill::generate::{ClickGenerator, EventTimes, Traffic};
use clickmill::serve::{STORE, ad_clicks};
use millstream::broker::local::{LogStorage, MemoryLog, Unit};
use millstream::partitioner::partition_for_key;
use millstream::query::{CountQueries, Period, ReadOptions};
use millstream::record::{Partition, Record, Timestamp, TopicPartition};
use millstream_rocksdb::broker::RocksLog;
use processor_time::Measured;
use rig::{Rig, START, SkippingClock};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const CLICKS: usize = 1_000_000;
const RUNS: usize = 5;
const PARTITIONS: u32 = 8;
/// The clicks of a run span 20 minutes: four windows of five minutes, and a bit of a fifth.
const STEP_MS: f64 = 1.2;
const CLICKS_PER_UNIT: usize = 5_000;

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

/// Loads a rig, runs it to the end, and checks what it counted.
fn measure<S: LogStorage>(ads: Ads, keyed_by_ad: bool, rig: impl Fn(&Config) -> Rig<S>) -> Measured {
    let config = config(keyed_by_ad);
    let mut rig = rig(&config);
    preload(&rig, &config, ads.clicks());
    let measured = Measured::during(|| rig.run());
    let ever = Period { from: Timestamp(0), to: Timestamp(i64::MAX) };
    let windows = rig.counts.totals(ever, ReadOptions::default()).expect("every partition answers").value;
    assert_eq!(windows.iter().map(|window| window.count).sum::<i64>(), CLICKS as i64);
    measured
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

/// A case by name, and what it cost in each run.
struct Case {
    name: String,
    run: Box<dyn Fn() -> Measured>,
    runs: Vec<Measured>,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for keyed_by_ad in [false, true] {
        let way = if keyed_by_ad { "keyed by ad" } else { "shuffled" };
        for ads in ADS {
            let mut add = |on: &str, run: Box<dyn Fn() -> Measured>| {
                cases.push(Case { name: format!("{way}, {on}, {ads}"), run, runs: Vec::new() });
            };
            add("in memory", Box::new(move || measure(ads, keyed_by_ad, in_memory)));
            add("broker in memory, stores on RocksDB", Box::new(move || measure(ads, keyed_by_ad, on_rocksdb_stores)));
            add("embedded broker, stores on RocksDB", Box::new(move || measure(ads, keyed_by_ad, on_disk)));
        }
    }
    cases
}

fn main() {
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with("--")).unwrap_or_default();
    let mut cases = cases();
    cases.retain(|case| case.name.contains(&filter));
    for _ in 0..RUNS {
        for case in &mut cases {
            case.runs.push((case.run)());
        }
    }
    println!("| case | clicks/s | ns a click | engine thread, ns a click | all threads, ns a click |");
    println!("|---|---:|---:|---:|---:|");
    for case in &cases {
        let [passed, thread, all] = Measured::medians(&case.runs).map(|median| median.as_secs_f64() / CLICKS as f64);
        let ns = 1e9;
        println!("| {} | {:.0} | {:.0} | {:.0} | {:.0} |", case.name, 1.0 / passed, passed * ns, thread * ns, all * ns);
    }
}
