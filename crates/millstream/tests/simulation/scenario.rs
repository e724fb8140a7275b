use std::time::Duration;

use millstream::runtime::StreamsConfig;
use millstream::serdes::{Bytes, Deserializer, Utf8};
use millstream::time::TimeWindows;
use millstream::topology::chain::{Chain, KeySelector};
use millstream::topology::{EmitStrategy, KGroupedStream, Materialized, StreamsBuilder, Topology};

use crate::aggregates::{Aggregate, AggregateSerde, Amount, ad_of, fan_out};
use crate::random::Random;

pub(crate) const CLICKS: &str = "clicks";
pub(crate) const CLOSED: &str = "closed";
pub(crate) const STORE: &str = "counts";
pub(crate) const APPLICATION: &str = "sim";

/// What a seed makes of everything that does not change during its run.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    /// Whether the clicks are keyed by ad, so that nothing is shuffled.
    pub(crate) keyed: bool,
    pub(crate) windows: TimeWindows,
    /// None keeps windows for ever.
    pub(crate) retention: Option<Duration>,
    pub(crate) partitions: u32,
    pub(crate) instances: usize,
    pub(crate) threads: usize,
    pub(crate) ads: u64,
    /// The larger, the more the first ads get.
    pub(crate) skew: u32,
    /// How far back of the time that it has come to a partition's click may lie.
    pub(crate) disorder_ms: u64,
    pub(crate) clicks_per_tick: u64,
    pub(crate) bad_one_in: u32,
    pub(crate) tick_ms: u64,
    pub(crate) ticks: u64,
    pub(crate) purge_interval: Duration,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) commit_interval: Duration,
    pub(crate) final_rows_per_commit: usize,
    pub(crate) uncommitted_bytes: usize,
    pub(crate) ranked_rows: usize,
    /// One in so many ticks has an event; none has no faults either.
    pub(crate) event_one_in: Option<u32>,
    /// Whether an aggregate of its own is kept, and not a count.
    pub(crate) aggregates: bool,
    /// Whether one click does not come to one.
    pub(crate) fans_out: bool,
    /// How many instances, where there are as many, keep a copy of a store beside the one that counts.
    pub(crate) standbys: u32,
}

impl Scenario {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x5ce7_a210);
        let r = &mut random;
        let size = r.pick(&[20, 50, 100, 300]);
        let grace = r.pick(&[0, 0, 10, 100, 500]);
        Self {
            seed,
            keyed: r.one_in(2),
            windows: TimeWindows::of_size_and_grace(Duration::from_millis(size), Duration::from_millis(grace)),
            retention: r.one_in(3).then(|| Duration::from_millis(size + grace + r.below(600))),
            partitions: r.between(1, 4) as u32,
            instances: r.between(1, 3) as usize,
            threads: r.between(1, 2) as usize,
            ads: r.pick(&[1, 5, 30]),
            skew: r.pick(&[1, 2, 4]),
            disorder_ms: r.pick(&[0, 5, 50, 300]),
            clicks_per_tick: r.pick(&[1, 4, 12]),
            bad_one_in: r.pick(&[5, 50, 1_000]),
            tick_ms: r.pick(&[2, 10, 30]),
            ticks: r.between(100, 400),
            purge_interval: Duration::from_millis(r.pick(&[0, 200, 100_000])),
            idle_timeout: r.one_in(3).then(|| Duration::from_millis(r.pick(&[50, 400]))),
            commit_interval: Duration::from_millis(r.pick(&[0, 10, 60])),
            final_rows_per_commit: r.pick(&[1, 3, 10, 20_000]),
            uncommitted_bytes: r.pick(&[200, 1 << 20]),
            ranked_rows: r.pick(&[1, 2, 5, 1_024]),
            event_one_in: (!r.one_in(16)).then(|| r.pick(&[4, 10, 30])),
            aggregates: r.one_in(3),
            fans_out: r.one_in(3),
            standbys: r.between(0, 2) as u32,
        }
    }

    pub(crate) fn topology(&self) -> Topology {
        let builder = StreamsBuilder::with_serdes(Bytes, Utf8);
        let (clicks, keyed) = (builder.stream(CLICKS), self.keyed);
        match self.fans_out {
            false => self.keep(clicks.group_by(|_, click| ad_of(click))),
            true => self.keep(clicks.flat_map(move |_, click| fan_out(click, keyed)).group_by_key()),
        }
        builder.build().unwrap()
    }

    fn keep<C: Chain, S: KeySelector<C>>(&self, grouped: KGroupedStream<'_, C, S>)
    where
        for<'r> C::Value<'r>: Amount,
    {
        let grouped = if self.keyed { grouped.already_partitioned() } else { grouped };
        let windowed = grouped.windowed_by(self.windows).emit_strategy(EmitStrategy::OnWindowClose);
        let kept = Materialized::as_(STORE).with_retention(self.retention.unwrap_or(Duration::from_secs(1_000_000)));
        let table = match self.aggregates {
            false => windowed.count(kept),
            true => windowed.aggregate(
                Aggregate::default,
                |aggregate: &mut Aggregate, value| aggregate.add(value.amount()),
                Aggregate::merge,
                kept.with_value_serde(AggregateSerde),
            ),
        };
        table.to(CLOSED);
    }

    /// Everything that comes out of a click with that text.
    pub(crate) fn outputs(&self, text: &str) -> Vec<(Option<String>, i64)> {
        if self.fans_out { fan_out(text, self.keyed) } else { vec![(Some(ad_of(&text).to_owned()), text.amount())] }
    }

    /// Adds what came out of a click to what is kept.
    pub(crate) fn add(&self, amount: i64, into: &mut Aggregate) {
        if self.aggregates { into.add(amount) } else { into.count += 1 }
    }

    /// Reads what is kept as it stands on topics.
    pub(crate) fn read(&self, value: &[u8]) -> Aggregate {
        match self.aggregates {
            true => AggregateSerde.deserialize(Some(value)).unwrap(),
            false => Aggregate::of_count(i64::from_be_bytes(value.try_into().unwrap())),
        }
    }

    pub(crate) fn config(&self, instance: usize) -> StreamsConfig {
        StreamsConfig {
            instance_id: instance.to_string(),
            commit_interval: self.commit_interval,
            commit_interval_backlog: self.commit_interval,
            final_rows_per_commit: self.final_rows_per_commit,
            uncommitted_bytes: self.uncommitted_bytes,
            ranked_rows: self.ranked_rows,
            purge_interval: self.purge_interval,
            idle_timeout: self.idle_timeout,
            num_standbys: self.standbys,
            ..StreamsConfig::new(APPLICATION)
        }
    }

    /// The topic that the tasks with the stores read.
    pub(crate) fn aggregate_input(&self) -> String {
        match self.keyed {
            true => CLICKS.to_owned(),
            false => self.config(0).repartition_topic(STORE).to_string(),
        }
    }

    pub(crate) fn changelog(&self) -> String {
        self.config(0).changelog_topic(STORE).to_string()
    }
}
