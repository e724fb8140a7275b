//! Where time comes from: whoever runs the library hands a clock in.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::record::Timestamp;

/// A clock that tells the time of day.
pub trait Clock: Send + Sync + 'static {
    /// The time now. It may be set back between two calls, as a machine's clock may.
    fn now(&self) -> Timestamp;
}

/// A clock that stands still until it is moved: for tests and the simulation.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that shows that time.
    pub fn new(now: Timestamp) -> Self {
        Self(AtomicI64::new(now.0))
    }

    /// Moves the clock on by so many milliseconds (back, where negative).
    pub fn advance_ms(&self, by: i64) {
        self.0.fetch_add(by, Ordering::SeqCst);
    }

    /// Sets the clock.
    pub fn set(&self, now: Timestamp) {
        self.0.store(now.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

/// A moment, by a clock of the machine that nobody sets and that goes on while it sleeps. Moments of different machines have nothing to do with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootTime(Duration);

impl std::ops::Add<Duration> for BootTime {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }
}

impl BootTime {
    /// That many milliseconds after the clock began.
    pub fn of_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// How many milliseconds after the clock began that is.
    pub fn as_millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }

    /// How much later it is than that; zero where it is earlier.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}
