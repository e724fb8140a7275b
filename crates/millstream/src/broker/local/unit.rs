//! A unit: records and positions that are appended together or not at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::{CommittedOffset, Fence};
use super::batch::BatchBuilder;
use crate::record::{Record, TopicPartition};

/// Records for any partitions, and what is to be stored with them: all of it, or nothing.
///
/// The records are encoded as they are added. Whoever takes clicks in builds a unit and gives it to
/// [`super::LocalBroker::append`]; a transaction is a unit that its producer builds.
#[derive(Debug, Clone, Default)]
pub struct Unit {
    pub(super) records: Vec<StagedRecords>,
    places: BTreeMap<TopicPartition, usize>,
    latest: usize,
    pub(super) offsets: Vec<GroupOffsets>,
    pub(super) idempotency: Option<Idempotency>,
    pub(super) producer: Option<(Arc<str>, u64)>,
}

/// The encoded records for one partition.
#[derive(Debug, Clone)]
pub(super) struct StagedRecords {
    pub(super) partition: TopicPartition,
    pub(super) batches: Vec<BatchBuilder>,
}

/// Positions of a group, and the membership that vouches for them.
#[derive(Debug, Clone)]
pub(super) struct GroupOffsets {
    pub(super) fence: Fence,
    pub(super) offsets: Vec<(TopicPartition, CommittedOffset)>,
}

#[derive(Debug, Clone)]
pub(super) struct Idempotency {
    pub(super) key: Vec<u8>,
    pub(super) result: Vec<u8>,
}

impl Unit {
    /// A unit with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a record to the end of a partition. Its own offset is ignored.
    pub fn add(&mut self, to: &TopicPartition, record: &Record<'_>) {
        let index = self.index_of(to);
        let batches = &mut self.records[index].batches;
        match batches.last_mut() {
            Some(batch) if !batch.is_full() => batch.push(record),
            _ => {
                let mut batch = BatchBuilder::new();
                batch.push(record);
                batches.push(batch);
            }
        }
    }

    /// Stores this key and result in the unit. Where the key is stored already, the unit is not appended.
    pub fn set_idempotency_key(&mut self, key: &[u8], result: &[u8]) {
        self.idempotency = Some(Idempotency { key: key.to_vec(), result: result.to_vec() });
    }

    /// How many bytes the records take, and the result that is stored with them.
    pub fn len_bytes(&self) -> usize {
        let records: usize = self.records.iter().flat_map(|staged| &staged.batches).map(BatchBuilder::len).sum();
        records + self.idempotency.as_ref().map_or(0, |idempotency| idempotency.key.len() + idempotency.result.len())
    }

    /// Runs of records go to the same partition, so the latest is tried first.
    fn index_of(&mut self, partition: &TopicPartition) -> usize {
        if self.records.get(self.latest).is_none_or(|staged| staged.partition != *partition) {
            self.latest = match self.places.get(partition) {
                Some(&index) => index,
                None => {
                    self.places.insert(partition.clone(), self.records.len());
                    self.records.push(StagedRecords { partition: partition.clone(), batches: Vec::new() });
                    self.records.len() - 1
                }
            };
        }
        self.latest
    }
}

impl StagedRecords {
    pub(super) fn count(&self) -> i64 {
        self.batches.iter().map(|batch| i64::from(batch.records())).sum()
    }
}
