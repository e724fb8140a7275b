//! What Clickmill keeps and answers, read by this test's own decoders.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use millstream::broker::Broker;
use millstream::record::{Partition, Record};
use millstream::store::{Space, StoreProvider};
use millstream_rocksdb::broker::EmbeddedBroker;
use millstream_rocksdb::memory::MemoryBudget;
use millstream_rocksdb::state::{RocksDbOptions, RocksStores};
use serde_json::Value;

use super::expected::{CLICKS, Content, Expected, PARTITIONS, SIZE_MS, Source, content, open_log, read};
use super::service::Service;
use super::{AdWindow, Counts};

const STORE: &str = "ad-clicks-store";

/// The data directory of a service that does not run.
pub(crate) struct Kept {
    pub(crate) broker: EmbeddedBroker,
    state_dir: PathBuf,
}

impl Kept {
    pub(crate) fn open(data_dir: &Path) -> Self {
        Self { broker: open_log(data_dir), state_dir: data_dir.join("state").join("clickmill") }
    }

    /// The records on the late or the dead-letter topic, by where they came from.
    pub(crate) fn diverted(&self, topic: &str) -> BTreeMap<Source, Content> {
        let mut diverted = BTreeMap::new();
        for partition in 0..self.broker.describe_topic(topic).unwrap().unwrap().partitions {
            read(&self.broker, topic, partition, |record| {
                let header = |name| std::str::from_utf8(record.headers.get(name).unwrap()).unwrap();
                assert!(header("source.topic") == CLICKS && !header("reason").is_empty());
                let source = (header("source.partition").parse().unwrap(), header("source.offset").parse().unwrap());
                assert!(diverted.insert(source, content(record)).is_none(), "{source:?} is on {topic} twice");
            });
        }
        diverted
    }

    /// All rows of the stores: `i64 window start ‖ ad id` to `u8 1 ‖ varint event time ‖ zigzag count`.
    pub(crate) fn stores(&self) -> Counts {
        let stores = RocksStores::new(&self.state_dir, MemoryBudget::new(128 << 20), RocksDbOptions::default()).unwrap();
        let mut counts = Counts::new();
        for partition in (0..PARTITIONS).map(Partition) {
            let store = stores.open(STORE, partition).unwrap();
            let mut add = |key: &[u8], value: &[u8]| {
                let (start, ad) = key.split_first_chunk::<8>().unwrap();
                let (version, mut rest) = value.split_first().unwrap();
                let (_, count) = (varint(&mut rest), varint(&mut rest));
                assert!(*version == 1 && rest.is_empty());
                let count = (count >> 1) as i64 ^ -((count & 1) as i64);
                add_once(&mut counts, ad_window(ad, start), count);
                ControlFlow::Continue(())
            };
            store.snapshot().scan(Space::Rows, &[], &[u8::MAX; 9], &mut add).unwrap();
        }
        counts
    }

    /// The last value of each key: `ad id ‖ i64 window start ‖ i32 0` to `i64 count`.
    pub(crate) fn changelog(&self) -> Counts {
        let mut counts = Counts::new();
        for partition in 0..PARTITIONS {
            read(&self.broker, &format!("clickmill-{STORE}-changelog"), partition, |record| {
                let (rest, [0, 0, 0, 0]) = record.key.unwrap().split_last_chunk().unwrap() else { panic!("a sequence number") };
                let (ad, start) = rest.split_last_chunk().unwrap();
                counts.insert(ad_window(ad, start), count(record));
            });
        }
        counts
    }

    /// The rows of closed windows: `ad id ‖ i64 window start` to `i64 count`, each window's followed by its end record.
    pub(crate) fn closed(&self) -> Counts {
        let mut counts = Counts::new();
        for partition in 0..PARTITIONS {
            let mut open: BTreeMap<[u8; 8], (u64, i64)> = BTreeMap::new();
            let mut ended = Vec::new();
            read(&self.broker, &format!("clickmill-{STORE}-closed"), partition, |record| {
                let (ad, start) = record.key.unwrap().split_last_chunk::<8>().unwrap();
                assert!(!ended.contains(start), "a record behind the end of its window");
                if record.headers.get("mill").is_none() {
                    let sent = open.entry(*start).or_default();
                    *sent = (sent.0 + 1, sent.1 + count(record));
                    add_once(&mut counts, ad_window(ad, start), count(record));
                    return;
                }
                let mut rest = &record.value.unwrap()[1..];
                let said = (varint(&mut rest), (varint(&mut rest) >> 1) as i64);
                assert_eq!(open.remove(start).unwrap_or_default(), said, "rows and clicks in the end record");
                ended.push(*start);
            });
            assert!(open.is_empty(), "windows without an end record: {open:?}");
        }
        counts
    }
}

fn ad_window(ad: &[u8], start: &[u8; 8]) -> AdWindow {
    (std::str::from_utf8(ad).unwrap().into(), i64::from_be_bytes(*start))
}

fn count(record: &Record<'_>) -> i64 {
    i64::from_be_bytes(record.value.unwrap().try_into().unwrap())
}

fn add_once(counts: &mut Counts, row: AdWindow, count: i64) {
    if let Some(before) = counts.insert(row.clone(), count) {
        panic!("{row:?} twice: {before} and {count}");
    }
}

/// Unsigned LEB128.
fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let (byte, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}

/// Fails with some of the differences.
pub(crate) fn assert_same(what: &str, found: &Counts, expected: &Counts) {
    let wrong = expected.iter().filter(|(row, count)| found.get(*row) != Some(*count));
    let wrong: Vec<_> = wrong.take(10).map(|(row, count)| (row, found.get(row), count)).collect();
    let added: Vec<_> = found.iter().filter(|(row, _)| !expected.contains_key(*row)).take(10).collect();
    assert!(wrong.is_empty() && added.is_empty(), "{what}: found and expected: {wrong:?}; not expected: {added:?}");
}

/// Asks for totals, for the most clicked ads and for some ads, and compares every number.
pub(crate) fn check_http(service: &Service, expected: &Expected) {
    let starts = || expected.counts.keys().map(|(_, start)| *start);
    let (from, to) = (starts().min().unwrap(), starts().max().unwrap() + SIZE_MS);
    let period = format!("from={from}&to={to}");
    let mut by_window: BTreeMap<i64, i64> = BTreeMap::new();
    let mut by_ad: BTreeMap<&str, i64> = BTreeMap::new();
    for ((ad, start), count) in &expected.counts {
        *by_window.entry(*start).or_default() += count;
        *by_ad.entry(ad).or_default() += count;
    }

    let totals = service.query(&format!("/v1/clicks?{period}"));
    assert_eq!(totals["clicks"], by_window.values().sum::<i64>());
    assert_eq!(windows(&totals, expected), by_window);

    let mut ranking: Vec<_> = by_ad.iter().map(|(ad, count)| (*ad, *count)).collect();
    ranking.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let top = service.query(&format!("/v1/ads/top?{period}&limit=1000"));
    let ads = top["ads"].as_array().unwrap();
    let listed: Vec<_> = ads.iter().map(|ad| (ad["ad_id"].as_str().unwrap(), ad["clicks"].as_i64().unwrap())).collect();
    assert_eq!(listed, ranking[..ranking.len().min(1000)]);

    let sample = ranking.iter().take(50).chain(ranking.iter().step_by(ranking.len() / 50));
    for (ad, clicks) in sample {
        let answer = service.query(&format!("/v1/ads/{ad}/clicks?{period}"));
        assert_eq!(answer["clicks"], *clicks, "{ad}");
        let of_ad = expected.counts.iter().filter(|((id, _), _)| **id == **ad);
        assert_eq!(windows(&answer, expected), of_ad.map(|((_, start), count)| (*start, *count)).collect(), "{ad}");
    }
}

/// The windows of an answer, which must be complete and right about what is final.
fn windows(answer: &Value, expected: &Expected) -> BTreeMap<i64, i64> {
    assert!(answer["completeness"]["complete"] == true && answer["completeness"]["max_lag"] == 0, "{answer}");
    let window = |window: &Value| {
        let start = window["start"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_millisecond();
        assert_eq!(window["final"], expected.is_final(start), "{window}");
        (start, window["clicks"].as_i64().unwrap())
    };
    answer["windows"].as_array().unwrap().iter().map(window).collect()
}
