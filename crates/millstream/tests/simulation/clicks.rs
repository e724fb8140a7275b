//! The clicks of a run: made, sent, and every one kept.

use std::collections::BTreeMap;

use millstream::broker::local::{MemoryBroker, Unit};
use millstream::partitioner::partition_for_key;
use millstream::record::{Offset, Partition, Record, Timestamp, TopicPartition};

use crate::random::Random;
use crate::scenario::{CLICKS, Scenario};

/// A click as it lies in the clicks topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Click {
    pub(crate) offset: Offset,
    pub(crate) timestamp: Timestamp,
    /// Its value; none where it cannot be read.
    pub(crate) text: Option<String>,
}

/// Makes clicks, and remembers those that the broker has taken.
pub(crate) struct Clicks {
    random: Random,
    scenario: Scenario,
    /// All clicks that the topic holds, by partition, in order.
    pub(crate) sent: BTreeMap<Partition, Vec<Click>>,
    /// Partitions on which nothing is sent until that tick.
    pub(crate) silent_until: BTreeMap<Partition, u64>,
}

impl Clicks {
    pub(crate) fn new(random: Random, scenario: Scenario) -> Self {
        Self { random, scenario, sent: BTreeMap::new(), silent_until: BTreeMap::new() }
    }

    /// How many clicks the topic holds.
    pub(crate) fn count(&self) -> usize {
        self.sent.values().map(Vec::len).sum()
    }

    /// The name of an ad: few of them get most of the clicks.
    pub(crate) fn ad(&mut self) -> String {
        let draws = (0..self.scenario.skew).map(|_| self.random.below(self.scenario.ads));
        format!("ad-{}", draws.min().unwrap_or(0))
    }

    /// Sends the clicks of a tick; where the broker has no room, none.
    pub(crate) fn send(&mut self, broker: &MemoryBroker, tick: u64, now: Timestamp, partitions: u32) {
        let mut unit = Unit::new();
        let mut made: BTreeMap<Partition, Vec<Click>> = BTreeMap::new();
        for _ in 0..self.random.below(2 * self.scenario.clicks_per_tick + 1) {
            let ad = self.ad();
            let partition = match self.scenario.keyed {
                true => partition_for_key(ad.as_bytes(), partitions),
                false => Partition(self.random.below(partitions.into()) as u32),
            };
            if self.silent_until.get(&partition).is_some_and(|until| tick < *until) {
                continue;
            }
            let is_bad = self.random.one_in(self.scenario.bad_one_in);
            let timestamp = self.timestamp(now);
            let text = format!("{ad}/{}", self.random.below(100));
            let value: &[u8] = if is_bad { b"\xff not text" } else { text.as_bytes() };
            unit.add(&TopicPartition::new(CLICKS, partition), &Record::new(Some(ad.as_bytes()), Some(value), timestamp));
            let click = Click { offset: Offset::ZERO, timestamp, text: (!is_bad).then_some(text) };
            made.entry(partition).or_default().push(click);
        }
        let Ok(appended) = broker.append(unit) else { return };
        for (to, (first, _)) in appended.delivered() {
            let clicks = made.remove(&to.partition).unwrap_or_default();
            let placed = clicks.into_iter().zip(first.0..).map(|(click, offset)| Click { offset: Offset(offset), ..click });
            self.sent.entry(to.partition).or_default().extend(placed);
        }
    }

    fn timestamp(&mut self, now: Timestamp) -> Timestamp {
        let mut back = self.random.below(self.scenario.disorder_ms + 1);
        if self.random.one_in(60) {
            back *= 20;
        }
        let ahead = if self.random.one_in(400) { self.random.below(600) } else { 0 };
        Timestamp((now.0 - back as i64).max(0) + ahead as i64)
    }
}
