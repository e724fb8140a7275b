use super::TimeWindows;
use crate::record::Timestamp;

/// How far event time has come in one source partition, and so which windows can no longer change there.
///
/// A record is late when the end of its window + grace is at or before the stream time of its own source partition. That is
/// the case exactly when the window ends at or before `closed_through`, which is why lateness, watermarks and closing all
/// rest on this one number. It never falls, whatever grace is configured later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceProgress {
    windows: TimeWindows,
    stream_time: Option<Timestamp>,
    closed_through: Timestamp,
    next_close_at: i64,
}

impl SourceProgress {
    /// Progress as it was persisted: no stream time before the first record, `closed_through` zero where nothing is closed.
    pub fn new(windows: TimeWindows, stream_time: Option<Timestamp>, closed_through: Timestamp) -> Self {
        let mut progress = Self { windows, stream_time, closed_through, next_close_at: i64::MIN };
        progress.close();
        progress
    }

    /// The largest event time seen.
    pub fn stream_time(&self) -> Option<Timestamp> {
        self.stream_time
    }

    /// The end of the last window that is closed here; zero where none is.
    #[inline]
    pub fn closed_through(&self) -> Timestamp {
        self.closed_through
    }

    /// Takes note of a record's event time (not negative).
    #[inline]
    pub fn observe(&mut self, timestamp: Timestamp) {
        if self.stream_time.is_none_or(|seen| seen < timestamp) {
            self.stream_time = Some(timestamp);
            if timestamp.0 >= self.next_close_at {
                self.close();
            }
        }
    }

    /// Closes windows that this partition's own records have not closed: an idle partition follows the others.
    pub fn raise_closed_through(&mut self, to: Timestamp) {
        self.closed_through = self.closed_through.max(to);
    }

    /// Whether a record in the window with that end is late.
    #[inline]
    pub fn is_late(&self, window_end: Timestamp) -> bool {
        window_end <= self.closed_through
    }

    fn close(&mut self) {
        let Some(stream_time) = self.stream_time else { return };
        let reached = self.windows.closed_through(stream_time);
        self.closed_through = self.closed_through.max(reached);
        self.next_close_at = reached.0.saturating_add(self.windows.size_ms()).saturating_add(self.windows.grace_ms());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    proptest! {
        /// The naive model keeps every event and applies the definition of late to each.
        #[test]
        fn lateness_is_the_definition(
            size in 1u64..20,
            grace in 0u64..40,
            times in prop::collection::vec(0i64..300, 1..80),
            restart_at in 0usize..80,
        ) {
            let windows = TimeWindows::of_size_and_grace(Duration::from_millis(size), Duration::from_millis(grace));
            let mut progress = SourceProgress::new(windows, None, Timestamp(0));
            let mut seen: Vec<i64> = Vec::new();
            for (i, &ts) in times.iter().enumerate() {
                if i == restart_at {
                    progress = SourceProgress::new(windows, progress.stream_time(), progress.closed_through());
                }
                let end = windows.end_of(windows.start_of(Timestamp(ts)));
                let late = seen.iter().max().is_some_and(|&stream_time| end.0 + grace as i64 <= stream_time);
                prop_assert_eq!(progress.is_late(end), late);
                progress.observe(Timestamp(ts));
                seen.push(ts);
            }
        }

        #[test]
        fn closed_through_never_falls_with_another_grace(ts in 0i64..10_000, before in 0u64..500, after in 0u64..500) {
            let windows = |grace| TimeWindows::of_size_and_grace(Duration::from_millis(10), Duration::from_millis(grace));
            let mut progress = SourceProgress::new(windows(before), None, Timestamp(0));
            progress.observe(Timestamp(ts));
            let restarted = SourceProgress::new(windows(after), progress.stream_time(), progress.closed_through());
            prop_assert!(restarted.closed_through() >= progress.closed_through());
        }
    }
}
