//! What the broker keeps in memory of one partition's log.

use std::collections::{BTreeMap, VecDeque};

use super::super::{Isolation, LogRange};
use super::storage::LogId;
use crate::record::{Offset, Timestamp};

/// A segment is closed at this size. Retention drops whole segments and compaction rewrites them.
pub(super) const SEGMENT_BYTES: u64 = 8 << 20;

/// A stretch of a log: enough to decide about it without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    /// The first offset that it stands for.
    pub(super) first: Offset,
    /// The first offset after it.
    pub(super) next: Offset,
    /// How many bytes its batches have.
    pub(super) bytes: u64,
    /// The largest timestamp of a record.
    pub(super) max_timestamp: Timestamp,
    /// Whether compaction has gone over it.
    pub(super) cleaned: bool,
}

impl Segment {
    /// A segment with nothing in it yet.
    pub(super) fn empty(first: Offset) -> Self {
        Self { first, next: first, bytes: 0, max_timestamp: Timestamp(i64::MIN), cleaned: false }
    }
}

/// One partition's log: `start <= last stable offset <= end`.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) id: LogId,
    pub(super) start: Offset,
    /// The high watermark: the offset of the next record.
    pub(super) end: Offset,
    /// Neighbours, first to last; the last one is written to.
    pub(super) segments: VecDeque<Segment>,
    /// First offsets of transactions whose outcome is open (see [`super::in_flight`]), with the number of that transaction.
    pub(super) open: BTreeMap<Offset, u64>,
}

impl Log {
    pub(super) fn new(id: LogId) -> Self {
        Self { id, start: Offset::ZERO, end: Offset::ZERO, segments: VecDeque::new(), open: BTreeMap::new() }
    }

    /// The offset up to which every record's transaction has been decided.
    pub(super) fn last_stable(&self) -> Offset {
        self.open.keys().next().copied().unwrap_or(self.end)
    }

    pub(super) fn range(&self, isolation: Isolation) -> LogRange {
        let end = match isolation {
            Isolation::ReadCommitted => self.last_stable(),
            Isolation::ReadUncommitted => self.end,
        };
        LogRange { start: self.start, end: end.max(self.start) }
    }

    /// Adds a segment as it was stored; they come in order.
    pub(super) fn restore_segment(&mut self, segment: Segment) {
        self.end = segment.next;
        self.segments.push_back(segment);
    }

    /// The segments wholly before that offset, without the one that is written to.
    pub(super) fn segments_before(&self, offset: Offset) -> usize {
        let closed = self.segments.len().saturating_sub(1);
        self.segments.iter().take(closed).take_while(|segment| segment.next <= offset).count()
    }
}
