//! How far the source partitions have closed, as far as an aggregate task has heard, and how that is committed.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::record::{Partition, Timestamp};
use crate::varint::{put_unsigned, take_unsigned};

/// The name of the entry begins with this.
const SOURCES: &str = "clickmill.sources.";

const NEVER_HEARD: i64 = -1;
const NOTHING_CLOSED: i64 = 0;

/// The source partitions that an aggregate task has to hear from, and how far each has closed: zero where nothing is closed,
/// −1 where it was never heard of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sources(BTreeMap<Partition, i64>);

impl Sources {
    /// All partitions that the source topic has at the first start.
    pub(crate) fn first(partitions: u32) -> Self {
        Self((0..partitions).map(|p| (Partition(p), NEVER_HEARD)).collect())
    }

    /// Those that were committed; none where they are written in a way that is not known.
    pub(crate) fn from_entries(entries: &BTreeMap<String, i64>) -> Option<Self> {
        let Some((packed, least)) = entries.iter().find_map(|(name, value)| Some((name.strip_prefix(SOURCES)?, *value))) else {
            return Some(Self::default());
        };
        let bytes = URL_SAFE_NO_PAD.decode(packed).ok()?;
        let mut rest = bytes.as_slice();
        let unit = i64::try_from(take_unsigned(&mut rest)?).ok()?;
        let mut sources = BTreeMap::new();
        for partition in 0.. {
            if rest.is_empty() {
                break;
            }
            let closed_through = match take_unsigned(&mut rest)? {
                0 => continue,
                1 => NEVER_HEARD,
                2 => NOTHING_CLOSED,
                steps => least.checked_add(i64::try_from(steps - 3).ok()?.checked_mul(unit)?)?,
            };
            sources.insert(Partition(partition), closed_through);
        }
        Some(Self(sources))
    }

    /// Puts them in place of those that are there: one entry, whose value is the least closed_through and whose name holds by how many
    /// windows each is ahead of that. Brokers limit what stands beside an offset to 4,096 bytes by default: so there is room for a
    /// thousand partitions that are weeks apart.
    pub(crate) fn put_entries(&self, entries: &mut BTreeMap<String, i64>) {
        entries.retain(|name, _| !name.starts_with(SOURCES));
        let closed = || self.0.values().copied().filter(|closed_through| *closed_through > NOTHING_CLOSED);
        let least = closed().min().unwrap_or(0);
        // A whole number of windows, whatever their size.
        let unit = closed().fold(0, |unit, closed_through| greatest_common_divisor(unit, closed_through - least)).max(1);
        let mut bytes = Vec::new();
        put_unsigned(unit as u64, &mut bytes);
        for partition in 0..self.0.last_key_value().map_or(0, |(last, _)| last.0 + 1) {
            let code = match self.0.get(&Partition(partition)) {
                None => 0,
                Some(&NEVER_HEARD) => 1,
                Some(&NOTHING_CLOSED) => 2,
                Some(closed_through) => 3 + ((closed_through - least) / unit) as u64,
            };
            put_unsigned(code, &mut bytes);
        }
        entries.insert(format!("{SOURCES}{}", URL_SAFE_NO_PAD.encode(bytes)), least);
    }

    /// Whether none is known.
    pub(crate) fn are_none(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a source partition is among them.
    pub(crate) fn know(&self, source: Partition) -> bool {
        self.0.contains_key(&source)
    }

    /// Whether a watermark of a source partition has come.
    pub(crate) fn have_heard(&self, source: Partition) -> bool {
        self.0.get(&source).is_some_and(|closed_through| *closed_through > NEVER_HEARD)
    }

    /// The store's own closed_through: the smallest of the sources'; it only rises, for a new source begins at or above it.
    pub(crate) fn closed_through(&self) -> Timestamp {
        Timestamp(self.0.values().copied().min().unwrap_or(0).max(0))
    }

    pub(crate) fn heard(&mut self, source: Partition, closed_through: Timestamp) {
        let known = self.0.entry(source).or_insert(NEVER_HEARD);
        *known = closed_through.0.max(*known);
    }
}

fn greatest_common_divisor(mut a: i64, mut b: i64) -> i64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::metadata::OffsetMetadata;
    use proptest::prelude::*;

    const NOW: i64 = 1_760_000_000_000 / 300_000 * 300_000;

    fn closed_through() -> impl Strategy<Value = i64> {
        prop_oneof![Just(NEVER_HEARD), Just(NOTHING_CLOSED), (0i64..9_000).prop_map(|windows| NOW + windows * 300_000), 1i64..]
    }

    proptest! {
        #[test]
        fn what_is_committed_is_read_back(
            sources in prop::collection::btree_map((0u32..40).prop_map(Partition), closed_through(), 0..40),
            before in prop::collection::btree_map((0u32..40).prop_map(Partition), closed_through(), 0..40),
        ) {
            let mut entries = BTreeMap::from([("clickmill.closed_through".to_owned(), 7)]);
            Sources(before).put_entries(&mut entries);
            let sources = Sources(sources);
            sources.put_entries(&mut entries);
            prop_assert_eq!(Sources::from_entries(&entries), Some(sources));
            prop_assert_eq!(entries.len(), 2, "in place of what was there");
        }

        #[test]
        fn random_entries_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), value in any::<i64>(), text in ".*") {
            let read = |packed: &str| Sources::from_entries(&BTreeMap::from([(format!("{SOURCES}{packed}"), value)]));
            read(&URL_SAFE_NO_PAD.encode(bytes));
            read(&text);
        }
    }

    #[test]
    fn a_thousand_partitions_that_are_weeks_apart_have_room_beside_an_offset() {
        let weeks = 4 * 7 * 24 * 3_600_000;
        let sources = (0..1_000).map(|p| (Partition(p), NOW + i64::from(p) * 7_919 * 300_000 % weeks)).collect();
        let ours = ["closed_through", "window_size", "keyed", "emitted_through", "emitted_rows", "emitted_weight"];
        let mut entries: BTreeMap<_, _> = ours.iter().map(|name| (format!("clickmill.{name}"), NOW)).collect();
        Sources(sources).put_entries(&mut entries);
        let metadata = OffsetMetadata { stream_time: Some(Timestamp(NOW)), entries };
        assert!(metadata.encode().len() <= 4_096, "{}", metadata.encode().len());
    }

    #[test]
    fn the_bytes_are_those_of_the_documentation() {
        let mut entries = BTreeMap::new();
        let hour = 3_600_000;
        let closed = [(0, NOW), (1, NEVER_HEARD), (3, NOTHING_CLOSED), (4, NOW + 2 * hour), (5, NOW + 300 * hour)];
        Sources(closed.map(|(partition, closed_through)| (Partition(partition), closed_through)).into())
            .put_entries(&mut entries);
        // Two hours are 7,200,000 ms, the unit: 3 + 0, never heard of, unknown, nothing closed, 3 + 1, 3 + 150.
        let packed = URL_SAFE_NO_PAD.encode([0x80, 0xba, 0xb7, 0x03, 3, 1, 0, 2, 4, 0x99, 0x01]);
        assert_eq!(entries, BTreeMap::from([(format!("clickmill.sources.{packed}"), NOW)]));
    }
}
