//! Answers to questions for counts, as they are written.

use millstream::query::{Completeness, KeyCount, Period, WindowCount};
use serde::Serialize;
use utoipa::ToSchema;

use super::time::Time;

/// One ad's clicks in a period.
#[derive(Serialize, ToSchema)]
pub(super) struct AdClicks {
    /// The ad.
    pub(super) ad_id: String,
    #[serde(flatten)]
    pub(super) clicks: Clicks,
}

/// The clicks in a period.
#[derive(Serialize, ToSchema)]
pub(super) struct Clicks {
    /// The start of the period, on a window boundary.
    from: Time,
    /// The end of the period, exclusive, on a window boundary.
    to: Time,
    /// The clicks in all of it.
    clicks: i64,
    /// Its windows, ascending; those with no click are left out.
    windows: Vec<Window>,
    completeness: CompletenessBody,
}

/// A window and its clicks.
#[derive(Serialize, ToSchema)]
struct Window {
    start: Time,
    /// The end, exclusive.
    end: Time,
    clicks: i64,
    /// Whether no further click can change it.
    r#final: bool,
}

/// The most clicked ads of a period.
#[derive(Serialize, ToSchema)]
pub(super) struct TopAds {
    /// The start of the period, on a window boundary.
    from: Time,
    /// The end of the period, exclusive, on a window boundary.
    to: Time,
    /// Most clicks first, equal counts by ad id ascending (bytewise).
    ads: Vec<RankedAd>,
    completeness: CompletenessBody,
}

/// An ad in its place.
#[derive(Serialize, ToSchema)]
struct RankedAd {
    /// Its place, from 1.
    rank: usize,
    ad_id: String,
    clicks: i64,
}

/// What an answer rests on.
#[derive(Serialize, ToSchema)]
#[schema(as = Completeness)]
struct CompletenessBody {
    /// Whether all partitions answered, none of them from a copy.
    complete: bool,
    /// How many partitions the store has.
    partitions: u32,
    /// How many of them answered.
    answered: u32,
    /// Partitions that nobody answered for.
    missing: Vec<u32>,
    /// Partitions that a standby or a copy still restoring answered for.
    stale: Vec<Stale>,
    /// Records not yet counted that the answer could still miss.
    max_lag: u64,
    /// How long ago the lag was heard, in milliseconds.
    lag_age_ms: u64,
    /// The smallest stream time of the sources; null before the first click.
    stream_time: Option<Time>,
    /// Every window that ends at or before it is final, listed or not; null where none is.
    final_until: Option<Time>,
    /// What the answer waits for that will not end by itself soon, such as an open transaction of another producer; absent where there is
    /// nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
}

/// A partition that a copy answered for.
#[derive(Serialize, ToSchema)]
struct Stale {
    partition: u32,
    /// How many changelog records the copy is behind; null where that is not known.
    lag: Option<u64>,
}

impl Clicks {
    pub(super) fn new(period: Period, windows: Vec<WindowCount>, completeness: Completeness) -> Self {
        let clicks = windows.iter().map(|window| window.count).sum();
        let windows = windows
            .into_iter()
            .map(|w| Window { start: Time(w.start), end: Time(w.end), clicks: w.count, r#final: w.is_final })
            .collect();
        Self { from: Time(period.from), to: Time(period.to), clicks, windows, completeness: completeness.into() }
    }
}

impl TopAds {
    pub(super) fn new(period: Period, ads: Vec<KeyCount>, completeness: Completeness) -> Self {
        let ads = ads
            .into_iter()
            .zip(1..)
            .map(|(ad, rank)| RankedAd { rank, ad_id: String::from_utf8_lossy(&ad.key).into_owned(), clicks: ad.count })
            .collect();
        Self { from: Time(period.from), to: Time(period.to), ads, completeness: completeness.into() }
    }
}

impl From<Completeness> for CompletenessBody {
    fn from(completeness: Completeness) -> Self {
        Self {
            complete: completeness.is_complete(),
            partitions: completeness.partitions,
            answered: completeness.answered,
            missing: completeness.missing.iter().map(|partition| partition.0).collect(),
            stale: completeness.stale.iter().map(|stale| Stale { partition: stale.partition.0, lag: stale.lag }).collect(),
            max_lag: completeness.max_lag,
            lag_age_ms: completeness.lag_age_ms,
            stream_time: completeness.stream_time.map(Time),
            final_until: completeness.final_until.map(Time),
            trouble: completeness.trouble,
        }
    }
}
