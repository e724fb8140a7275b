//! Tumbling windows: fixed size, aligned to the epoch, each timestamp in exactly one.

use std::time::Duration;

use crate::record::Timestamp;

/// Tumbling windows of a size, with a grace: how long after its end a window still takes late events.
///
/// The arithmetic is that of Kafka Streams' `TimeWindows.windowsFor`: a window starts at `ts - ts mod size`, for `ts >= 0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeWindows {
    size_ms: i64,
    grace_ms: i64,
}

/// Why a size and a grace make no windows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWindows {
    /// A window must be at least one millisecond long.
    #[error("the window size is {0:?}: it must be at least 1 ms")]
    Size(Duration),
    /// Size and grace must fit a timestamp together.
    #[error("window size {0:?} and grace {1:?} are too long together")]
    TooLong(Duration, Duration),
}

impl TimeWindows {
    /// Windows of `size`, each open for events up to `grace` of stream time after its end. Whole milliseconds count.
    ///
    /// # Errors
    /// Where the size is below a millisecond, or both together exceed 100 years.
    pub fn try_new(size: Duration, grace: Duration) -> Result<Self, InvalidWindows> {
        const LONGEST_MS: u128 = 100 * 366 * 24 * 3_600_000;
        if size.as_millis() == 0 {
            return Err(InvalidWindows::Size(size));
        }
        if size.as_millis() + grace.as_millis() > LONGEST_MS {
            return Err(InvalidWindows::TooLong(size, grace));
        }
        Ok(Self { size_ms: size.as_millis() as i64, grace_ms: grace.as_millis() as i64 })
    }

    /// [`TimeWindows::try_new`] for constants.
    ///
    /// # Panics
    /// Where that gives an error.
    pub fn of_size_and_grace(size: Duration, grace: Duration) -> Self {
        match Self::try_new(size, grace) {
            Ok(windows) => windows,
            Err(invalid) => panic!("{invalid}"),
        }
    }

    /// Windows that close at their end.
    ///
    /// # Panics
    /// As [`TimeWindows::of_size_and_grace`].
    pub fn of_size_with_no_grace(size: Duration) -> Self {
        Self::of_size_and_grace(size, Duration::ZERO)
    }

    /// The length of a window in milliseconds, at least 1.
    pub fn size_ms(&self) -> i64 {
        self.size_ms
    }

    /// The grace in milliseconds.
    pub fn grace_ms(&self) -> i64 {
        self.grace_ms
    }

    /// The start of the window that a timestamp (not negative) falls into.
    #[inline]
    pub fn start_of(&self, timestamp: Timestamp) -> Timestamp {
        Timestamp(timestamp.0 - timestamp.0 % self.size_ms)
    }

    /// The end of the window with that start: the first timestamp after it.
    #[inline]
    pub fn end_of(&self, start: Timestamp) -> Timestamp {
        Timestamp(start.0.saturating_add(self.size_ms))
    }

    /// The end of the last window that is closed at that stream time: no window that ends at or before it takes events any more.
    /// Zero where none is closed yet.
    #[inline]
    pub fn closed_through(&self, stream_time: Timestamp) -> Timestamp {
        let reached = stream_time.0.saturating_sub(self.grace_ms).max(0);
        Timestamp(reached - reached % self.size_ms)
    }

    /// The period widened to whole windows, as (start of the first, end of the last).
    pub fn widen(&self, from: Timestamp, to: Timestamp) -> (Timestamp, Timestamp) {
        let floor = from.0.saturating_sub(from.0.rem_euclid(self.size_ms));
        let over = to.0.rem_euclid(self.size_ms);
        let ceil = if over == 0 { to.0 } else { (to.0 - over).saturating_add(self.size_ms) };
        (Timestamp(floor), Timestamp(ceil))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn windows(size: u64, grace: u64) -> TimeWindows {
        TimeWindows::of_size_and_grace(Duration::from_millis(size), Duration::from_millis(grace))
    }

    #[test]
    fn refuses_what_is_no_window() {
        assert!(matches!(TimeWindows::try_new(Duration::ZERO, Duration::ZERO), Err(InvalidWindows::Size(_))));
        let long = Duration::from_secs(u64::MAX / 4);
        assert!(matches!(TimeWindows::try_new(long, long), Err(InvalidWindows::TooLong(..))));
    }

    proptest! {
        #[test]
        fn each_timestamp_is_in_one_window(size in 1u64..10_000, ts in 0i64..i64::MAX / 2) {
            let windows = windows(size, 0);
            let start = windows.start_of(Timestamp(ts));
            prop_assert!(start.0 <= ts && ts < windows.end_of(start).0);
            prop_assert_eq!(start.0 % size as i64, 0);
        }

        /// closed_through says of every window what the definition says: closed when end + grace <= stream time.
        #[test]
        fn closed_through_is_the_definition(size in 1u64..50, grace in 0u64..200, stream_time in 0i64..2_000, index in 0i64..60) {
            let windows = windows(size, grace);
            let end = (index + 1) * size as i64;
            let closed = end + grace as i64 <= stream_time;
            prop_assert_eq!(end <= windows.closed_through(Timestamp(stream_time)).0, closed);
        }

        #[test]
        fn widening_covers_and_is_aligned(size in 1u64..1_000, from in -5_000i64..5_000, length in 1i64..5_000) {
            let windows = windows(size, 0);
            let (start, end) = windows.widen(Timestamp(from), Timestamp(from + length));
            prop_assert!(start.0 <= from && end.0 >= from + length);
            prop_assert!(from - start.0 < size as i64 && end.0 - (from + length) < size as i64);
            prop_assert_eq!((start.0.rem_euclid(size as i64), end.0.rem_euclid(size as i64)), (0, 0));
        }
    }
}
