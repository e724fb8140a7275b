//! A plan: what a group of units changes, first worked out, then stored, then made visible.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::{BrokerError, CommittedOffset, Delivered};
use super::batch::{BatchBuilder, NEVER_CLEANED};
use super::entries;
use super::log::{Log, SEGMENT_BYTES, Segment};
use super::state::State;
use super::storage::{LogId, LogWrite};
use super::unit::{GroupOffsets, StagedRecords, Unit};
use crate::record::{Offset, Timestamp, TopicPartition};

/// Changes to the state that are worked out and not stored yet.
#[derive(Debug, Default)]
pub(super) struct Plan<'a> {
    logs: BTreeMap<TopicPartition, LogPlan>,
    batches: Vec<(LogId, Offset, Offset, &'a BatchBuilder)>,
    offsets: Vec<(Arc<str>, TopicPartition, CommittedOffset)>,
    entries: LogWrite,
    undo: LogWrite,
}

/// One log as it will be. `segments` starts with the one that is written to now.
#[derive(Debug)]
struct LogPlan {
    id: LogId,
    end_before: Offset,
    active_before: Option<Segment>,
    end: Offset,
    segments: Vec<Segment>,
}

impl<'a> Plan<'a> {
    /// Adds a unit that has been checked; its records go to the ends of their logs.
    pub(super) fn add(&mut self, state: &State, unit: &'a Unit, now: Timestamp) -> Result<Delivered, BrokerError> {
        for staged in &unit.records {
            state.log(&staged.partition)?;
        }
        let mut delivered = Delivered::new();
        for staged in &unit.records {
            let first = self.reserve(state, &staged.partition, 0)?;
            self.append(state, staged, first)?;
            delivered.insert(staged.partition.clone(), (first, Offset(first.0 + staged.count() - 1)));
        }
        self.add_offsets(state, &unit.offsets)?;
        if let Some(idempotency) = &unit.idempotency {
            let (key, expiry) = (entries::idempotency_key(&idempotency.key), entries::expiry_key(now, &idempotency.key));
            self.undo.remove_entry(key.clone());
            self.undo.remove_entry(expiry.clone());
            self.entries.put_entry(key, entries::encode_result(now, &idempotency.result));
            self.entries.put_entry(expiry, Vec::new());
        }
        Ok(delivered)
    }

    /// Moves the end of a log on by so many offsets, and gives the first of them.
    pub(super) fn reserve(&mut self, state: &State, partition: &TopicPartition, count: i64) -> Result<Offset, BrokerError> {
        let plan = self.log(state, partition)?;
        let first = plan.end;
        plan.advance(Offset(first.0 + count));
        Ok(first)
    }

    /// Puts records at `first` and after it. The end of the log moves on where they reach beyond it.
    pub(super) fn append(&mut self, state: &State, staged: &'a StagedRecords, mut first: Offset) -> Result<(), BrokerError> {
        for batch in &staged.batches {
            let plan = self.log(state, &staged.partition)?;
            let next = Offset(first.0 + i64::from(batch.records()));
            plan.add_batch(next, batch);
            let (id, last) = (plan.id, Offset(next.0 - 1));
            self.batches.push((id, first, last, batch));
            first = next;
        }
        Ok(())
    }

    /// Adds positions of groups.
    pub(super) fn add_offsets(&mut self, state: &State, of_groups: &[GroupOffsets]) -> Result<(), BrokerError> {
        for GroupOffsets { fence, offsets } in of_groups {
            let group = fence.group();
            for (partition, committed) in offsets {
                let key = entries::offset_key(group, state.log(partition)?.id);
                match state.groups.get(group).and_then(|known| known.offsets.get(partition)) {
                    Some(before) => self.undo.put_entry(key.clone(), entries::encode_offset(before)),
                    None => self.undo.remove_entry(key.clone()),
                }
                self.entries.put_entry(key, entries::encode_offset(committed));
                self.offsets.push((group.clone(), partition.clone(), committed.clone()));
            }
        }
        Ok(())
    }

    /// What is to be stored, and what takes it back where a failed write turns up after all.
    pub(super) fn take_writes(&mut self) -> (LogWrite, LogWrite) {
        let mut write = std::mem::take(&mut self.entries);
        let mut undo = std::mem::take(&mut self.undo);
        for (id, first, last, batch) in self.batches.drain(..) {
            write.put_batch(id, last, batch.finish(first, last, NEVER_CLEANED));
        }
        for plan in self.logs.values() {
            undo.remove_batches(plan.id, plan.end_before, Offset(i64::MAX));
            for segment in &plan.segments {
                let key = entries::segment_key(plan.id, segment.first);
                write.put_entry(key.clone(), entries::encode_segment(segment));
                match plan.active_before.filter(|active| active.first == segment.first) {
                    Some(before) => undo.put_entry(key, entries::encode_segment(&before)),
                    None => undo.remove_entry(key),
                }
            }
        }
        (write, undo)
    }

    /// Makes visible what has been stored.
    pub(super) fn publish(self, state: &mut State) {
        for (partition, plan) in self.logs {
            if let Some(log) = state.logs.get_mut(&partition) {
                log.end = plan.end;
                log.segments.pop_back();
                log.segments.extend(plan.segments);
            }
        }
        for (group, partition, committed) in self.offsets {
            state.group(&group).offsets.insert(partition, committed);
        }
    }

    fn log(&mut self, state: &State, partition: &TopicPartition) -> Result<&mut LogPlan, BrokerError> {
        if !self.logs.contains_key(partition) {
            self.logs.insert(partition.clone(), LogPlan::new(state.log(partition)?));
        }
        self.logs.get_mut(partition).ok_or_else(|| BrokerError::unknown_topic(&partition.topic))
    }
}

impl LogPlan {
    fn new(log: &Log) -> Self {
        let active = log.segments.back().copied();
        let segments = vec![active.unwrap_or_else(|| Segment::empty(log.end))];
        Self { id: log.id, end_before: log.end, active_before: active, end: log.end, segments }
    }

    fn add_batch(&mut self, next: Offset, batch: &BatchBuilder) {
        let end = self.end;
        let segment = match self.segments.last_mut() {
            Some(segment) if segment.bytes < SEGMENT_BYTES && !segment.cleaned => segment,
            _ => {
                self.segments.push(Segment::empty(end));
                let index = self.segments.len() - 1;
                &mut self.segments[index]
            }
        };
        segment.bytes += batch.len() as u64;
        segment.max_timestamp = segment.max_timestamp.max(batch.max_timestamp());
        self.advance(next);
    }

    fn advance(&mut self, to: Offset) {
        if let Some(segment) = self.segments.last_mut() {
            segment.next = segment.next.max(to);
        }
        self.end = self.end.max(to);
    }
}
