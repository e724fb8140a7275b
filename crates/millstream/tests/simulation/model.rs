//! The naive model: it keeps every click and applies the definitions to each.

use std::collections::{BTreeMap, BTreeSet};

use millstream::partitioner::partition_for_key;
use millstream::record::{Offset, Partition, Timestamp, TopicPartition};
use millstream::task::RecordCounters;

use crate::audit::{Aggregates, Audit, ClosedWindow};
use crate::clicks::{Click, Clicks};
use crate::scenario::{CLICKS, Scenario};

/// What must have become of the clicks.
pub(crate) struct Expected {
    pub(crate) kept: BTreeMap<Partition, Aggregates>,
    /// How many clicks went into what is kept, whatever came out of each, and of how many nothing did.
    counted: usize,
    filtered: usize,
    pub(crate) late: BTreeSet<(Partition, Offset)>,
    pub(crate) dead: BTreeMap<(Partition, Offset), String>,
    /// How far each source partition's own clicks have closed, beyond what it began with.
    closed_through: BTreeMap<Partition, Timestamp>,
}

impl Expected {
    /// Decides from the order of the log what is late, and from how far a partition had closed by falling idle when it was read: that was
    /// committed before.
    pub(crate) fn of(scenario: &Scenario, clicks: &Clicks, audit: &Audit) -> Self {
        let (late, dead, kept) = Default::default();
        let mut expected = Self { kept, counted: 0, filtered: 0, late, dead, closed_through: BTreeMap::new() };
        let store_partitions = audit.partitions_of(&scenario.changelog()).len() as u32;
        for partition in audit.partitions_of(CLICKS) {
            let sent = clicks.sent.get(&partition).map_or(&[][..], Vec::as_slice);
            expected.take_partition(scenario, audit, partition, sent, store_partitions);
        }
        expected
    }

    fn take_partition(&mut self, scenario: &Scenario, audit: &Audit, partition: Partition, sent: &[Click], partitions: u32) {
        let joined_at = audit.joined_at.get(&partition).copied().unwrap_or_default();
        let mut seen: Option<Timestamp> = None;
        for Click { offset, timestamp, text } in sent {
            let Some(text) = text else {
                self.dead.insert((partition, *offset), "not UTF-8".to_owned());
                continue;
            };
            let start = scenario.windows.start_of(*timestamp);
            let end = scenario.windows.end_of(start);
            let by_order = end <= joined_at || seen.is_some_and(|seen| end.0 + scenario.windows.grace_ms() <= seen.0);
            let by_idling = end <= audit.idled_through(partition, *offset);
            seen = seen.max(Some(*timestamp));
            let outputs = scenario.outputs(text);
            if outputs.is_empty() {
                self.filtered += 1;
            } else if by_order || by_idling {
                self.late.insert((partition, *offset));
            } else if outputs.iter().any(|(ad, _)| ad.is_none()) {
                self.dead.insert((partition, *offset), "key is null".to_owned());
            } else {
                self.counted += 1;
                for (ad, amount) in outputs.into_iter().filter_map(|(ad, amount)| Some((ad?, amount))) {
                    let kept_in = if scenario.keyed { partition } else { partition_for_key(ad.as_bytes(), partitions) };
                    scenario.add(amount, self.kept.entry(kept_in).or_default().entry((start, ad)).or_default());
                }
            }
        }
        let own = seen.map_or(Timestamp(0), |seen| scenario.windows.closed_through(seen));
        self.closed_through.insert(partition, own.max(joined_at));
    }

    /// The counters of all instances together, where none has lost any.
    pub(crate) fn check_counters(&self, clicks: &Clicks, records: &RecordCounters) {
        let dead = |reason: &str| self.dead.values().filter(|why| *why == reason).count() as u64;
        let dead_lettered = ["not UTF-8", "key is null"].map(|reason| (reason.to_owned(), dead(reason)));
        let expected = RecordCounters {
            read: clicks.count() as u64,
            counted: self.counted as u64,
            late: self.late.len() as u64,
            filtered: self.filtered as u64,
            dead_lettered: dead_lettered.into_iter().filter(|(_, count)| *count > 0).collect(),
        };
        assert_eq!(*records, expected, "the counters");
    }

    /// How far the store of that partition must have closed, where no partition falls idle.
    fn store_closed_through(&self, scenario: &Scenario, partition: Partition) -> Timestamp {
        let closed_through = |partition: &Partition| self.closed_through.get(partition).copied().unwrap_or_default();
        match scenario.keyed {
            true => closed_through(&partition),
            false => self.closed_through.keys().map(closed_through).min().unwrap_or_default(),
        }
    }

    /// Compares with what is committed.
    pub(crate) fn check(&self, scenario: &Scenario, clicks: &Clicks, audit: &Audit) {
        assert_eq!(audit.dead, self.dead, "the dead-letter topic");
        assert_eq!(audit.late, self.late, "the late topic");
        let all = self.counted + self.filtered + audit.late.len() + audit.dead.len();
        assert_eq!(clicks.count(), all, "counted + filtered + late + dead-lettered");
        for partition in audit.partitions_of(&scenario.changelog()) {
            let expected = self.kept.get(&partition).cloned().unwrap_or_default();
            let kept = audit.kept.get(&partition).cloned().unwrap_or_default();
            assert_eq!(kept, expected, "the changelog of partition {partition}");
            self.check_closed(scenario, audit, partition, &expected);
        }
        for (input, position) in &audit.positions {
            assert!(!position.is_joining, "{input} still waits to be counted");
        }
    }

    fn check_closed(&self, scenario: &Scenario, audit: &Audit, partition: Partition, kept: &Aggregates) {
        let closed_through = audit.closed_through(partition);
        if scenario.idle_timeout.is_none() {
            assert_eq!(closed_through, self.store_closed_through(scenario, partition), "closed_through of partition {partition}");
        }
        let mut expected: BTreeMap<Timestamp, ClosedWindow> = BTreeMap::new();
        for ((start, ad), row) in kept {
            if scenario.windows.end_of(*start) <= closed_through {
                let window = expected.entry(*start).or_default();
                window.has_ended = true;
                window.rows.insert(ad.clone(), *row);
            }
        }
        let closed = audit.closed.get(&partition).cloned().unwrap_or_default();
        assert_eq!(closed, expected, "the final windows of partition {partition}");
        let input = TopicPartition::new(scenario.aggregate_input(), partition);
        let emitted = audit.positions.get(&input).map_or(Timestamp(0), |position| position.emitted_through);
        assert_eq!(emitted, closed_through, "how far partition {partition} has sent its final windows");
    }
}
