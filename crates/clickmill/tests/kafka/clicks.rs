//! Clicks by a seed, and their writer: an independent producer, as another program would be.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

use crate::sent::Sent;
use crate::service::pause;

pub(crate) const MINUTE_MS: i64 = 60 * 1000;

/// How long the producer may take to get rid of what it has, with a broker that is down meanwhile.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the clicks are like. Partition 0 is in order; in the others each click is up to `disorder_ms` out of order, some are far
/// behind, and some are no clicks at all.
#[derive(Debug, Clone)]
pub(crate) struct Clicks {
    pub(crate) seed: u64,
    pub(crate) count: u64,
    pub(crate) partitions: u32,
    pub(crate) ads: u64,
    /// Bytes that an ad's id has on top.
    pub(crate) ad_padding: usize,
    pub(crate) start_ms: i64,
    /// By how much the records' own timestamps are later.
    pub(crate) recorded_after_ms: i64,
    pub(crate) span_ms: i64,
    pub(crate) disorder_ms: i64,
    pub(crate) late_share: f64,
    pub(crate) bad_share: f64,
}

/// A record for the clicks topic.
pub(crate) struct Click {
    partition: i32,
    key: String,
    value: String,
    timestamp: i64,
    /// The ad and the event time, where it is one.
    good: Option<(u64, i64)>,
}

impl Clicks {
    /// Two hours of clicks of which some are late and some bad.
    pub(crate) fn mixed(count: u64, seed: u64) -> Self {
        let start_ms = 1_717_200_000_000;
        let (span_ms, disorder_ms) = (120 * MINUTE_MS, MINUTE_MS / 2);
        let (ads, ad_padding, late_share, bad_share) = (5_000, 0, 0.01, 0.01);
        Self {
            seed,
            count,
            partitions: 8,
            ads,
            ad_padding,
            start_ms,
            recorded_after_ms: 0,
            span_ms,
            disorder_ms,
            late_share,
            bad_share,
        }
    }

    /// The same clicks, which happened long ago, in records of today. A broker that is killed forgets, when it starts again, the
    /// producers whose last record is older than a day by its own timestamp (`producer.id.expiration.ms`): what their clients send
    /// again is then written twice, and the writer of these clicks would be such a client.
    #[allow(clippy::disallowed_methods, reason = "the broker reads its clock")]
    pub(crate) fn recorded_today(self) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
        Self { recorded_after_ms: now - self.span_ms - self.start_ms, ..self }
    }

    fn nth(&self, number: u64) -> Click {
        let mut random = Random(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number);
        let partition = random.below(u64::from(self.partitions)) as i32;
        let timestamp = self.start_ms + (self.span_ms as f64 * (number as f64 / self.count as f64)) as i64;
        // Few ads get most of the clicks: the logarithm of the rank is evenly spread.
        let ad = (self.ads as f64).powf(random.share()) as u64;
        let kind = if partition == 0 { 1.0 } else { random.share() };
        let back = match kind {
            late if late < self.late_share => 15 * MINUTE_MS + random.below(30 * MINUTE_MS as u64) as i64,
            _ if partition == 0 => 0,
            _ => random.below(self.disorder_ms as u64 + 1) as i64,
        };
        let event_time = (timestamp - back).max(0);
        let recorded = timestamp + self.recorded_after_ms;
        let is_bad = (self.late_share..self.late_share + self.bad_share).contains(&kind);
        let value = if is_bad { bad(number, recorded) } else { self.good(number, ad, event_time) };
        let good = (!is_bad).then_some((ad, event_time));
        Click { partition, key: format!("user-{}", random.below(10_000)), value, timestamp: recorded, good }
    }

    fn good(&self, number: u64, ad: u64, event_time: i64) -> String {
        let (padding, page) = ("x".repeat(self.ad_padding), number % 977);
        format!(r#"{{"click_id":"c-{number}","ad_id":"ad-{ad}{padding}","timestamp":{event_time},"page":"/p/{page}"}}"#)
    }
}

/// What is no click: cut off, without an ad, an ad that is no text, far ahead of its arrival, no JSON.
fn bad(number: u64, timestamp: i64) -> String {
    match number % 5 {
        0 => format!(r#"{{"click_id":"c-{number}","ad_id":"ad-1","timest"#),
        1 => format!(r#"{{"click_id":"c-{number}","timestamp":{timestamp}}}"#),
        2 => format!(r#"{{"click_id":"c-{number}","ad_id":7,"timestamp":{timestamp}}}"#),
        3 => format!(r#"{{"click_id":"c-{number}","ad_id":"ad-1","timestamp":{}}}"#, timestamp + 11 * MINUTE_MS),
        _ => format!("click {number}"),
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Writes clicks in the background. The last twentieth comes in a trickle until it is told to finish, so that there is always
/// something to count.
pub(crate) struct Writer {
    thread: JoinHandle<()>,
    finishes: Arc<AtomicBool>,
    sent: Arc<Sent>,
}

/// Clicks a second at the end.
const TRICKLE: u64 = 20;

impl Writer {
    /// Starts to write so many clicks a second.
    pub(crate) fn start(servers: &str, topic: &str, clicks: &Clicks, rate: u64) -> Self {
        Self::start_after(0, servers, topic, clicks, rate)
    }

    /// Starts to write so many clicks as fast as it goes, and from then on so many a second.
    pub(crate) fn start_after(before: u64, servers: &str, topic: &str, clicks: &Clicks, rate: u64) -> Self {
        let (finishes, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(Sent::default()));
        let (topic, clicks) = (topic.to_owned(), clicks.clone());
        let (producer, told_to_finish, noted) = (producer(servers), finishes.clone(), sent.clone());
        let thread = std::thread::spawn(move || write(&producer, &topic, &clicks, before, rate, &told_to_finish, &noted));
        Self { thread, finishes, sent }
    }

    /// What it has sent.
    pub(crate) fn sent(&self) -> Arc<Sent> {
        self.sent.clone()
    }

    /// Writes the rest, as fast as it goes.
    pub(crate) fn finish(self) {
        self.finishes.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

/// Writes all clicks as fast as it goes.
pub(crate) fn write_all(servers: &str, topic: &str, clicks: &Clicks) {
    write(&producer(servers), topic, clicks, 0, 1, &AtomicBool::new(true), &Sent::default());
}

type ClicksProducer = ThreadedProducer<DefaultProducerContext>;

fn producer(servers: &str) -> ClicksProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers).set("enable.idempotence", "true").set("linger.ms", "20");
    config.set("reconnect.backoff.max.ms", "1000").create().unwrap()
}

fn write(producer: &ClicksProducer, topic: &str, clicks: &Clicks, before: u64, rate: u64, finishes: &AtomicBool, sent: &Sent) {
    let mut due = Instant::now();
    for number in 0..clicks.count {
        let rate = if number < clicks.count / 20 * 19 { rate } else { TRICKLE.min(rate) };
        due = if number < before { Instant::now() } else { due + Duration::from_nanos(1_000_000_000 / rate) };
        while !finishes.load(Ordering::Relaxed) && Instant::now() < due {
            pause(Duration::from_millis(2));
        }
        let click = clicks.nth(number);
        if let Some((ad, event_time)) = click.good {
            sent.note(ad, event_time);
        }
        send(producer, topic, &click);
    }
    producer.flush(PATIENCE).unwrap();
}

fn send(producer: &ClicksProducer, topic: &str, click: &Click) {
    let record =
        BaseRecord::to(topic).partition(click.partition).timestamp(click.timestamp).key(&click.key).payload(&click.value);
    let (mut unsent, began) = (record, Instant::now());
    while let Err((error, record)) = producer.send(unsent) {
        let is_full = matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
        assert!(is_full && began.elapsed() < PATIENCE, "a click cannot be written: {error}");
        unsent = record;
        pause(Duration::from_millis(2));
    }
}
