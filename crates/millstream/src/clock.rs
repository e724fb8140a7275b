//! Where time comes from: whoever runs the library hands a clock in.

use std::sync::atomic::{AtomicI64, Ordering};

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
