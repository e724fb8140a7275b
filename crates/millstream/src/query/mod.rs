//! Interactive queries: counts of committed data, each with what it rests on.

mod counts;
mod lag;
mod lists;
mod merge;
mod part;
mod router;
mod sums;
mod top;
mod view;

pub use counts::{Counts, ReadLease};
pub use part::{Ask, Part, PartialCounts, Parts, Question, Standing};
pub use router::{Next, Request, RequestId, Router, RouterLimits};
pub use view::{Holders, InstanceStatus, TaskReport};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::broker::BrokerError;
use crate::partitioner::partition_for_key;
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

/// A partition that a standby or a restoring copy answered for, or an owner who could not be sure that it still was one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StalePartition {
    /// The partition of the store.
    pub partition: Partition,
    /// How many changelog records the copy was behind; none where that is not known.
    pub lag: Option<u64>,
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

impl ReadOptions {
    /// Whether a copy may answer that is so far behind. One of which that is not known is not taken where it matters.
    pub fn takes_copy(&self, lag: Option<u64>) -> bool {
        self.allow_stale && self.max_stale_records.is_none_or(|most| lag.is_some_and(|lag| lag <= most))
    }
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
///
/// What an instance has of an answer comes from [`CountQueries::parts`], and [`CountQueries::conclude`] makes one answer of what one or several of them
/// have. Where there is but one instance, the other methods do both.
pub trait CountQueries: Send + Sync + 'static {
    /// The windows counted in.
    fn windows(&self) -> TimeWindows;

    /// How many partitions the store has.
    fn partitions(&self) -> u32;

    /// The earliest `from` that can be answered in full: min(now, largest closed_through) − retention. None before the first
    /// record: then nothing is too early.
    fn earliest(&self, now: Timestamp) -> Option<Timestamp>;

    /// Counts of those of the partitions asked for that this instance may answer for. May have to read all rows of the period for the top keys,
    /// unless it is cancelled.
    fn parts(&self, ask: &Ask, cancellation: &Cancellation) -> Result<Parts, QueryError>;

    /// Adds to what an answer rests on what only the broker knows: lag and stream time, and what it waits for.
    fn put_lag(&self, completeness: &mut Completeness, asked: &[Partition]) -> Result<(), QueryError>;

    /// The partitions that have to answer a question.
    fn partitions_for(&self, question: &Question) -> Vec<Partition> {
        match question {
            Question::Key { key, .. } => vec![partition_for_key(key, self.partitions())],
            Question::Top { .. } | Question::Totals { .. } => (0..self.partitions()).map(Partition).collect(),
        }
    }

    /// The answer that all these parts make, no partition of which is in two of them.
    ///
    /// # Errors
    /// [`QueryError::Incomplete`] where partitions are missing and that was not allowed.
    fn conclude(
        &self,
        question: &Question,
        asked: &[Partition],
        read: ReadOptions,
        answers: Vec<Parts>,
    ) -> Result<Answer<PartialCounts>, QueryError> {
        let mut completeness = merge::completeness(asked, &answers);
        self.put_lag(&mut completeness, asked)?;
        if !completeness.missing.is_empty() && !read.allow_partial {
            return Err(QueryError::Incomplete(Box::new(completeness)));
        }
        Ok(Answer { value: merge::counts(question, answers), completeness })
    }

    /// This instance's own answer.
    fn answer(
        &self,
        question: Question,
        read: ReadOptions,
        cancellation: &Cancellation,
    ) -> Result<Answer<PartialCounts>, QueryError> {
        let ask = Ask { partitions: self.partitions_for(&question), question, read };
        let parts = self.parts(&ask, cancellation)?;
        self.conclude(&ask.question, &ask.partitions, read, vec![parts])
    }

    /// One key's windows within the period, ascending, those without a count left out.
    fn fetch(&self, key: &[u8], period: Period, read: ReadOptions) -> Result<Answer<Vec<WindowCount>>, QueryError> {
        let question = Question::Key { key: key.to_vec(), period };
        Ok(self.answer(question, read, &Cancellation::default())?.into_windows(self.windows()))
    }

    /// The `limit` keys with the largest counts over the period, exact: largest count first, equal counts by key ascending. May have to
    /// read all rows of the period, unless it is cancelled.
    fn top(
        &self,
        period: Period,
        limit: usize,
        read: ReadOptions,
        cancellation: &Cancellation,
    ) -> Result<Answer<Vec<KeyCount>>, QueryError> {
        Ok(self.answer(Question::Top { period, limit }, read, cancellation)?.into_keys())
    }

    /// All keys together, by window, ascending, those without a count left out.
    fn totals(&self, period: Period, read: ReadOptions) -> Result<Answer<Vec<WindowCount>>, QueryError> {
        Ok(self.answer(Question::Totals { period }, read, &Cancellation::default())?.into_windows(self.windows()))
    }
}

impl Answer<PartialCounts> {
    /// The windows with a count, ascending. (None of an answer about keys.)
    pub fn into_windows(self, windows: TimeWindows) -> Answer<Vec<WindowCount>> {
        let final_until = self.completeness.final_until.unwrap_or_default();
        let counts = if let PartialCounts::Windows(counts) = self.value { counts } else { Vec::new() };
        let window = |(start, count)| {
            let end = windows.end_of(start);
            WindowCount { start, end, count, is_final: end <= final_until }
        };
        let value = counts.into_iter().filter(|(_, count)| *count != 0).map(window).collect();
        Answer { value, completeness: self.completeness }
    }

    /// The keys, largest count first. (None of an answer about windows.)
    pub fn into_keys(self) -> Answer<Vec<KeyCount>> {
        let value = if let PartialCounts::Keys(keys) = self.value { keys } else { Vec::new() };
        Answer { value, completeness: self.completeness }
    }
}
