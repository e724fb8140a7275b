//! What an aggregate is counted with, for life. It is committed beside every position, so that another window size is noticed
//! wherever the local state has gone, and before anything is read under it.

use std::collections::BTreeMap;

const WINDOW_SIZE: &str = "clickmill.window_size";
const KEYED: &str = "clickmill.keyed";

/// The settings that cannot change once something was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CountedWith {
    pub(crate) window_size_ms: i64,
    /// Whether the source is keyed by the grouping key.
    pub(crate) keyed: bool,
}

impl CountedWith {
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
