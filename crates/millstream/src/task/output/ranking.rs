//! Ranking final windows, in bounded pieces between commits.
//!
//! Why a ranking never differs from its window: it is made when the window is final by what has committed and the store has taken all
//! of it, so the rows read are the last there will be. A crash takes the latest writes first, whatever they were, so a ranking that is
//! still there has all its rows beside it; the changelog behind the store's position holds nothing for the window. A store that is
//! rebuilt begins without rankings. Should a window change all the same, its totals no longer match, and the ranking is not used.

use crate::record::Timestamp;
use crate::store::best::Best;
use crate::store::window_store::WindowStore;
use crate::store::{StoreError, StoreErrorKind, ranking, row};
use crate::time::TimeWindows;

/// How many rows are read before others get their turn: a few milliseconds.
const ROWS_IN_A_PIECE: usize = 8_192;

/// The ranking of the windows of one store.
pub(crate) struct Ranking {
    /// How many rows of a window are listed; 0 ranks nothing.
    longest: usize,
    under_way: Option<UnderWay>,
    /// The store could not take or give something: the next commit tries again.
    is_postponed: bool,
}

struct UnderWay {
    start: Timestamp,
    last: Option<Vec<u8>>,
    candidates: Best,
}

impl Ranking {
    pub(crate) fn new(longest: usize) -> Self {
        Self { longest, under_way: None, is_postponed: false }
    }

    /// Where it was postponed, it goes on.
    pub(crate) fn resume(&mut self) {
        self.is_postponed = false;
    }

    /// Reads a piece of a final window, or ranks it where that was the last. The newest window comes first: it is asked for most.
    /// False where nothing is left to do for now.
    pub(crate) fn advance(
        &mut self,
        store: &mut WindowStore,
        windows: &TimeWindows,
        closed_through: Timestamp,
    ) -> Result<bool, StoreError> {
        if self.longest == 0 || self.is_postponed {
            return Ok(false);
        }
        let final_before = Timestamp(closed_through.0 - windows.size_ms() + 1);
        let next = || store.newest_unranked(final_before).map(|start| UnderWay::new(start, self.longest));
        let Some(under_way) = self.under_way.take().or_else(next) else { return Ok(false) };
        match self.go_on(under_way, store, windows) {
            Err(error) if error.kind() == StoreErrorKind::Retry => {
                tracing::debug!(%error, "a window cannot be ranked for now");
                self.is_postponed = true;
                Ok(false)
            }
            outcome => outcome.map(|()| true),
        }
    }

    fn go_on(&mut self, mut under_way: UnderWay, store: &mut WindowStore, windows: &TimeWindows) -> Result<(), StoreError> {
        match under_way.read(store, windows)? {
            Read::Piece => self.under_way = Some(under_way),
            Read::Whole => store.rank(under_way.start, under_way.candidates, self.longest)?,
            Read::NotCounts => store.leave_unranked(under_way.start),
        }
        Ok(())
    }
}

enum Read {
    Piece,
    Whole,
    /// Rows that are no counts, or negative ones: such a window is always added up in full.
    NotCounts,
}

impl UnderWay {
    fn new(start: Timestamp, longest: usize) -> Self {
        Self { start, last: None, candidates: ranking::candidates(longest) }
    }

    fn read(&mut self, store: &WindowStore, windows: &TimeWindows) -> Result<Read, StoreError> {
        let Self { start, last, candidates } = self;
        let after = last.take();
        let mut are_counts = true;
        let end = windows.end_of(*start);
        let whole = store.rows_after(*start, end, after.as_deref(), ROWS_IN_A_PIECE, &mut |row_key, value| {
            match (row_key.get(8..), row::decode_count(value)) {
                (Some(key), Some(count @ 0..)) => candidates.offer(count, key),
                _ => are_counts = false,
            }
            let last = last.get_or_insert_default();
            last.clear();
            last.extend_from_slice(row_key);
        })?;
        Ok(match (are_counts, whole) {
            (false, _) => Read::NotCounts,
            (true, true) => Read::Whole,
            (true, false) => Read::Piece,
        })
    }
}
