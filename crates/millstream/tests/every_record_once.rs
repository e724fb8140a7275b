//! Each record of a source topic is counted, late, dead-lettered or filtered: one of the four, whatever operators make of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use millstream::query::{CountQueries, Period, ReadOptions};
use millstream::record::Timestamp;
use millstream::serdes::Utf8;
use millstream::testing::TopologyTestDriver;
use millstream::time::TimeWindows;
use millstream::topology::{Materialized, StreamsBuilder};

const MINUTE: i64 = 60_000;

/// Each word of a value is one output, keyed by the word; "-" has no key.
fn words(value: &str) -> Vec<(Option<String>, ())> {
    value.split_whitespace().map(|word| ((word != "-").then(|| word.to_owned()), ())).collect()
}

fn by_word() -> TopologyTestDriver {
    let builder = StreamsBuilder::with_serdes(Utf8, Utf8);
    builder
        .stream("lines")
        .flat_map(|_, line| words(line))
        .group_by_key()
        .windowed_by(TimeWindows::of_size_and_grace(Duration::from_secs(60), Duration::ZERO))
        .count(Materialized::as_("counts").with_retention(Duration::from_secs(3_600)));
    TopologyTestDriver::new(builder.build().unwrap(), Timestamp(0)).unwrap()
}

fn pipe(driver: &mut TopologyTestDriver, line: &str, timestamp: i64) {
    driver.pipe_input("lines", Some(b"k"), Some(line.as_bytes()), Timestamp(timestamp)).unwrap();
}

fn count_of(driver: &TopologyTestDriver, word: &str) -> i64 {
    let period = Period { from: Timestamp(0), to: Timestamp(60 * MINUTE) };
    let windows = driver.counts("counts").unwrap().fetch(word.as_bytes(), period, ReadOptions::default()).unwrap().value;
    windows.iter().map(|window| window.count).sum()
}

/// What stands on a side topic, by its value.
fn aside(driver: &mut TopologyTestDriver, topic: &str) -> Vec<String> {
    let records = driver.read_output(topic).unwrap();
    records.into_iter().map(|record| String::from_utf8(record.value.unwrap()).unwrap()).collect()
}

#[test]
fn a_late_record_is_late_once_however_many_come_out_of_it() {
    let mut driver = by_word();
    pipe(&mut driver, "a", 5 * MINUTE);
    pipe(&mut driver, "a b c", MINUTE);
    pipe(&mut driver, "a -", MINUTE);
    assert_eq!(aside(&mut driver, "test-late"), ["a b c", "a -"]);
    assert_eq!(aside(&mut driver, "test-dead-letter"), [""; 0]);
    assert_eq!((driver.records().late, driver.records().counted), (2, 1));
    assert_eq!((count_of(&driver, "a"), count_of(&driver, "b")), (1, 0));
}

#[test]
fn a_record_is_dead_lettered_once_and_not_counted_where_one_that_came_out_has_no_key() {
    let mut driver = by_word();
    for line in ["a b", "a - b", "- - a", "- -", "-"] {
        pipe(&mut driver, line, MINUTE);
    }
    assert_eq!(aside(&mut driver, "test-dead-letter"), ["a - b", "- - a", "- -", "-"]);
    assert_eq!((count_of(&driver, "a"), count_of(&driver, "b")), (1, 1));
    let records = driver.records();
    assert_eq!((records.counted, records.dead_lettered.get("key is null")), (1, Some(&4)));
}

#[test]
fn the_counters_add_up_for_records_of_which_much_and_nothing_comes_out() {
    let mut driver = by_word();
    for (line, minute) in [("a a b", 1), ("", 1), ("a", 9), ("b c", 2), ("", 2), ("- a", 9), ("d", 9)] {
        pipe(&mut driver, line, minute * MINUTE);
    }
    driver.pipe_input("lines", None, Some(b"no key"), Timestamp(9 * MINUTE)).unwrap();
    let records = driver.records();
    assert_eq!((records.read, records.settled()), (8, 8));
    assert_eq!((records.counted, records.late, records.filtered, records.dead_lettered.values().sum::<u64>()), (3, 1, 2, 2));
    assert_eq!(count_of(&driver, "a"), 3);
}

#[test]
fn the_counters_add_up_where_nothing_is_aggregated() {
    let builder = StreamsBuilder::with_serdes(Utf8, Utf8);
    let stream = builder.stream("lines").filter(|_, line| !line.starts_with('#'));
    stream
        .flat_map(|key, line| words(line).into_iter().map(|_| (key.to_owned(), line.len().to_string())).collect::<Vec<_>>())
        .to("out", Utf8, Utf8);
    let mut driver = TopologyTestDriver::new(builder.build().unwrap(), Timestamp(0)).unwrap();
    for line in ["a b", "# a", "", "c"] {
        pipe(&mut driver, line, MINUTE);
    }
    driver.pipe_input("lines", Some(b"k"), Some(b"\xff"), Timestamp(MINUTE)).unwrap();
    let records = driver.records();
    assert_eq!(driver.read_output("out").unwrap().len(), 3);
    assert_eq!((records.read, records.settled()), (5, 5));
    assert_eq!((records.counted, records.filtered, records.dead_lettered.values().sum::<u64>()), (2, 2, 1));
}
