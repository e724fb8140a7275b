//! What an aggregate is counted with, for life. It is committed beside every position, so that another window size is noticed
//! wherever the local state has gone, and before anything is read under it.

use std::collections::BTreeMap;

use super::metadata::OffsetMetadata;
use crate::broker::{Broker, BrokerError, ErrorKind};
use crate::record::TopicPartition;

const WINDOW_SIZE: &str = "clickmill.window_size";
const KEYED: &str = "clickmill.keyed";

/// The settings that cannot change once something was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountedWith {
    /// The length of a window.
    pub window_size_ms: i64,
    /// Whether the source is keyed by the grouping key.
    pub keyed: bool,
}

impl CountedWith {
    /// What the group has counted these partitions with, as its positions say; none of a position that does not say.
    ///
    /// # Errors
    /// Where the broker cannot tell; [`ErrorKind::Stop`] where a position's metadata cannot be read.
    pub fn of_positions<B: Broker>(broker: &B, group: &str, inputs: &[TopicPartition]) -> Result<Vec<Self>, BrokerError> {
        let mut all = Vec::new();
        // While others commit, hardly ever is no position about to change, and what they are counted with does not.
        for committed in broker.committed_so_far(group, inputs)?.into_iter().flatten() {
            let metadata = OffsetMetadata::decode(&committed.metadata)
                .map_err(|invalid| BrokerError::new(ErrorKind::Stop, invalid.to_string()))?;
            all.extend(Self::from_entries(&metadata.entries));
        }
        Ok(all)
    }

    /// What a position was committed with; none where it does not say (Kafka Streams' own).
    pub(crate) fn from_entries(entries: &BTreeMap<String, i64>) -> Option<Self> {
        Some(Self { window_size_ms: *entries.get(WINDOW_SIZE)?, keyed: *entries.get(KEYED)? != 0 })
    }

    pub(crate) fn put_entries(self, entries: &mut BTreeMap<String, i64>) {
        entries.insert(WINDOW_SIZE.to_owned(), self.window_size_ms);
        entries.insert(KEYED.to_owned(), i64::from(self.keyed));
    }

    /// Why something counted with `self` cannot be counted on with `now`, if so.
    pub(crate) fn conflict(self, now: CountedWith) -> Option<String> {
        let way_out = "give the setting back, or count under another application id";
        if self.window_size_ms != now.window_size_ms {
            let (before, now) = (self.window_size_ms, now.window_size_ms);
            return Some(format!("it was counted in windows of {before} ms, the configuration says {now} ms: {way_out}"));
        }
        (self.keyed != now.keyed).then(|| {
            let (before, now) = (self.keyed, now.keyed);
            format!("it was counted with a source keyed by the grouping key: {before}, the configuration says {now}: {way_out}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_with_is_read_back_and_compared() {
        let counted = CountedWith { window_size_ms: 300_000, keyed: false };
        let mut entries = BTreeMap::new();
        assert_eq!(CountedWith::from_entries(&entries), None);
        counted.put_entries(&mut entries);
        assert_eq!(CountedWith::from_entries(&entries), Some(counted));
        assert_eq!(counted.conflict(counted), None);
        let size = counted.conflict(CountedWith { window_size_ms: 600_000, ..counted }).unwrap();
        assert!(size.contains("300000 ms") && size.contains("600000 ms"), "{size}");
        assert!(counted.conflict(CountedWith { keyed: true, ..counted }).unwrap().contains("false"));
    }
}
