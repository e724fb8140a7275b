//! Fetching from many partitions, outside any group.

use std::time::{Duration, Instant};

use millstream::broker::group::Candidate;
use millstream::broker::{Broker, ErrorKind, Fetched, FetchedBatch, Fetcher, Membership, TopicSettings};
use millstream::record::{Offset, TopicPartition};

use super::{Place, SOON, produce, texts, tp};

pub(super) fn contract<B: Broker>(broker: &B, place: Place) {
    a_fetcher_needs_no_membership(broker, place);
    a_position_is_set_by_hand(broker, place);
    one_partition_fails_alone(broker, place);
    if place == Place::InProcess {
        fetches_take_turns(broker);
    }
}

/// Fetches until so many records have come, all of that partition.
fn fetched<F: Fetcher>(fetcher: &mut F, from: &TopicPartition, count: usize) -> Vec<String> {
    let (began, mut values) = (Instant::now(), Vec::new());
    while values.len() < count {
        assert!(began.elapsed() < SOON, "{values:?} is all that comes of {from}");
        match fetcher.poll(SOON).unwrap() {
            // An empty batch tells of offsets without a record.
            Fetched::Batch(batch) if texts(&batch).is_empty() => {}
            Fetched::Batch(batch) => {
                assert_eq!(batch.partition(), from);
                values.extend(texts(&batch));
            }
            Fetched::Failed(partition, error) => panic!("{partition} failed: {error}"),
            Fetched::Nothing => {}
        }
    }
    values
}

/// Nothing comes but empty batches.
fn nothing_comes<F: Fetcher>(fetcher: &mut F, place: Place) {
    // In a process whatever there is comes at once.
    let (began, in_which) = (Instant::now(), if place == Place::InProcess { Duration::ZERO } else { Duration::from_secs(1) });
    loop {
        match fetcher.poll(in_which.saturating_sub(began.elapsed())).unwrap() {
            Fetched::Batch(batch) => assert_eq!(texts(&batch), [""; 0], "{} is fetched", batch.partition()),
            Fetched::Failed(partition, error) => panic!("{partition} failed: {error}"),
            Fetched::Nothing if began.elapsed() >= in_which => return,
            Fetched::Nothing => {}
        }
    }
}

/// The next partition to fail, with the records that came of others before.
fn failed<F: Fetcher>(fetcher: &mut F) -> (TopicPartition, ErrorKind, Vec<String>) {
    let (began, mut values) = (Instant::now(), Vec::new());
    loop {
        match fetcher.poll(SOON).unwrap() {
            Fetched::Batch(batch) => values.extend(texts(&batch)),
            Fetched::Failed(partition, error) => return (partition, error.kind(), values),
            Fetched::Nothing => {}
        }
        assert!(began.elapsed() < SOON, "nothing fails");
    }
}

fn a_fetcher_needs_no_membership<B: Broker>(broker: &B, place: Place) {
    broker.create_topic("fetched", &TopicSettings::kept_for_ever(2)).unwrap();
    let (from, other) = (tp("fetched", 0), tp("fetched", 1));
    produce(broker, &from, &["a", "b"]);
    produce(broker, &other, &["x"]);
    // A member has them, and two fetchers fetch the same one.
    let mut member = broker.join(&Candidate::new("fetched", "member", &["fetched".into()])).unwrap();
    let (mut one, mut two) = (broker.fetcher().unwrap(), broker.fetcher().unwrap());
    nothing_comes(&mut one, place);
    one.start(&from, Offset(0)).unwrap();
    two.start(&from, Offset(0)).unwrap();
    assert_eq!(fetched(&mut one, &from, 2), ["a", "b"]);
    assert_eq!(fetched(&mut two, &from, 2), ["a", "b"]);
    produce(broker, &from, &["c"]);
    assert_eq!(fetched(&mut one, &from, 1), ["c"]);
    member.leave().unwrap();
    assert_eq!(fetched(&mut two, &from, 1), ["c"]);
    nothing_comes(&mut one, place);
}

fn a_position_is_set_by_hand<B: Broker>(broker: &B, place: Place) {
    broker.create_topic("rewound", &TopicSettings::kept_for_ever(2)).unwrap();
    let (from, other) = (tp("rewound", 0), tp("rewound", 1));
    produce(broker, &from, &["a", "b", "c"]);
    produce(broker, &other, &["x"]);
    let mut fetcher = broker.fetcher().unwrap();
    fetcher.start(&from, Offset(0)).unwrap();
    assert_eq!(fetched(&mut fetcher, &from, 3), ["a", "b", "c"]);
    fetcher.start(&from, Offset(1)).unwrap();
    assert_eq!(fetched(&mut fetcher, &from, 2), ["b", "c"], "rewound, into what was one batch");
    fetcher.start(&from, Offset(0)).unwrap();
    fetcher.start(&from, Offset(2)).unwrap();
    assert_eq!(fetched(&mut fetcher, &from, 1), ["c"], "from the latest position alone");

    fetcher.start(&from, Offset(0)).unwrap();
    fetcher.start(&other, Offset(0)).unwrap();
    fetcher.stop(&from);
    fetcher.stop(&tp("rewound", 7));
    assert_eq!(fetched(&mut fetcher, &other, 1), ["x"], "what was stopped does not come");
    nothing_comes(&mut fetcher, place);
    fetcher.start(&from, Offset(2)).unwrap();
    assert_eq!(fetched(&mut fetcher, &from, 1), ["c"]);

    // Of both there is a record to come: that of the one that is stopped is dropped, fetched or not.
    fetcher.start(&from, Offset(2)).unwrap();
    fetcher.start(&other, Offset(0)).unwrap();
    let came = loop {
        match fetcher.poll(SOON).unwrap() {
            Fetched::Batch(batch) if !texts(&batch).is_empty() => break batch.partition().clone(),
            Fetched::Failed(partition, error) => panic!("{partition} failed: {error}"),
            _ => {}
        }
    };
    fetcher.stop(if came == from { &other } else { &from });
    nothing_comes(&mut fetcher, place);
}

fn one_partition_fails_alone<B: Broker>(broker: &B, place: Place) {
    broker.create_topic("failing", &TopicSettings::kept_for_ever(2)).unwrap();
    let (failing, other) = (tp("failing", 0), tp("failing", 1));
    produce(broker, &failing, &["a", "b", "c"]);
    broker.delete_records(&failing, Offset(2)).unwrap();
    let mut fetcher = broker.fetcher().unwrap();
    fetcher.start(&other, Offset(0)).unwrap();
    // Before the start of the log, and after its end.
    for (outside, values) in [(Offset(0), ["x", "y"]), (Offset(1_000), ["z", "w"])] {
        produce(broker, &other, &values[..1]);
        fetcher.start(&failing, outside).expect("the log is not asked yet");
        let (partition, kind, mut came) = failed(&mut fetcher);
        assert_eq!((&partition, kind), (&failing, ErrorKind::OffsetOutOfRange));
        produce(broker, &other, &values[1..]);
        let left = values.len() - came.len();
        came.extend(fetched(&mut fetcher, &other, left));
        assert_eq!(came, values, "the other is fetched as before");
        nothing_comes(&mut fetcher, place);
    }
    fetcher.start(&failing, Offset(2)).unwrap();
    assert_eq!(fetched(&mut fetcher, &failing, 1), ["c"], "until it is started again");
}

fn fetches_take_turns<B: Broker>(broker: &B) {
    broker.create_topic("turns", &TopicSettings::kept_for_ever(2)).unwrap();
    let large = "x".repeat(600_000);
    let mut fetcher = broker.fetcher().unwrap();
    for partition in (0..2).map(|number| tp("turns", number)) {
        produce(broker, &partition, &[&large, &large, &large, &large, &large, &large]);
        fetcher.start(&partition, Offset(0)).unwrap();
    }
    let mut seen = Vec::new();
    while let Fetched::Batch(batch) = fetcher.poll(Duration::ZERO).unwrap() {
        seen.push((batch.partition().partition.0, texts(&batch).len()));
    }
    assert_eq!(seen.iter().map(|(_, records)| records).sum::<usize>(), 12);
    assert!(seen.len() >= 4, "a fetch is bounded: {seen:?}");
    assert!(seen[..4].windows(2).all(|pair| pair[0].0 != pair[1].0), "in turn: {seen:?}");
}
