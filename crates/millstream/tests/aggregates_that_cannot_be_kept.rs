//! An aggregate that its own serde cannot keep: refused before anything rests on it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use millstream::record::Timestamp;
use millstream::serdes::{Deserializer, Json, Long, Rejection, Serializer, Utf8};
use millstream::testing::{DriverError, TopologyTestDriver};
use millstream::time::TimeWindows;
use millstream::topology::{Materialized, StreamsBuilder};

/// Writes nothing for a value of 13.
#[derive(Clone, Copy)]
struct NotThirteen;

impl Serializer<i64> for NotThirteen {
    fn serialize(&self, value: &i64, into: &mut Vec<u8>) -> bool {
        *value != 13 && Long.serialize(value, into)
    }
}

impl Deserializer for NotThirteen {
    type Output<'r> = i64;

    fn deserialize(&self, bytes: Option<&[u8]>) -> Result<i64, Rejection> {
        Long.deserialize(bytes)
    }
}

/// The sum of the prices by key, in windows of a minute.
fn sums<S>(serde: S, is_keyed: bool) -> TopologyTestDriver
where
    S: Serializer<i64> + for<'r> Deserializer<Output<'r> = i64>,
{
    let builder = StreamsBuilder::with_serdes(Utf8, Long);
    let grouped = builder.stream("prices").group_by(|key, _| *key);
    let grouped = if is_keyed { grouped.already_partitioned() } else { grouped };
    let windowed = grouped.windowed_by(TimeWindows::of_size_and_grace(Duration::from_secs(60), Duration::ZERO));
    let materialized = Materialized::as_("sums").with_value_serde(serde);
    windowed.aggregate(|| 0, |sum, price| *sum += price, |sum, other| *sum += other, materialized).to("out");
    TopologyTestDriver::new(builder.build().unwrap(), Timestamp(0)).unwrap()
}

fn pipe(driver: &mut TopologyTestDriver, price: i64, timestamp: i64) -> Result<(), DriverError> {
    driver.pipe_input("prices", Some(b"p"), Some(&price.to_be_bytes()), Timestamp(timestamp))
}

fn assert_refused(driver: &mut TopologyTestDriver, outcome: Result<(), DriverError>, reason: &str) {
    let error = outcome.expect_err("it cannot be kept").to_string();
    for part in ["\"p\"", "the window from 60000", "store sums", reason] {
        assert!(error.contains(part), "{part} is missing in: {error}");
    }
    assert_eq!(driver.read_output("out").unwrap().len(), 1, "what had been sent before");
    assert_eq!(driver.read_output("test-sums-changelog").unwrap().len(), 1, "what had been kept before");
}

#[test]
fn an_aggregate_that_its_serializer_makes_null_of_is_refused() {
    for is_keyed in [true, false] {
        let mut driver = sums(NotThirteen, is_keyed);
        pipe(&mut driver, 6, 60_000).unwrap();
        // The part that comes over the repartition topic can be written, the whole cannot.
        let outcome = pipe(&mut driver, 7, 60_001);
        assert_refused(&mut driver, outcome, "makes null of it");
    }
}

#[test]
fn a_part_of_an_aggregate_that_cannot_be_written_is_not_sent() {
    let mut driver = sums(NotThirteen, false);
    pipe(&mut driver, 6, 60_000).unwrap();
    driver.read_output("test-sums-repartition").unwrap();
    let outcome = pipe(&mut driver, 13, 60_001);
    assert_refused(&mut driver, outcome, "makes null of it");
    assert_eq!(driver.read_output("test-sums-repartition").unwrap().len(), 0);
}

/// The mean of nothing is no number: JSON writes null for it, and reads no number from null.
#[test]
fn an_aggregate_that_its_deserializer_refuses_is_refused() {
    let builder = StreamsBuilder::with_serdes(Utf8, Long);
    builder
        .stream("prices")
        .group_by_key()
        .windowed_by(TimeWindows::of_size_and_grace(Duration::from_secs(60), Duration::ZERO))
        .aggregate(
            || 1.0,
            |ratio: &mut f64, price: &i64| *ratio *= *price as f64 / *price as f64,
            |ratio, other| *ratio *= other,
            Materialized::as_("sums").with_value_serde(Json::<f64>::new()),
        )
        .to("out");
    let mut driver = TopologyTestDriver::new(builder.build().unwrap(), Timestamp(0)).unwrap();
    pipe(&mut driver, 5, 60_000).unwrap();
    let outcome = pipe(&mut driver, 0, 60_001);
    assert_refused(&mut driver, outcome, "deserializer refuses");
}
