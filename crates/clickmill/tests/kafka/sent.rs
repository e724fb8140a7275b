//! What a writer has sent so far: no count can be larger.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::tally::SIZE_MS;

/// Of so many ads, those with the most clicks, the windows are known too.
const AD_WINDOWS_OF: u64 = 3;

/// Clicks by the start of their window.
pub(crate) type Windows = BTreeMap<i64, i64>;

/// Clicks as they can be asked for, by the numbers of ads.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sums {
    pub(crate) windows: Windows,
    pub(crate) ads: HashMap<u64, i64>,
    pub(crate) ad_windows: HashMap<u64, Windows>,
}

impl Sums {
    /// Adds clicks of an ad in a window.
    pub(crate) fn add(&mut self, ad: u64, window: i64, clicks: i64) {
        *self.windows.entry(window).or_default() += clicks;
        *self.ads.entry(ad).or_default() += clicks;
        if ad <= AD_WINDOWS_OF {
            *self.ad_windows.entry(ad).or_default().entry(window).or_default() += clicks;
        }
    }
}

/// Every click is in it before it is handed to the producer.
#[derive(Default)]
pub(crate) struct Sent(Mutex<Sums>);

impl Sent {
    pub(crate) fn note(&self, ad: u64, event_time: i64) {
        self.sums().add(ad, event_time / SIZE_MS * SIZE_MS, 1);
    }

    pub(crate) fn sums(&self) -> MutexGuard<'_, Sums> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number of an ad, by which the clicks of these tests name it.
pub(crate) fn number_of(ad: &str) -> u64 {
    ad.strip_prefix("ad-").and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{ad} is no ad of these tests"))
}
