//! Interactive queries: counts of committed data, each with what it rests on.

mod counts;
mod lag;
mod lists;
mod sums;
mod top;

pub use counts::Counts;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::broker::BrokerError;
use crate::record::{Offset, Partition, Timestamp};
use crate::store::StoreError;
use crate::time::TimeWindows;

/// A period of event time on window boundaries: `from` inclusive, `to` exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// The start of the first window.
    pub from: Timestamp,
    /// The end of the last window.
    pub to: Timestamp,
}

/// A window and its count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowCount {
    /// The window's start.
    pub start: Timestamp,
    /// The window's end, exclusive.
    pub end: Timestamp,
    /// The count, never zero in an answer.
    pub count: i64,
    /// Whether no further record can change it.
    pub is_final: bool,
}

/// A key and its count over a period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyCount {
    /// The key's bytes.
    pub key: Vec<u8>,
    /// The count, never zero in an answer.
    pub count: i64,
}

/// A partition that a standby or a restoring copy answered for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StalePartition {
    /// The partition of the store.
    pub partition: Partition,
    /// How many changelog records the copy was behind.
    pub lag: u64,
}

/// What an answer rests on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Completeness {
    /// How many partitions the store has.
    pub partitions: u32,
    /// How many of them answered.
    pub answered: u32,
    /// Those that did not.
    pub missing: Vec<Partition>,
    /// Those that a copy answered for.
    pub stale: Vec<StalePartition>,
    /// The position up to which each partition that answered has counted its input, at least; not for copies.
    pub positions: Vec<(Partition, Offset)>,
    /// Records not yet counted that the answer may miss, as last heard.
    pub max_lag: u64,
    /// How long ago the lag was heard, in milliseconds.
    pub lag_age_ms: u64,
    /// The smallest stream time of the sources known to the partitions answered; none before the first record.
    pub stream_time: Option<Timestamp>,
    /// Every window that ends at or before it is final; none where no window is.
    pub final_until: Option<Timestamp>,
    /// What the answer waits for that will not end by itself soon: an open transaction of another producer; none where there is none.
    pub trouble: Option<String>,
}

impl Completeness {
    /// Whether every partition answered, and none from a copy.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.stale.is_empty()
    }
}

/// An answer and what it rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<T> {
    /// What was asked for.
    pub value: T,
    /// What it rests on.
    pub completeness: Completeness,
}

/// What a reader is content with. By default: everything, from the active tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// Answer from the partitions there are, should some be missing.
    pub allow_partial: bool,
    /// Let standbys and restoring copies answer.
    pub allow_stale: bool,
    /// With `allow_stale`: refuse copies further behind than this many changelog records.
    pub max_stale_records: Option<u64>,
}

/// Ends a query that nobody waits for any more. Clones are one.
#[derive(Debug, Clone, Default)]
pub struct Cancellation(Arc<AtomicBool>);

impl Cancellation {
    /// Lets the query end soon, with an error.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it is to end.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// Some partitions have no copy here that may answer.
    #[error("partitions {:?} cannot answer now", .0.missing.iter().map(|p| p.0).collect::<Vec<_>>())]
    Incomplete(Box<Completeness>),
    /// What an answer would rest on is not known yet.
    #[error("how far counting is behind is not known yet: {0}")]
    LagUnknown(BrokerError),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Queries on a windowed count. All of them block on storage for as long as they take.
pub trait CountQueries: Send + Sync + 'static {
    /// The windows counted in.
    fn windows(&self) -> TimeWindows;

    /// The earliest `from` that can be answered in full: min(now, largest closed_through) − retention. None before the first
    /// record: then nothing is too early.
    fn earliest(&self, now: Timestamp) -> Option<Timestamp>;

    /// One key's windows within the period, ascending, those without a count left out.
    fn fetch(&self, key: &[u8], period: Period, read: ReadOptions) -> Result<Answer<Vec<WindowCount>>, QueryError>;

    /// The `limit` keys with the largest counts over the period, exact: largest count first, equal counts by key ascending. May have to
    /// read all rows of the period, unless it is cancelled.
    fn top(
        &self,
        period: Period,
        limit: usize,
        read: ReadOptions,
        cancellation: &Cancellation,
    ) -> Result<Answer<Vec<KeyCount>>, QueryError>;

    /// All keys together, by window, ascending, those without a count left out.
    fn totals(&self, period: Period, read: ReadOptions) -> Result<Answer<Vec<WindowCount>>, QueryError>;
}
