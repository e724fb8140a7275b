//! What has to come of the records in the clicks topic, by the documented definitions alone.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use rdkafka::message::{BorrowedMessage, Message};
use serde::Deserialize;
use serde_json::Value;

use crate::clicks::MINUTE_MS;
use crate::topic;

pub(crate) const SIZE_MS: i64 = 5 * MINUTE_MS;
const MAX_AHEAD_MS: i64 = 10 * MINUTE_MS;

/// An ad and the start of a window.
pub(crate) type AdWindow = (Box<str>, i64);
pub(crate) type Counts = HashMap<AdWindow, i64>;

/// Where a record of the clicks topic lies: partition and offset.
pub(crate) type Source = (i32, i64);

/// Key, value and timestamp of a record.
pub(crate) type Content = (Vec<u8>, Vec<u8>, i64);

/// What is expected.
pub(crate) struct Tally {
    pub(crate) records: u64,
    pub(crate) counts: Counts,
    pub(crate) late: BTreeMap<Source, Content>,
    pub(crate) dead_lettered: BTreeMap<Source, Content>,
    /// The largest event time of each partition.
    stream_times: BTreeMap<i32, i64>,
    grace_ms: i64,
}

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    ad_id: Cow<'a, str>,
    timestamp: Value,
}

impl Tally {
    /// Reads the clicks topic, and judges each record.
    pub(crate) fn of(servers: &str, topic: &str, grace_ms: i64) -> Self {
        let (counts, late, dead_lettered, stream_times) = Default::default();
        let mut tally = Self { records: 0, counts, late, dead_lettered, stream_times, grace_ms };
        topic::read(servers, topic, |record| tally.take(record));
        tally
    }

    fn take(&mut self, record: &BorrowedMessage<'_>) {
        self.records += 1;
        let (source, arrived) = ((record.partition(), record.offset()), record.timestamp().to_millis().unwrap());
        let Some((ad, event_time)) = record.payload().and_then(|value| click(value, arrived)) else {
            self.dead_lettered.insert(source, content(record));
            return;
        };
        let stream_time = self.stream_times.entry(record.partition()).or_insert(i64::MIN);
        let start = event_time / SIZE_MS * SIZE_MS;
        if start + SIZE_MS + self.grace_ms <= *stream_time {
            self.late.insert(source, content(record));
        } else {
            *self.counts.entry((ad.into(), start)).or_default() += 1;
        }
        *stream_time = event_time.max(*stream_time);
    }

    pub(crate) fn counted(&self) -> u64 {
        self.counts.values().sum::<i64>() as u64
    }

    /// The counts that no click can change any more: every partition has passed the window's end and grace.
    pub(crate) fn final_counts(&self) -> Counts {
        let is_final = |start: i64| self.stream_times.values().all(|time| start + SIZE_MS + self.grace_ms <= *time);
        self.counts.iter().filter(|((_, start), _)| is_final(*start)).map(|(row, count)| (row.clone(), *count)).collect()
    }

    /// The largest event time of each partition.
    pub(crate) fn stream_times(&self) -> &BTreeMap<i32, i64> {
        &self.stream_times
    }

    /// The clicks of all ads together by window.
    pub(crate) fn totals(&self) -> BTreeMap<i64, i64> {
        let mut totals = BTreeMap::new();
        self.counts.iter().for_each(|((_, start), count)| *totals.entry(*start).or_default() += count);
        totals
    }
}

/// The ad and the event time, if it is a click.
fn click(value: &[u8], arrived: i64) -> Option<(Cow<'_, str>, i64)> {
    let fields: Fields<'_> = serde_json::from_slice(value).ok()?;
    let timestamp = fields.timestamp.as_i64()?;
    let is_click = (1..=256).contains(&fields.ad_id.len()) && (0..=arrived + MAX_AHEAD_MS).contains(&timestamp);
    is_click.then_some((fields.ad_id, timestamp))
}

pub(crate) fn content(record: &BorrowedMessage<'_>) -> Content {
    (record.key().unwrap().to_vec(), record.payload().unwrap().to_vec(), record.timestamp().to_millis().unwrap())
}
