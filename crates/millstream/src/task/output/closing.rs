//! Sending final windows on, in bounded pieces over several commits, so that each row goes out exactly once.

use std::collections::BTreeMap;

use super::super::OutputBuffer;
use super::super::grouping::Grouping;
use super::super::repartition::{HEADER, VERSION};
use crate::record::{HeadersBuf, Record, Timestamp, TopicPartition};
use crate::serdes::WindowedKey;
use crate::store::window_store::WindowStore;
use crate::store::{StoreError, row};
use crate::time::TimeWindows;
use crate::varint;

const EMITTED_THROUGH: &str = "clickmill.emitted_through";
const EMITTED_ROWS: &str = "clickmill.emitted_rows";
const EMITTED_WEIGHT: &str = "clickmill.emitted_weight";

/// How much memory a piece takes, roughly, whatever its rows: as many counts as a commit sends by default take a third of it.
const PIECE_BYTES: usize = 8 << 20;

/// How many rows are read before the size of the piece is looked at.
const ROWS_AT_ONCE: usize = 1_024;

/// How far the final windows have been sent. Persisted beside the offset: a window that was sent in part goes on after as many
/// rows as were sent, for the rows of a final window never change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Closing {
    /// Every window that ends at or before it was sent whole.
    pub(crate) through: i64,
    rows: i64,
    weight: i64,
    /// The last row key sent of the window under way; none after a restart.
    last: Option<Vec<u8>>,
}

impl Closing {
    pub(crate) fn from_entries(entries: &BTreeMap<String, i64>) -> Self {
        let entry = |name| entries.get(name).copied().unwrap_or(0);
        Self { through: entry(EMITTED_THROUGH), rows: entry(EMITTED_ROWS), weight: entry(EMITTED_WEIGHT), last: None }
    }

    pub(crate) fn put_entries(&self, entries: &mut BTreeMap<String, i64>) {
        entries.insert(EMITTED_THROUGH.to_owned(), self.through);
        entries.insert(EMITTED_ROWS.to_owned(), self.rows);
        entries.insert(EMITTED_WEIGHT.to_owned(), self.weight);
    }

    /// Whether windows that are final have not been sent whole yet.
    pub(crate) fn is_behind(&self, closed_through: Timestamp) -> bool {
        self.through < closed_through.0
    }

    /// Finds out where to go on in a window that was sent in part before a restart.
    pub(crate) fn find_place(
        &mut self,
        closed_through: Timestamp,
        windows: &TimeWindows,
        source: &Rows<'_>,
    ) -> Result<(), StoreError> {
        match self.next_window(closed_through, windows, source) {
            Some((start, end)) => self.find_last(start, end, source),
            None => Ok(()),
        }
    }

    /// The next window to be sent, as (start, end); none where there is none with rows.
    fn next_window(&self, closed_through: Timestamp, windows: &TimeWindows, source: &Rows<'_>) -> Option<(Timestamp, Timestamp)> {
        let (&start, _) = source.store.windows().range(Timestamp(self.through - windows.size_ms() + 1)..).next()?;
        let end = windows.end_of(start);
        (end <= closed_through).then_some((start, end))
    }

    /// Reads up to `limit` rows of the final windows into `piece`, each window followed by its end record, for `to`. It reads fewer where
    /// they are large: the piece lies in memory until the transaction has ended.
    pub(crate) fn read(
        &mut self,
        closed_through: Timestamp,
        limit: usize,
        windows: &TimeWindows,
        source: &Rows<'_>,
        to: &TopicPartition,
        piece: &mut OutputBuffer,
    ) -> Result<(), StoreError> {
        let mut left = limit;
        while self.is_behind(closed_through) && left > 0 && piece.in_use() < PIECE_BYTES {
            let Some((start, end)) = self.next_window(closed_through, windows, source) else {
                self.window_done(closed_through);
                break;
            };
            let (read, whole) = self.read_rows(start, end, left.min(ROWS_AT_ONCE), source, to, piece)?;
            left -= read.min(left);
            if whole {
                self.push_end(start, end, to, piece);
                self.window_done(end);
            }
        }
        Ok(())
    }

    fn window_done(&mut self, end: Timestamp) {
        *self = Self { through: end.0, ..Self::default() };
    }

    fn read_rows(
        &mut self,
        start: Timestamp,
        end: Timestamp,
        limit: usize,
        source: &Rows<'_>,
        to: &TopicPartition,
        piece: &mut OutputBuffer,
    ) -> Result<(usize, bool), StoreError> {
        let (mut key_bytes, mut value) = (Vec::new(), Vec::new());
        let mut read = 0;
        let mut outcome = Ok(());
        let after = self.last.take();
        let whole = source.store.rows_after(start, end, after.as_deref(), limit, &mut |row_key, row| {
            if outcome.is_err() {
                return;
            }
            let key = row_key.get(8..).unwrap_or_default();
            key_bytes.clear();
            value.clear();
            WindowedKey { key, start }.encode(&mut key_bytes);
            match source.grouping.output_of_row(start, row, &mut value) {
                None => outcome = Err(row::unreadable(start, key)),
                Some((latest, weight)) => {
                    self.weight += weight;
                    piece.push(to.clone(), Some(&key_bytes), Some(&value), latest);
                }
            }
            read += 1;
            self.last = Some(row_key.to_vec());
        })?;
        outcome?;
        self.rows += read as i64;
        Ok((read, whole))
    }

    /// After a restart: goes past the rows that were sent before it.
    fn find_last(&mut self, start: Timestamp, end: Timestamp, source: &Rows<'_>) -> Result<(), StoreError> {
        if self.last.is_none() && self.rows > 0 {
            let mut last = None;
            source.store.rows_after(start, end, None, self.rows as usize, &mut |key, _| last = Some(key.to_vec()))?;
            self.last = last;
        }
        Ok(())
    }

    /// The end record: key `i64 window start`, value `u8 1 ‖ varint rows ‖ zigzag weight`, with the header `mill`.
    fn push_end(&self, start: Timestamp, end: Timestamp, to: &TopicPartition, piece: &mut OutputBuffer) {
        let mut headers = HeadersBuf::new();
        headers.push(HEADER, &[VERSION]);
        let mut value = vec![VERSION];
        varint::put_unsigned(self.rows as u64, &mut value);
        varint::put_signed(self.weight, &mut value);
        let key = start.0.to_be_bytes();
        piece.push_with_headers(to.clone(), &Record::new(Some(&key), Some(&value), end).with_headers(headers.as_headers()));
    }
}

/// Where the rows to send lie and how they are read.
pub(crate) struct Rows<'a> {
    pub(crate) store: &'a WindowStore,
    pub(crate) grouping: &'a dyn Grouping,
}

/// The end record of a window on a topic of final windows: what the partition holds of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowEnd {
    /// The window's start.
    pub start: Timestamp,
    /// How many rows were sent for it.
    pub rows: u64,
    /// The sum of their weights (for counts, of the counts).
    pub weight: i64,
}

impl WindowEnd {
    /// Reads an end record; none where the record is a row.
    pub fn decode(record: &Record<'_>) -> Option<Self> {
        record.headers.get(HEADER)?;
        let start = Timestamp(i64::from_be_bytes(record.key?.try_into().ok()?));
        let (&VERSION, mut rest) = record.value?.split_first()? else { return None };
        let rows = varint::take_unsigned(&mut rest)?;
        let weight = varint::take_signed(&mut rest)?;
        rest.is_empty().then_some(Self { start, rows, weight })
    }
}
