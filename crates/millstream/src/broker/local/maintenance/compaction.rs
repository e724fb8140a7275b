//! Compaction: of each key the last record is kept, and a tombstone for a day after it was first cleaned.
//!
//! A pass over a log first reads segments that were never cleaned and notes the last offset of each key, as many as its memory
//! takes; then it rewrites everything up to there without the records that are superseded, some segments at a time. A log is
//! due when what was never cleaned is as large as what was: so each byte is rewritten a few times at most while a log grows,
//! and a log whose keys do not repeat costs a constant factor.

use std::ops::ControlFlow;

use super::super::super::BrokerError;
use super::super::batch::{BatchHeader, decode_records, split_batch};
use super::super::fetch::corrupt;
use super::super::log::{Log, SEGMENT_BYTES, Segment};
use super::super::storage::{LogId, LogStorage, LogWrite};
use super::super::{Shared, entries, lock};
use super::offset_map::OffsetMap;
use super::rewriter::{Batches, Rewriter};
use crate::record::{Offset, Record, TopicPartition};

/// Memory for the keys of one pass, but for those of the segment that fills it.
const MAP_BYTES: usize = 16 << 20;

/// Cleans one log after another, a piece at each step.
#[derive(Debug, Default)]
pub(super) struct Cleaner {
    pass: Option<Pass>,
}

#[derive(Debug)]
struct Pass {
    partition: TopicPartition,
    log: LogId,
    map: OffsetMap,
    /// Up to here the keys are in the map.
    noted: Offset,
    /// Whether the map is to be filled further.
    noting: bool,
    /// Up to here the log has been rewritten.
    rewritten: Offset,
}

impl Cleaner {
    /// Does one piece. Whether there is more to do at once.
    pub(super) fn step<S: LogStorage>(&mut self, shared: &Shared<S>) -> Result<bool, BrokerError> {
        let Some(mut pass) = self.pass.take().or_else(|| shared.due_for_cleaning()) else {
            return Ok(false);
        };
        let goes_on = match pass.noting {
            true => pass.note_segment(shared)?,
            false => pass.rewrite_segments(shared)?,
        };
        self.pass = goes_on.then_some(pass);
        Ok(true)
    }
}

impl<S: LogStorage> Shared<S> {
    fn due_for_cleaning(&self) -> Option<Pass> {
        let state = lock(&self.state);
        let compacted = |partition: &TopicPartition| state.topics.get(&partition.topic).is_some_and(|t| t.settings.compacted);
        let (partition, log) = state.logs.iter().find(|(partition, log)| compacted(partition) && is_due(log))?;
        let noted = closed(log).find(|segment| !segment.cleaned)?.first;
        let map = OffsetMap::new(MAP_BYTES);
        Some(Pass { partition: partition.clone(), log: log.id, map, noted, noting: true, rewritten: log.start })
    }

    fn closed_segments(&self, partition: &TopicPartition) -> Result<Vec<Segment>, BrokerError> {
        Ok(closed(lock(&self.state).log(partition)?).copied().collect())
    }
}

/// The segments that are no longer written to, and hold no open transaction.
fn closed(log: &Log) -> impl Iterator<Item = &Segment> {
    let count = log.segments.len().saturating_sub(1);
    log.segments.iter().take(count).take_while(|segment| segment.next <= log.last_stable())
}

fn is_due(log: &Log) -> bool {
    let bytes = |cleaned| closed(log).filter(|segment| segment.cleaned == cleaned).map(|segment| segment.bytes).sum::<u64>();
    let (dirty, clean) = (bytes(false), bytes(true));
    dirty > 0 && dirty >= clean
}

impl Pass {
    /// Notes the keys of the next segment. Whether the pass goes on.
    fn note_segment<S: LogStorage>(&mut self, shared: &Shared<S>) -> Result<bool, BrokerError> {
        let segments = shared.closed_segments(&self.partition)?;
        let next = segments.iter().find(|segment| !segment.cleaned && segment.next > self.noted);
        let Some(segment) = next.filter(|_| !self.map.is_full()) else {
            self.noting = false;
            return Ok(true);
        };
        let map = &mut self.map;
        visit(shared, self.log, &self.partition, segment, |_, record| map.note(record))?;
        self.noted = segment.next;
        Ok(true)
    }

    /// Rewrites the next segments. Whether the pass goes on.
    fn rewrite_segments<S: LogStorage>(&mut self, shared: &Shared<S>) -> Result<bool, BrokerError> {
        let now = shared.clock.now();
        let segments = self.next_segments(&shared.closed_segments(&self.partition)?);
        let (Some(first), Some(last)) = (segments.first(), segments.last()) else {
            return Ok(false);
        };
        let mut rewriter = Rewriter::new(now);
        for segment in &segments {
            let map = &self.map;
            visit(shared, self.log, &self.partition, segment, |header, record| rewriter.take(header, record, map))?;
        }
        self.rewritten = last.next;
        let (first, next) = (first.first, last.next);
        let (write, merged) = match rewriter.finish(first, next) {
            Some((batches, merged)) => (self.replacement(&segments, batches, &merged), vec![merged]),
            None => {
                let seen: Vec<Segment> = segments.iter().map(|segment| Segment { cleaned: true, ..*segment }).collect();
                (self.entries(&seen), seen)
            }
        };
        let undo = self.entries(&segments);
        replace(shared, &self.partition, &segments, merged, write, undo)
    }

    /// The segments that one piece takes: neighbours of a segment's size together, so that small ones become one.
    fn next_segments(&self, closed: &[Segment]) -> Vec<Segment> {
        let mut bytes = 0;
        let ahead = closed.iter().filter(|segment| segment.next > self.rewritten && segment.next <= self.noted);
        let taken = ahead.enumerate().take_while(|(i, segment)| {
            bytes += segment.bytes;
            *i == 0 || bytes <= SEGMENT_BYTES
        });
        taken.map(|(_, segment)| *segment).collect()
    }

    fn replacement(&self, segments: &[Segment], batches: Batches, merged: &Segment) -> LogWrite {
        let mut write = LogWrite::default();
        write.remove_batches(self.log, merged.first, merged.next);
        for segment in segments {
            write.remove_entry(entries::segment_key(self.log, segment.first));
        }
        for (last, bytes) in batches {
            write.put_batch(self.log, last, bytes);
        }
        write.put_entry(entries::segment_key(self.log, merged.first), entries::encode_segment(merged));
        write
    }

    fn entries(&self, segments: &[Segment]) -> LogWrite {
        let mut write = LogWrite::default();
        for segment in segments {
            write.put_entry(entries::segment_key(self.log, segment.first), entries::encode_segment(segment));
        }
        write
    }
}

/// Puts `merged` in the place of `segments`. False where they are no longer what they were: the head of the log has gone meanwhile.
fn replace<S: LogStorage>(
    shared: &Shared<S>,
    partition: &TopicPartition,
    segments: &[Segment],
    merged: Vec<Segment>,
    write: LogWrite,
    undo: LogWrite,
) -> Result<bool, BrokerError> {
    let mut writer = lock(&shared.writer);
    let place = |log: &Log| {
        let at = log.segments.iter().position(|segment| Some(segment) == segments.first())?;
        log.segments.range(at..).take(segments.len()).eq(segments).then_some(at)
    };
    let Some(at) = place(lock(&shared.state).log(partition)?) else {
        return Ok(false);
    };
    // A failed write that turns up all the same holds the same records but for superseded ones: only the entries are put back.
    writer.write(&shared.storage, write, undo)?;
    let mut state = lock(&shared.state);
    let log = state.log_mut(partition)?;
    let behind = log.segments.split_off(at + segments.len());
    log.segments.truncate(at);
    log.segments.extend(merged.into_iter().chain(behind));
    Ok(true)
}

/// Visits the records of a segment, each with the header of its batch.
fn visit<S: LogStorage>(
    shared: &Shared<S>,
    id: LogId,
    partition: &TopicPartition,
    segment: &Segment,
    mut record: impl FnMut(&BatchHeader, &Record<'_>),
) -> Result<(), BrokerError> {
    let mut broken = None;
    shared.storage.read(id, segment.first, &mut |last, bytes| {
        if last >= segment.next {
            return ControlFlow::Break(());
        }
        let mut records = Vec::new();
        let decoded = split_batch(bytes).and_then(|(header, batch, _)| {
            decode_records(&header, batch, Offset::ZERO, &mut records)?;
            records.iter().for_each(|decoded| record(&header, decoded));
            Ok(())
        });
        match decoded {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                broken = Some(corrupt(partition, last, error));
                ControlFlow::Break(())
            }
        }
    })?;
    broken.map_or(Ok(()), Err)
}
