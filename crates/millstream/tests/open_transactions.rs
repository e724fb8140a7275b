//! Records behind another producer's open transaction are not counted yet: the lag counts them, and where that lasts it is said why.

use std::sync::Arc;
use std::time::Duration;

use millstream::broker::local::{MemoryBroker, Unit};
use millstream::broker::{Broker, TopicSettings, TransactionalProducer};
use millstream::clock::ManualClock;
use millstream::query::{Completeness, CountQueries, Counts, Period, ReadOptions};
use millstream::record::{Partition, Record, Timestamp, TopicPartition};
use millstream::runtime::{Instance, Parts, Registry, StreamsConfig};
use millstream::serdes::{Bytes, Utf8};
use millstream::store::memory::MemoryStores;
use millstream::time::TimeWindows;
use millstream::topology::{Materialized, StreamsBuilder, Topology};

const WORDS: &str = "words";

fn topology() -> Topology {
    let builder = StreamsBuilder::with_serdes(Bytes, Utf8);
    let windows = TimeWindows::of_size_with_no_grace(Duration::from_millis(10));
    let counts = Materialized::as_("counts").with_retention(Duration::from_secs(1));
    builder.stream(WORDS).group_by(|_, word| *word).windowed_by(windows).count(counts);
    builder.build().expect("it can work")
}

fn words(partition: u32) -> TopicPartition {
    TopicPartition::new(WORDS, Partition(partition))
}

/// An application that counts the words of two partitions.
struct Application {
    clock: Arc<ManualClock>,
    broker: Arc<MemoryBroker>,
    instance: Instance<MemoryBroker>,
    counts: Counts<MemoryBroker>,
    registry: Registry,
}

impl Application {
    fn start() -> Self {
        Self::start_with(None)
    }

    fn start_with(idle_timeout: Option<Duration>) -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp(0)));
        let broker = Arc::new(MemoryBroker::in_memory(clock.clone()));
        broker.create_topic(WORDS, &TopicSettings::kept_for_ever(2)).expect("it is new");
        let config = StreamsConfig { commit_interval: Duration::ZERO, idle_timeout, ..StreamsConfig::new("app") };
        let registry = Registry::new();
        let horizon = Duration::from_secs(1);
        let (b, r, c) = (broker.clone(), registry.clone(), clock.clone());
        let counts = Counts::new("counts", horizon, &topology(), &config, b, r, c).expect("it is there");
        let parts = Parts {
            broker: broker.clone(),
            topology: topology(),
            config,
            provider: Arc::new(MemoryStores::new()),
            clock: clock.clone(),
            registry: registry.clone(),
            observer: Arc::new(()),
        };
        let mut application = Self { clock, broker, instance: Instance::new(1, parts), counts, registry };
        application.run();
        application
    }

    fn run(&mut self) {
        for _ in 0..40 {
            self.instance.step(Duration::ZERO).expect("it runs");
        }
    }

    fn write(&self, partition: u32, records: usize) {
        self.write_at(partition, records, 1);
    }

    fn write_at(&self, partition: u32, records: usize, time: i64) {
        let mut unit = Unit::new();
        for _ in 0..records {
            unit.add(&words(partition), &Record::new(None, Some(b"word"), Timestamp(time)));
        }
        self.broker.append(unit).expect("there is room");
    }

    /// Leaves a record in a transaction of another producer, and gives the number to settle it by.
    fn leave_open(&self, partition: u32) -> u64 {
        let mut other = self.broker.producer(&format!("other-{partition}")).expect("a producer");
        other.begin().expect("begun");
        other.send(&words(partition), &Record::new(None, Some(b"word"), Timestamp(1))).expect("sent");
        other.commit_unsettled().expect("left open")
    }

    /// Looks after so many milliseconds, and gives what an answer rests on.
    fn look_after(&mut self, ms: i64) -> Completeness {
        self.run();
        self.clock.advance_ms(ms);
        self.counts.refresh_lag().expect("it is told");
        let period = Period { from: Timestamp(0), to: Timestamp(1_000) };
        self.counts.totals(period, ReadOptions::default()).expect("an answer").completeness
    }
}

#[test]
fn what_lies_behind_another_producers_open_transaction_is_lag_and_told() {
    let mut application = Application::start();
    application.write(1, 17);
    assert_eq!(application.look_after(0).max_lag, 0);
    let open = application.leave_open(1);
    application.write(1, 50);
    for (ms, trouble) in [
        (0, None),
        (1_000, None),
        (1_000, None),
        (1, Some("an open transaction of another producer holds back words-1 from offset 17 on (51 records)")),
    ] {
        let completeness = application.look_after(ms);
        assert!(completeness.is_complete(), "every partition has answered");
        assert_eq!((completeness.max_lag, completeness.trouble.as_deref()), (51, trouble));
        assert_eq!(application.counts.trouble(&words(1)).as_deref(), trouble);
        assert_eq!(application.counts.trouble(&words(0)), None);
        assert_eq!(application.counts.records_behind(&words(1), None), Some(51));
    }
    application.leave_open(0);
    application.look_after(0);
    let trouble = application.look_after(5_000).trouble.expect("two are open");
    assert!(trouble.contains("words-0 from offset 0 on (1 record), and so in 1 more"), "{trouble}");

    assert!(application.broker.settle(open, true).expect("settled"));
    let completeness = application.look_after(5_000);
    assert_eq!(completeness.max_lag, 1);
    assert!(completeness.trouble.expect("one is open").contains("words-0"));
    let other = application.broker.open_transactions()[0];
    assert!(application.broker.settle(other, false).expect("settled"));
    let completeness = application.look_after(5_000);
    assert_eq!((completeness.max_lag, completeness.trouble), (0, None));
}

#[test]
fn a_partition_that_an_open_transaction_holds_back_is_not_idle() {
    for holds_back in [true, false] {
        let mut application = Application::start_with(Some(Duration::from_secs(1)));
        application.write(1, 2);
        application.run();
        let open = holds_back.then(|| application.leave_open(1));
        if holds_back {
            application.write(1, 5);
        }
        // The other goes on, and closes what it can.
        for time in (1_000..6_000).step_by(500) {
            application.write_at(0, 1, time);
            application.look_after(500);
        }
        if let Some(open) = open {
            assert!(application.broker.settle(open, true).expect("settled"));
        } else {
            application.write(1, 6);
        }
        application.look_after(0);
        let late = if holds_back { 0 } else { 6 };
        assert_eq!(application.registry.records().late, late, "held back: {holds_back}");
    }
}

#[test]
fn transactions_that_end_are_no_trouble() {
    let mut application = Application::start();
    for _ in 0..5 {
        let open = application.leave_open(0);
        application.write(0, 3);
        let completeness = application.look_after(1_900);
        assert_eq!((completeness.max_lag, completeness.trouble), (4, None));
        assert!(application.broker.settle(open, true).expect("settled"));
    }
    assert_eq!(application.look_after(0).max_lag, 0);
}
