//! Counts added up row by row.

use std::ops::ControlFlow;

use crate::record::Timestamp;
use crate::store::{Space, StoreError, StoreSnapshot, row};

/// Visits the rows of the windows that start in `from..to`, window by window, as (key, count).
pub(super) fn scan_counts(
    snapshot: &dyn StoreSnapshot,
    from: Timestamp,
    to: Timestamp,
    visit: &mut dyn FnMut(&[u8], i64),
) -> Result<(), StoreError> {
    let mut unreadable = None;
    snapshot.scan(Space::Rows, &row::first_key(from), &row::first_key(to), &mut |row_key, value| {
        let (Some((_, key)), Some(count)) = (row::split_key(row_key), row::decode_count(value)) else {
            unreadable = Some(row::unreadable(from, row_key));
            return ControlFlow::Break(());
        };
        visit(key, count);
        ControlFlow::Continue(())
    })?;
    unreadable.map_or(Ok(()), Err)
}
