//! What each operator does, through the topology test driver.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use millstream::query::{CountQueries, Period, ReadOptions};
use millstream::record::{Offset, Partition, Record, Timestamp};
use millstream::serdes::{Bytes, Json, Long, Utf8, WindowedKey};
use millstream::task::WindowEnd;
use millstream::testing::{OutputRecord, TopologyTestDriver};
use millstream::time::TimeWindows;
use millstream::topology::{EmitStrategy, Materialized, StreamsBuilder, Topology};

const MINUTE: i64 = 60_000;

fn driver(topology: Topology) -> TopologyTestDriver {
    TopologyTestDriver::new(topology, Timestamp(0)).expect("the topology starts")
}

fn pipe(driver: &mut TopologyTestDriver, topic: &str, key: &str, value: &str, timestamp: i64) {
    driver.pipe_input(topic, Some(key.as_bytes()), Some(value.as_bytes()), Timestamp(timestamp)).expect("it is processed");
}

fn texts(records: &[OutputRecord]) -> Vec<(String, String, i64)> {
    let text = |bytes: &Option<Vec<u8>>| String::from_utf8(bytes.clone().expect("not null")).expect("UTF-8");
    records.iter().map(|record| (text(&record.key), text(&record.value), record.timestamp.0)).collect()
}

fn windows() -> TimeWindows {
    TimeWindows::of_size_and_grace(Duration::from_secs(60), Duration::from_secs(60))
}

#[test]
fn stateless_operators_reach_the_output_topic() {
    let builder = StreamsBuilder::with_serdes(Utf8, Utf8);
    let peeked = Arc::new(AtomicUsize::new(0));
    let seen = peeked.clone();
    builder
        .stream("words")
        .filter(|_, value| !value.is_empty())
        .peek(move |_, _| {
            seen.fetch_add(1, Ordering::Relaxed);
        })
        .flat_map(|key, value| value.split(' ').map(|word| (key.to_owned(), word.to_owned())).collect::<Vec<_>>())
        .map_values(|word| word.to_uppercase())
        .map(|key, word| (format!("{key}-{word}"), word))
        .to("out", Utf8, Utf8);
    let mut driver = driver(builder.build().expect("it can work"));
    pipe(&mut driver, "words", "k", "a b", 7);
    pipe(&mut driver, "words", "k", "", 8);
    let out = driver.read_output("out").expect("the topic exists");
    assert_eq!(texts(&out), [("k-A".into(), "A".into(), 7), ("k-B".into(), "B".into(), 7)]);
    assert_eq!(peeked.load(Ordering::Relaxed), 1);
}

#[test]
fn what_cannot_be_read_goes_to_the_dead_letter_topic() {
    let builder = StreamsBuilder::with_serdes(Bytes, Long);
    builder.stream("numbers").map(|_, number| (number, number)).to("out", Long, Long);
    let mut driver = driver(builder.build().expect("it can work"));
    driver.pipe_input("numbers", None, Some(&5i64.to_be_bytes()), Timestamp(1)).expect("it is processed");
    driver.pipe_input("numbers", None, Some(b"five"), Timestamp(2)).expect("it is set aside");
    assert_eq!(driver.read_output("out").expect("the topic exists").len(), 1);
    let dead = driver.read_output("test-dead-letter").expect("the topic exists");
    assert_eq!((dead.len(), dead[0].value.as_deref(), dead[0].timestamp), (1, Some(&b"five"[..]), Timestamp(2)));
}

#[test]
fn counts_are_sent_on_with_each_update() {
    let builder = StreamsBuilder::with_serdes(Utf8, Utf8);
    builder.stream("words").group_by(|_, word| *word).windowed_by(windows()).count(Materialized::as_("counts")).to("updates");
    let mut driver = driver(builder.build().expect("it can work"));
    for timestamp in [5, 3, MINUTE] {
        pipe(&mut driver, "words", "k", "w", timestamp);
    }
    let updates = driver.read_output("updates").expect("the topic exists");
    let read = |record: &OutputRecord| {
        let key = record.key.as_deref().and_then(WindowedKey::decode).expect("a windowed key");
        let count = i64::from_be_bytes(record.value.as_deref().expect("a count").try_into().expect("8 bytes"));
        (key.start.0, count, record.timestamp.0)
    };
    assert_eq!(updates.iter().map(read).collect::<Vec<_>>(), [(0, 1, 5), (0, 2, 5), (MINUTE, 1, MINUTE)]);
}

#[test]
fn final_windows_are_sent_once_with_their_end() {
    let builder = StreamsBuilder::with_serdes(Utf8, Utf8);
    builder
        .stream("words")
        .group_by(|_, word| *word)
        .windowed_by(windows())
        .emit_strategy(EmitStrategy::OnWindowClose)
        .count(Materialized::as_("counts").with_retention(Duration::from_secs(3_600)))
        .to("closed");
    let mut driver = driver(builder.build().expect("it can work"));
    for (word, timestamp) in [("a", 1), ("b", 2), ("a", 3), ("z", 2 * MINUTE), ("late", 4), ("z", 9 * MINUTE)] {
        pipe(&mut driver, "words", "k", word, timestamp);
    }
    let closed = driver.read_output("closed").expect("the topic exists");
    let keys: Vec<_> = closed.iter().map(|record| record.key.clone().expect("a key")).collect();
    let row = |word: &str, start: i64| [word.as_bytes(), &start.to_be_bytes()].concat();
    let end = |start: i64| start.to_be_bytes().to_vec();
    let expected = [row("a", 0), row("b", 0), end(0), row("z", 2 * MINUTE), end(2 * MINUTE)];
    assert_eq!(keys, expected);
    assert_eq!(driver.read_output("test-late").expect("the topic exists").len(), 1);
    assert_eq!(closed[0].value.as_deref(), Some(&2i64.to_be_bytes()[..]));
    let answer = driver
        .counts("counts")
        .expect("the store exists")
        .totals(Period { from: Timestamp(0), to: Timestamp(MINUTE) }, ReadOptions::default());
    assert!(answer.expect("it is answered").value[0].is_final);
}

#[test]
fn an_end_record_says_what_its_window_holds() {
    let mut headers = millstream::record::HeadersBuf::new();
    headers.push("mill", &[1]);
    let (key, value) = (300_000i64.to_be_bytes(), [1, 3, 84]);
    let record = Record::new(Some(&key), Some(&value), Timestamp(600_000));
    let end = WindowEnd { start: Timestamp(300_000), rows: 3, weight: 42 };
    assert_eq!(WindowEnd::decode(&record.with_headers(headers.as_headers())), Some(end));
    assert_eq!(WindowEnd::decode(&record), None, "a row has no such header");
}

#[test]
fn aggregates_merge_their_parts() {
    #[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Spread {
        least: i64,
        most: i64,
    }
    let builder = StreamsBuilder::with_serdes(Utf8, Long);
    builder
        .stream("prices")
        .group_by(|key, _| *key)
        .windowed_by(windows())
        .aggregate(
            || Spread { least: i64::MAX, most: i64::MIN },
            |spread, price| *spread = Spread { least: spread.least.min(*price), most: spread.most.max(*price) },
            |spread, other| *spread = Spread { least: spread.least.min(other.least), most: spread.most.max(other.most) },
            Materialized::as_("spreads").with_value_serde(Json::<Spread>::new()),
        )
        .to("out");
    let mut driver = driver(builder.build().expect("it can work"));
    for (price, timestamp) in [(5i64, 1), (2, 2), (9, 3)] {
        driver.pipe_input("prices", Some(b"p"), Some(&price.to_be_bytes()), Timestamp(timestamp)).expect("it is processed");
    }
    let last = driver.read_output("out").expect("the topic exists").pop().expect("there were updates");
    let spread: Spread = serde_json::from_slice(last.value.as_deref().expect("a value")).expect("JSON");
    assert_eq!(spread, Spread { least: 2, most: 9 });
}

#[test]
fn a_source_that_is_keyed_already_is_not_shuffled_and_is_checked() {
    let builder = StreamsBuilder::with_serdes(Utf8, Utf8);
    builder
        .stream("words")
        .group_by(|_, word| *word)
        .already_partitioned()
        .windowed_by(windows())
        .count(Materialized::as_("counts"));
    let topology = builder.build().expect("it can work");
    assert!(!topology.describe().contains("repartition"));
    let mut driver = driver(topology);
    pipe(&mut driver, "words", "w", "w", 1);
    let period = Period { from: Timestamp(0), to: Timestamp(MINUTE) };
    let counts = driver.counts("counts").expect("the store exists");
    let answer = counts.fetch(b"w", period, ReadOptions::default()).expect("it is answered");
    assert_eq!(answer.value[0].count, 1);
    assert_eq!(answer.completeness.positions, [(Partition(0), Offset(1))]);
    let stopped = driver.pipe_input("words", Some(b"other"), Some(b"w"), Timestamp(2)).expect_err("it is not where it belongs");
    assert!(stopped.to_string().contains("words-0@1"), "{stopped}");
}

#[test]
fn windows_expire_after_their_retention() {
    let builder = StreamsBuilder::with_serdes(Utf8, Utf8);
    builder
        .stream("words")
        .group_by(|_, word| *word)
        .windowed_by(windows())
        .count(Materialized::as_("counts").with_retention(Duration::from_secs(600)));
    let mut driver = driver(builder.build().expect("it can work"));
    for minute in 0..30 {
        pipe(&mut driver, "words", "k", "w", minute * MINUTE);
    }
    let counts = driver.counts("counts").expect("the store exists");
    let all = Period { from: Timestamp(0), to: Timestamp(60 * MINUTE) };
    let kept = counts.totals(all, ReadOptions::default()).expect("it is answered").value;
    // At minute 29, all up to minute 28 is closed: what ended at or before minute 18 is gone.
    assert_eq!(kept.iter().map(|w| w.start.0 / MINUTE).collect::<Vec<_>>(), (18..30).collect::<Vec<_>>());
}
