//! When clicks happen (event time), and when they are sent.

use std::time::Duration;

/// The event time of each click.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum EventTimes {
    /// The moment at which it is generated.
    Live,
    /// Evenly spaced from a start on.
    Spaced {
        /// The first click's, in milliseconds since the epoch.
        start_ms: i64,
        /// From one click to the next, in milliseconds.
        step_ms: f64,
    },
}

impl EventTimes {
    /// The event time of a click, counted from 0, where `now_ms` is the moment of its generation.
    pub fn at(&self, click: u64, now_ms: i64) -> i64 {
        match self {
            EventTimes::Live => now_ms,
            EventTimes::Spaced { start_ms, step_ms } => start_ms + (click as f64 * step_ms) as i64,
        }
    }
}

/// How many clicks go out together, and when.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Clicks a second; none is as fast as possible.
    pub rate: Option<f64>,
}

impl Pace {
    /// At full speed: enough for the cost of a request to vanish beside that of its clicks.
    const LARGEST_BATCH: u64 = 5_000;
    /// At a given rate a batch holds the clicks of a tenth of a second.
    const BATCHES_PER_SECOND: f64 = 10.0;

    /// How many clicks go out together.
    pub fn batch(&self) -> u64 {
        let clicks = self.rate.map_or(Self::LARGEST_BATCH, |rate| (rate / Self::BATCHES_PER_SECOND) as u64);
        clicks.clamp(1, Self::LARGEST_BATCH)
    }

    /// How long after the first click the one with this number, counted from 0, is due.
    pub fn due(&self, click: u64) -> Duration {
        self.rate.map_or(Duration::ZERO, |rate| Duration::try_from_secs_f64(click as f64 / rate).unwrap_or(Duration::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_times_are_live_or_evenly_spaced() {
        assert_eq!(EventTimes::Live.at(7, 1_000), 1_000);
        let spaced = EventTimes::Spaced { start_ms: 5_000, step_ms: 0.5 };
        assert_eq!([0, 1, 2, 3].map(|click| spaced.at(click, 1_000)), [5_000, 5_000, 5_001, 5_001]);
    }

    #[test]
    fn a_batch_is_a_tenth_of_a_second() {
        let pace = |rate| Pace { rate: Some(rate) };
        assert_eq!([0.5, 10.0, 1_000.0, 1e9].map(|rate| pace(rate).batch()), [1, 1, 100, 5_000]);
        assert_eq!(pace(1_000.0).due(500), Duration::from_millis(500));
        assert_eq!(Pace { rate: None }.due(1 << 60), Duration::ZERO);
    }
}
