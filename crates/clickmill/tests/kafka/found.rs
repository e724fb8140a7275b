//! What an application has written, by decoders of these tests alone.

use std::collections::{BTreeMap, BTreeSet};

use rdkafka::message::{BorrowedMessage, Headers, Message};

use crate::tally::{AdWindow, Content, Counts, Source, content};
use crate::topic;

/// The rows of closed windows.
pub(crate) struct Closed {
    pub(crate) counts: Counts,
    /// Windows whose end is there, by partition.
    pub(crate) ended: BTreeSet<(i32, i64)>,
    /// Rows of windows whose end is not there yet.
    pub(crate) open_rows: u64,
}

/// The last count of each key: `ad id ‖ i64 window start ‖ i32 0` to `i64 count`.
pub(crate) fn changelog(servers: &str, application_id: &str) -> Counts {
    let mut counts = Counts::new();
    topic::read(servers, &format!("{application_id}-ad-clicks-store-changelog"), |record| {
        let (rest, sequence) = record.key().unwrap().split_last_chunk::<4>().unwrap();
        assert_eq!(*sequence, [0; 4]);
        let row = ad_window(rest);
        match record.payload() {
            Some(value) => counts.insert(row, count(value)),
            None => counts.remove(&row),
        };
    });
    counts
}

/// The records on the late or the dead-letter topic, by where they came from. Each is there once.
pub(crate) fn diverted(servers: &str, topic: &str, clicks_topic: &str) -> BTreeMap<Source, Content> {
    let mut diverted = BTreeMap::new();
    topic::read(servers, topic, |record| {
        assert!(header(record, "source.topic") == clicks_topic && !header(record, "reason").is_empty());
        let number = |name| header(record, name).parse::<i64>().unwrap();
        let source = (number("source.partition") as i32, number("source.offset"));
        assert!(diverted.insert(source, content(record)).is_none(), "{source:?} is on {topic} twice");
    });
    diverted
}

/// Rows of closed windows: `ad id ‖ i64 window start` to `i64 count`, each once, and behind a window's last row on each partition its
/// end: `i64 window start` to `u8 1 ‖ varint rows ‖ zigzag clicks` with the header `mill`.
pub(crate) fn closed(servers: &str, application_id: &str) -> Closed {
    let mut closed = Closed { counts: Counts::new(), ended: BTreeSet::new(), open_rows: 0 };
    let mut open: BTreeMap<(i32, i64), (u64, i64)> = BTreeMap::new();
    topic::read(servers, &format!("{application_id}-ad-clicks-store-closed"), |record| {
        let (ad, start) = record.key().unwrap().split_last_chunk::<8>().unwrap();
        let (window, value) = ((record.partition(), i64::from_be_bytes(*start)), record.payload().unwrap());
        assert!(!closed.ended.contains(&window), "a record behind the end of {window:?}");
        if ad.is_empty() {
            let mut rest = value.strip_prefix(&[1]).unwrap();
            let said = (varint(&mut rest), (varint(&mut rest) >> 1) as i64);
            assert_eq!(open.remove(&window).unwrap_or_default(), said, "rows and clicks in the end of {window:?}");
            closed.ended.insert(window);
            return;
        }
        let sent = open.entry(window).or_default();
        *sent = (sent.0 + 1, sent.1 + count(value));
        let row = ad_window(record.key().unwrap());
        let before = closed.counts.insert(row.clone(), count(value));
        assert_eq!(before, None, "{row:?} is on the topic of closed windows twice");
    });
    closed.open_rows = open.values().map(|(rows, _)| rows).sum();
    closed
}

fn header<'a>(record: &'a BorrowedMessage<'_>, name: &str) -> &'a str {
    let headers = record.headers().unwrap();
    let value = headers.iter().find(|header| header.key == name).and_then(|header| header.value);
    std::str::from_utf8(value.unwrap()).unwrap()
}

pub(crate) fn ad_window(key: &[u8]) -> AdWindow {
    let (ad, start) = key.split_last_chunk::<8>().unwrap();
    (std::str::from_utf8(ad).unwrap().into(), i64::from_be_bytes(*start))
}

pub(crate) fn count(value: &[u8]) -> i64 {
    i64::from_be_bytes(value.try_into().unwrap())
}

/// Unsigned LEB128.
fn varint(bytes: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    while let Some((byte, rest)) = bytes.split_first() {
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
        shift += 7;
    }
    value
}
