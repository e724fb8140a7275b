//! Whether a membership still holds, for whoever has to know at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::BootTime;

/// When the group last confirmed a membership, by the moment at which it was asked. Shared by the line to the coordinator, which notes it, and whoever asks.
#[derive(Debug, Clone, Default)]
pub struct Confirmation(Arc<AtomicU64>);

impl Confirmation {
    /// A request that was sent then was answered as a member's are.
    pub fn confirm(&self, sent: BootTime) {
        self.0.fetch_max(sent.as_millis(), Ordering::AcqRel);
    }

    /// The membership is over.
    pub fn withdraw(&self) {
        self.0.store(0, Ordering::Release);
    }

    /// When it was confirmed; none where there is no membership.
    pub fn at(&self) -> Option<BootTime> {
        Some(self.0.load(Ordering::Acquire)).filter(|millis| *millis > 0).map(BootTime::of_millis)
    }
}
