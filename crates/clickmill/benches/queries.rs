//! How long queries take on a day of five-minute windows: `cargo bench --workspace --bench queries [-- ADS]`.
//!
//! The engine itself fills the stores: 288 windows of 300,000 clicks each, whose ads follow Zipf's law with exponent 1.0, in 8
//! partitions on RocksDB. Every answer is checked against what was put in. Printed are the median
//! of the time that passes, and the mean of the processor time of all threads.

mod processor_time;
mod rig;

use std::hint::black_box;
use std::time::{Duration, Instant};

use clickmill::config::{Config, Sources};
use millstream::broker::Broker;
use millstream::broker::local::{MemoryLog, Unit};
use millstream::partitioner::partition_for_key;
use millstream::query::{Cancellation, CountQueries, Period, ReadOptions};
use millstream::record::{Offset, Partition, Record, Timestamp, TopicPartition};
use millstream::serdes::{Bytes, Long};
use millstream::time::TimeWindows;
use millstream::topology::{Materialized, StreamsBuilder, Topology};
use processor_time::Measured;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Zipf};
use rig::{Rig, START, SkippingClock};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const STORE: &str = "counts";
const PARTITIONS: u32 = 8;
const WINDOW_MS: i64 = 300_000;
const WINDOWS: i64 = 288;
const CLICKS_PER_WINDOW: usize = 300_000;
const LEAST_RUNS: usize = 5;
const MOST_RUNS: usize = 1_000;
const LONG_ENOUGH: Duration = Duration::from_secs(2);
const HOUR_MS: i64 = 3_600_000;

/// Each record stands for as many clicks on its ad as its value says.
fn topology(config: &Config) -> Topology {
    let windows = TimeWindows::of_size_and_grace(Duration::from_millis(WINDOW_MS as u64), Duration::ZERO);
    let builder = StreamsBuilder::with_serdes(Bytes, Long);
    let records = builder.stream(config.clicks.topic.as_str());
    let clicks = records.flat_map(|ad, clicks| std::iter::repeat_n((ad.map(<[u8]>::to_vec), ()), clicks as usize));
    let by_ad = clicks.group_by_key().already_partitioned().windowed_by(windows);
    by_ad.count(Materialized::as_(STORE).with_retention(Duration::from_secs(7 * 86_400)));
    builder.build().expect("the topology can be built")
}

/// A day of counts, and what they add up to.
struct Day {
    rig: Rig<MemoryLog>,
    rows: u64,
    /// By ad, from rank 1 on: all of the day, and its last hour.
    sums: [Vec<i64>; 2],
}

fn fill(ads: usize) -> Day {
    let mut config = Config::load(&Sources::default()).expect("the defaults are valid");
    config.clicks.partitions = PARTITIONS;
    let (clock, dir) = (SkippingClock::new(), tempfile::tempdir().expect("there is room for a directory"));
    let stores = rig::rocks_stores(dir.path(), &config, rig::budget(&config));
    let rig = Rig::new(&config, topology(&config), STORE, rig::memory_broker(&clock), stores, clock, Some(dir));
    let mut day = Day { rig, rows: 0, sums: [vec![0; ads], vec![0; ads]] };
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let ranks = Zipf::new(ads as f64, 1.0).expect("an exponent in range");
    for window in 0..WINDOWS {
        let mut counts = vec![0i64; ads];
        for _ in 0..CLICKS_PER_WINDOW {
            counts[ranks.sample(&mut rng) as usize - 1] += 1;
        }
        day.add_window(window, &counts, &config);
    }
    day
}

fn ad(rank: usize) -> String {
    format!("ad-{}", rank + 1)
}

impl Day {
    fn add_window(&mut self, window: i64, counts: &[i64], config: &Config) {
        let mut unit = Unit::new();
        for (rank, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            self.rows += 1;
            self.sums[0][rank] += count;
            if (window + 1) * WINDOW_MS > WINDOWS * WINDOW_MS - HOUR_MS {
                self.sums[1][rank] += count;
            }
            let (key, value) = (ad(rank), count.to_be_bytes());
            let to = TopicPartition::new(config.clicks.topic.as_str(), partition_for_key(key.as_bytes(), PARTITIONS));
            let time = Timestamp(START.0 + window * WINDOW_MS + rank as i64 % WINDOW_MS);
            unit.add(&to, &Record::new(Some(key.as_bytes()), Some(&value), time));
        }
        self.rig.append(unit);
        self.rig.run();
        // What is counted is of no more use here, and would lie in memory.
        for partition in (0..PARTITIONS).map(Partition) {
            for topic in [config.clicks.topic.clone(), format!("bench-{STORE}-changelog")] {
                let log = TopicPartition::new(topic, partition);
                let end = self.rig.broker.log_range(&log, millstream::broker::Isolation::ReadCommitted);
                let end = end.map_or(Offset::ZERO, |range| range.end);
                self.rig.broker.delete_records(&log, end).expect("the head of a log can go");
            }
        }
    }

    /// The best ads by what was put in.
    fn best(sums: &[i64], limit: usize) -> Vec<(String, i64)> {
        let mut best: Vec<_> = sums.iter().enumerate().map(|(rank, count)| (ad(rank), *count)).collect();
        best.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        best.truncate(limit);
        best
    }

    fn check_top(&self, period: Period, sums: &[i64]) {
        let top = self
            .rig
            .counts
            .top(period, 100, ReadOptions::default(), &Cancellation::default())
            .expect("every partition answers")
            .value;
        let top: Vec<_> = top.into_iter().map(|ad| (String::from_utf8_lossy(&ad.key).into_owned(), ad.count)).collect();
        assert_eq!(top, Self::best(sums, 100), "the best are those that were put in");
    }

    fn print(&self, ads: usize, name: &str, query: impl Fn(usize)) {
        let mut runs = Vec::new();
        // A run's processor time is known to a few milliseconds only: that of all runs is told, divided by their number.
        let together = Measured::during(|| {
            let began = Instant::now();
            while runs.len() < LEAST_RUNS || (runs.len() < MOST_RUNS && began.elapsed() < LONG_ENOUGH) {
                runs.push(Measured::during(|| query(runs.len())));
            }
        });
        let [passed, ..] = Measured::medians(&runs);
        let processor = together.all_threads / runs.len() as u32;
        println!("| {ads} | {} | {name} | {:.3} | {:.3} |", self.rows, milliseconds(passed), milliseconds(processor));
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn main() {
    let only: Option<usize> = std::env::args().find_map(|arg| arg.parse().ok());
    println!("| ads | rows | query | ms | processor ms |");
    println!("|---:|---:|---|---:|---:|");
    for ads in [1_000, 1_000_000].into_iter().filter(|ads| only.is_none_or(|only| only == *ads)) {
        let day = fill(ads);
        let to = Timestamp(START.0 + WINDOWS * WINDOW_MS);
        for (length, hours, sums) in [("24 h", 24, &day.sums[0]), ("1 h", 1, &day.sums[1])] {
            let period = Period { from: Timestamp(to.0 - hours * HOUR_MS), to };
            day.check_top(period, sums);
            let (counts, read) = (&day.rig.counts, ReadOptions::default());
            day.print(ads, &format!("one ad, {length}"), |run| {
                black_box(counts.fetch(ad(run * 61 % 1_000).as_bytes(), period, read).expect("its partition answers"));
            });
            day.print(ads, &format!("top 100, {length}"), |_| {
                black_box(counts.top(period, 100, read, &Cancellation::default()).expect("every partition answers"));
            });
            day.print(ads, &format!("top 1000, {length}"), |_| {
                black_box(counts.top(period, 1_000, read, &Cancellation::default()).expect("every partition answers"));
            });
            day.print(ads, &format!("totals, {length}"), |_| {
                black_box(counts.totals(period, read).expect("every partition answers"));
            });
        }
    }
}
