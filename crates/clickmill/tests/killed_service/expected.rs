//! What has to come of the records in the clicks topic, by a model that knows the definitions and nothing of the engine.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use millstream::broker::local::Unit;
use millstream::broker::{Broker, FetchedBatch, LogReader, TopicSettings};
use millstream::clock::ManualClock;
use millstream::record::{Offset, Partition, Record, Timestamp, TopicPartition};
use millstream_rocksdb::broker::EmbeddedBroker;
use millstream_rocksdb::memory::MemoryBudget;

use super::Counts;
use super::file::{self, ClicksFile};

pub(crate) const CLICKS: &str = "click-events-topic";
pub(crate) const PARTITIONS: u32 = 8;
pub(crate) const SIZE_MS: i64 = 5 * 60 * 1000;
const GRACE_MS: i64 = 15 * 60 * 1000;

/// Where a record of the clicks topic lies: partition and offset.
pub(crate) type Source = (u32, i64);

/// What a record of the clicks topic holds.
pub(crate) type Content = (Vec<u8>, Option<Vec<u8>>, i64);

/// What is expected of everything that Clickmill keeps and answers.
pub(crate) struct Expected {
    /// Records in the clicks topic.
    pub(crate) records: u64,
    /// Lines of the file that are clicks.
    pub(crate) accepted: u64,
    pub(crate) late: BTreeMap<Source, Content>,
    pub(crate) dead_lettered: BTreeMap<Source, Content>,
    pub(crate) counts: Counts,
    /// The largest event time of each partition.
    stream_times: Vec<i64>,
}

/// Opens the log of a service that does not run.
pub(crate) fn open_log(data_dir: &Path) -> EmbeddedBroker {
    let clock = Arc::new(ManualClock::new(Timestamp(0)));
    millstream_rocksdb::broker::open(&data_dir.join("log"), clock, &MemoryBudget::new(128 << 20)).unwrap()
}

/// Makes the clicks topic with records that no intake would have taken, as a topic has that others write to. Gives how many.
pub(crate) fn put_unreadable_records(data_dir: &Path) -> u64 {
    let broker = open_log(data_dir);
    broker.create_topic(CLICKS, &TopicSettings::kept_for_ever(PARTITIONS)).unwrap();
    let arrived = Timestamp(1_700_000_000_000);
    let values = [
        None,
        Some("{\"ad_id\":\"ad-1\",\"timest"),
        Some("{\"timestamp\":1700000000000}"),
        Some("{\"ad_id\":\"ad-1\",\"timestamp\":1700000600001}"),
        Some("{\"ad_id\":7,\"timestamp\":1700000000000}"),
    ];
    let mut unit = Unit::new();
    for partition in 0..PARTITIONS {
        for value in values {
            let record = Record::new(Some(b"ad-1"), value.map(str::as_bytes), arrived);
            unit.add(&TopicPartition::new(CLICKS, Partition(partition)), &record);
        }
    }
    broker.append(unit).unwrap();
    u64::from(PARTITIONS) * values.len() as u64
}

/// Visits all records of a partition in order.
pub(crate) fn read(broker: &EmbeddedBroker, topic: &str, partition: u32, mut visit: impl FnMut(&Record<'_>)) {
    let partition = TopicPartition::new(topic, Partition(partition));
    let start = broker.log_range(&partition, millstream::broker::Isolation::ReadCommitted).unwrap().start;
    let mut reader = broker.reader(&partition, start).unwrap();
    while let Some(batch) = reader.read(Duration::ZERO).unwrap() {
        let mut records = Vec::new();
        batch.records(&mut records).unwrap();
        records.iter().for_each(&mut visit);
    }
}

/// The content of a record.
pub(crate) fn content(record: &Record<'_>) -> Content {
    (record.key.unwrap().to_vec(), record.value.map(<[u8]>::to_vec), record.timestamp.0)
}

impl Expected {
    /// Reads the clicks topic, and checks that it holds each accepted line of the file once.
    pub(crate) fn of(broker: &EmbeddedBroker, file: &ClicksFile) -> Self {
        let mut missing = file.fingerprints();
        let accepted = missing.iter().filter(|line| **line != 0).count() as u64;
        let (late, dead_lettered, counts) = Default::default();
        let mut expected = Self { records: 0, accepted, late, dead_lettered, counts, stream_times: Vec::new() };
        for partition in 0..PARTITIONS {
            let (mut stream_time, mut next) = (i64::MIN, Offset::ZERO);
            read(broker, CLICKS, partition, |record| {
                assert_eq!(record.offset, next, "offsets without holes");
                next = next.next();
                expected.records += 1;
                if expected.take(partition, record, &mut stream_time) {
                    let value = record.value.unwrap();
                    let line = &mut missing[file.line_number(value)];
                    assert_eq!(*line, file::fingerprint(value), "twice, or not as it came: {}", String::from_utf8_lossy(value));
                    *line = 0;
                }
            });
            expected.stream_times.push(stream_time);
        }
        let lost = missing.iter().enumerate().filter(|(_, line)| **line != 0).map(|(number, _)| number);
        assert_eq!(lost.take(10).collect::<Vec<_>>(), Vec::<usize>::new(), "accepted lines that are not in the clicks topic");
        expected
    }

    /// Whether no click can change the window any more: every partition has passed its end and grace.
    pub(crate) fn is_final(&self, start: i64) -> bool {
        self.stream_times.iter().all(|stream_time| start + SIZE_MS + GRACE_MS <= *stream_time)
    }

    /// Judges one record. Whether it is a click.
    fn take(&mut self, partition: u32, record: &Record<'_>, stream_time: &mut i64) -> bool {
        let source = (partition, record.offset.0);
        let Some(click) = record.value.and_then(|value| file::click(value, record.timestamp.0)) else {
            self.dead_lettered.insert(source, content(record));
            return false;
        };
        let start = click.timestamp / SIZE_MS * SIZE_MS;
        if start + SIZE_MS + GRACE_MS <= *stream_time {
            self.late.insert(source, content(record));
        } else {
            *self.counts.entry((click.ad_id.into(), start)).or_default() += 1;
        }
        *stream_time = click.timestamp.max(*stream_time);
        true
    }
}
