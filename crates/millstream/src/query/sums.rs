//! Counts added up row by row.

use std::ops::ControlFlow;

use super::Cancellation;
use crate::record::Timestamp;
use crate::store::{Space, StoreError, StoreErrorKind, StoreSnapshot, row};

/// What a query may use that could read everything.
#[derive(Clone, Copy)]
pub(super) struct Means<'a> {
    /// How many bytes it may hold at once, roughly.
    pub(super) bytes: usize,
    pub(super) cancellation: &'a Cancellation,
}

impl Means<'_> {
    /// An error once the query is cancelled.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        match self.cancellation.is_cancelled() {
            true => Err(StoreError::new(StoreErrorKind::Retry, "the query was cancelled")),
            false => Ok(()),
        }
    }
}

/// Visits the rows between two row keys as (key, count), in order, until the visitor breaks.
pub(super) fn scan_counts(
    snapshot: &dyn StoreSnapshot,
    from: &[u8],
    to: &[u8],
    means: Means<'_>,
    visit: &mut dyn FnMut(&[u8], i64) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    let mut failed = None;
    snapshot.scan(Space::Rows, from, to, &mut |row_key, value| {
        if let Err(cancelled) = means.check() {
            failed = Some(cancelled);
            return ControlFlow::Break(());
        }
        let (Some((_, key)), Some(count)) = (row::split_key(row_key), row::decode_count(value)) else {
            let start = row::split_key(row_key).map_or(Timestamp(0), |(start, _)| start);
            failed = Some(row::unreadable(start, row_key));
            return ControlFlow::Break(());
        };
        visit(key, count)
    })?;
    failed.map_or(Ok(()), Err)
}
