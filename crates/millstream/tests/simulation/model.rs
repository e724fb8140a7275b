//! The naive model: it keeps every click and applies the definitions to each.

use std::collections::{BTreeMap, BTreeSet};

use millstream::partitioner::partition_for_key;
use millstream::record::{Offset, Partition, Timestamp, TopicPartition};

use crate::audit::{Audit, ClosedWindow, Counts};
use crate::clicks::{Click, Clicks};
use crate::scenario::{CLICKS, Scenario};

/// What must have become of the clicks.
pub(crate) struct Expected {
    pub(crate) counts: BTreeMap<Partition, Counts>,
    pub(crate) late: BTreeSet<(Partition, Offset)>,
    pub(crate) dead: BTreeSet<(Partition, Offset)>,
    /// How far each source partition's own clicks have closed, beyond what it began with.
    closed_through: BTreeMap<Partition, Timestamp>,
}

impl Expected {
    /// Decides from the order of the log what is late, and from how far a partition had closed by falling idle when it was read: that was
    /// committed before.
    pub(crate) fn of(scenario: &Scenario, clicks: &Clicks, audit: &Audit) -> Self {
        let (late, dead, counts) = Default::default();
        let mut expected = Self { late, dead, counts, closed_through: BTreeMap::new() };
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
        for Click { offset, timestamp, ad } in sent {
            let Some(ad) = ad else {
                self.dead.insert((partition, *offset));
                continue;
            };
            let start = scenario.windows.start_of(*timestamp);
            let end = scenario.windows.end_of(start);
            let by_order = end <= joined_at || seen.is_some_and(|seen| end.0 + scenario.windows.grace_ms() <= seen.0);
            let by_idling = end <= audit.idled_through(partition, *offset);
            seen = seen.max(Some(*timestamp));
            if by_order || by_idling {
                self.late.insert((partition, *offset));
                continue;
            }
            let kept_in = if scenario.keyed { partition } else { partition_for_key(ad.as_bytes(), partitions) };
            *self.counts.entry(kept_in).or_default().entry((start, ad.clone())).or_default() += 1;
        }
        let own = seen.map_or(Timestamp(0), |seen| scenario.windows.closed_through(seen));
        self.closed_through.insert(partition, own.max(joined_at));
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
        let counted: i64 = self.counts.values().flat_map(Counts::values).sum();
        assert_eq!(clicks.count(), counted as usize + audit.late.len() + audit.dead.len(), "counted + late + dead-lettered");
        for partition in audit.partitions_of(&scenario.changelog()) {
            let expected = self.counts.get(&partition).cloned().unwrap_or_default();
            let counts = audit.counts.get(&partition).cloned().unwrap_or_default();
            assert_eq!(counts, expected, "the changelog of partition {partition}");
            self.check_closed(scenario, audit, partition, &expected);
        }
        for (input, position) in &audit.positions {
            assert!(!position.is_joining, "{input} still waits to be counted");
        }
    }

    fn check_closed(&self, scenario: &Scenario, audit: &Audit, partition: Partition, counts: &Counts) {
        let closed_through = audit.closed_through(partition);
        if scenario.idle_timeout.is_none() {
            assert_eq!(closed_through, self.store_closed_through(scenario, partition), "closed_through of partition {partition}");
        }
        let mut expected: BTreeMap<Timestamp, ClosedWindow> = BTreeMap::new();
        for ((start, ad), count) in counts {
            if scenario.windows.end_of(*start) <= closed_through {
                let window = expected.entry(*start).or_default();
                window.has_ended = true;
                window.rows.insert(ad.clone(), *count);
            }
        }
        let closed = audit.closed.get(&partition).cloned().unwrap_or_default();
        assert_eq!(closed, expected, "the final windows of partition {partition}");
        let input = TopicPartition::new(scenario.aggregate_input(), partition);
        let emitted = audit.positions.get(&input).map_or(Timestamp(0), |position| position.emitted_through);
        assert_eq!(emitted, closed_through, "how far partition {partition} has sent its final windows");
    }
}
