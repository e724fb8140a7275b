//! Writes a stretch of a log anew, without what is superseded.

use std::time::Duration;

use super::super::batch::{BatchBuilder, BatchHeader, NEVER_CLEANED};
use super::super::log::Segment;
use super::offset_map::OffsetMap;
use crate::record::{Offset, Record, Timestamp};

/// How long a tombstone stays after a pass first kept it, so that whoever restores from the log hears of it.
const TOMBSTONES_KEPT_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// Batches with their last offsets.
pub(super) type Batches = Vec<(Offset, Vec<u8>)>;

/// Builds the batches of a stretch of a log without what is superseded.
pub(super) struct Rewriter {
    now: Timestamp,
    batches: Batches,
    open: Option<OpenBatch>,
    max_timestamp: Timestamp,
    changed: bool,
}

struct OpenBatch {
    first: Offset,
    last: Offset,
    tombstones_kept_since: Timestamp,
    builder: BatchBuilder,
}

impl Rewriter {
    pub(super) fn new(now: Timestamp) -> Self {
        Self { now, batches: Vec::new(), open: None, max_timestamp: Timestamp(i64::MIN), changed: false }
    }

    /// Takes the next record, with the header of the batch that it comes from.
    pub(super) fn take(&mut self, header: &BatchHeader, record: &Record<'_>, map: &OffsetMap) {
        let never = header.tombstones_kept_since == NEVER_CLEANED;
        let kept_since = if never { self.now } else { header.tombstones_kept_since };
        let is_tombstone = record.key.is_some() && record.value.is_none();
        let is_old = !never && kept_since.0.saturating_add(TOMBSTONES_KEPT_FOR.as_millis() as i64) <= self.now.0;
        if map.supersedes(record) || (is_tombstone && is_old) {
            self.changed = true;
            return;
        }
        self.changed |= is_tombstone && never;
        self.max_timestamp = self.max_timestamp.max(record.timestamp);
        if self.open.as_ref().is_some_and(|open| open.builder.is_full() || open.tombstones_kept_since != kept_since) {
            self.close();
        }
        let open = self.open.get_or_insert_with(|| OpenBatch {
            first: record.offset,
            last: record.offset,
            tombstones_kept_since: kept_since,
            builder: BatchBuilder::new(),
        });
        open.last = record.offset;
        open.builder.push_at((record.offset.0 - open.first.0) as u64, record);
    }

    fn close(&mut self) {
        if let Some(open) = self.open.take() {
            self.batches.push((open.last, open.builder.finish(open.first, open.last, open.tombstones_kept_since)));
        }
    }

    /// The batches and the segment that they make for the offsets `first .. next`; none where everything stays as it was.
    pub(super) fn finish(mut self, first: Offset, next: Offset) -> Option<(Batches, Segment)> {
        self.close();
        let bytes = self.batches.iter().map(|(_, batch)| batch.len() as u64).sum();
        let segment = Segment { first, next, bytes, max_timestamp: self.max_timestamp, cleaned: true };
        self.changed.then_some((self.batches, segment))
    }
}
