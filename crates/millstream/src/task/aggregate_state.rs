//! The stored side of a windowed aggregate, which the aggregate task and the fused task share: what a commit changes in the
//! window store, the changelog records that go with it, and the final windows that are sent on.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::TaskError;
use super::closing::{Closing, Rows};
use super::grouping::{ChangedRow, Partials};
use super::ranking::Ranking;
use crate::broker::{Delivered, TransactionalProducer};
use crate::partitioner::partition_for_key;
use crate::record::{Offset, Record, Timestamp, TopicPartition};
use crate::serdes::WindowedKey;
use crate::store::window_store::{WindowChange, WindowStore};
use crate::store::{Space, StateStore, StoreBatch, StoreError, StoreErrorKind, row};
use crate::topology::{EmitStrategy, WindowedSpec};

/// Where results go.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    /// The topic, and the partition of it that this task's final windows go to.
    pub(crate) partition: TopicPartition,
    /// How many partitions the topic has.
    pub(crate) partitions: u32,
    /// How many rows of final windows one commit sends.
    pub(crate) rows_per_commit: usize,
}

/// The window store of a running task, with what the transaction being built changes in it.
pub(crate) struct AggregateState {
    spec: WindowedSpec,
    store: WindowStore,
    changelog: TopicPartition,
    output: Option<Output>,
    closing: Closing,
    committed_closing: Closing,
    /// The store's own closed_through as last committed: windows up to it are final and their rows are all in the store.
    closed_through: Timestamp,
    staged: Staged,
    /// A committed transaction's changes that the store has not taken yet: the positions of changelog and input that they lead to.
    unapplied: Option<(Offset, Offset)>,
    trim: Option<Offset>,
    ranking: Ranking,
}

/// What the transaction being built changes.
#[derive(Default)]
struct Staged {
    batch: StoreBatch,
    changes: BTreeMap<Timestamp, WindowChange>,
}

impl AggregateState {
    pub(crate) fn new(
        spec: WindowedSpec,
        store: WindowStore,
        changelog: TopicPartition,
        output: Option<Output>,
        closing: Closing,
        closed_through: Timestamp,
        ranking: Ranking,
    ) -> Self {
        let committed_closing = closing.clone();
        let staged = Staged::default();
        Self {
            spec,
            store,
            changelog,
            output,
            closing,
            committed_closing,
            closed_through,
            staged,
            unapplied: None,
            trim: None,
            ranking,
        }
    }

    pub(crate) fn state_store(&self) -> &Arc<dyn StateStore> {
        self.store.state_store()
    }

    /// Whether final windows wait to be sent on.
    pub(crate) fn wants_commit(&self) -> bool {
        self.emits_on_close() && self.closing.is_behind(self.closed_through)
    }

    /// Sends the changelog records of the changed rows, what is to be emitted with them, and a piece of the final windows.
    pub(crate) fn stage(
        &mut self,
        partials: &mut dyn Partials,
        producer: &mut dyn TransactionalProducer,
    ) -> Result<(), TaskError> {
        if !partials.is_empty() {
            self.stage_rows(partials, producer)?;
        }
        self.stage_final_windows(producer)
    }

    fn stage_rows(&mut self, partials: &mut dyn Partials, producer: &mut dyn TransactionalProducer) -> Result<(), TaskError> {
        let keys = partials.sorted_row_keys();
        let stored = self.store.multi_get(&keys)?;
        let Self { staged, changelog, spec, output, .. } = self;
        let emit = output.as_ref().filter(|_| spec.emit == EmitStrategy::OnWindowUpdate);
        let mut key_bytes = Vec::new();
        partials.merge_into_rows(&stored, &mut |changed| {
            let windowed = WindowedKey { key: changed.key, start: changed.start };
            key_bytes.clear();
            windowed.encode_for_changelog(&mut key_bytes);
            producer.send(changelog, &Record::new(Some(&key_bytes), Some(changed.value), changed.latest))?;
            if let Some(output) = emit {
                let windowed_key = &key_bytes[..key_bytes.len() - 4];
                let partition = partition_for_key(changed.key, output.partitions);
                let to = TopicPartition::new(output.partition.topic.clone(), partition);
                producer.send(&to, &Record::new(Some(windowed_key), Some(changed.value), changed.latest))?;
            }
            staged.add(&changed);
            Ok(())
        })
    }

    fn stage_final_windows(&mut self, producer: &mut dyn TransactionalProducer) -> Result<(), TaskError> {
        let Some(output) = self.output.as_ref().filter(|_| self.emits_on_close()) else { return Ok(()) };
        let rows = Rows { store: &self.store, grouping: &*self.spec.grouping };
        let limit = output.rows_per_commit;
        self.closing.send(self.closed_through, limit, &self.spec.windows, &rows, &output.partition, producer)
    }

    pub(crate) fn put_entries(&self, entries: &mut BTreeMap<String, i64>) {
        self.closing.put_entries(entries);
    }

    /// The transaction has committed: the store takes its changes. A store that cannot is tried again by
    /// [`AggregateState::settle`]; the changelog holds the changes meanwhile.
    /// `input` is the position of the task's input that was committed with it.
    pub(crate) fn committed(&mut self, delivered: &Delivered, closed_through: Timestamp, input: Offset) -> Result<(), TaskError> {
        self.committed_closing = self.closing.clone();
        self.closed_through = self.closed_through.max(closed_through);
        self.ranking.resume();
        if let Some(&(first, last)) = delivered.get(&self.changelog) {
            for change in self.staged.changes.values_mut() {
                change.first_offset = Some(first);
            }
            self.unapplied = Some((last.next(), input));
        }
        self.settle()
    }

    /// Applies what has committed, then removes windows past their retention.
    pub(crate) fn settle(&mut self) -> Result<(), TaskError> {
        if let Some((position, input)) = self.unapplied {
            self.store.apply(&mut self.staged.batch, &self.staged.changes, position, Some(input))?;
            self.staged.changes.clear();
            self.unapplied = None;
        }
        match self.expire() {
            // The next commit tries again.
            Err(error) if error.kind() == StoreErrorKind::Retry => {
                tracing::warn!(%error, "expired windows cannot be removed for now");
                Ok(())
            }
            outcome => Ok(outcome?),
        }
    }

    fn expire(&mut self) -> Result<(), StoreError> {
        // A window stays until it has been sent on, too.
        let done = if self.emits_on_close() { self.committed_closing.through } else { self.closed_through.0 };
        let keep_from = done.saturating_sub(i64::try_from(self.spec.retention.as_millis()).unwrap_or(i64::MAX));
        // A window expires when its end lies that far back.
        let before = Timestamp(keep_from.saturating_sub(self.spec.windows.size_ms()).saturating_add(1));
        if before.0 > 0 && self.store.expire(before)? {
            self.trim = self.store.needed_from()?;
        }
        Ok(())
    }

    /// Ranks a piece of the final windows; false where there is nothing to rank for now.
    pub(crate) fn rank(&mut self) -> Result<bool, TaskError> {
        // A store that waits for its changes does not hold all rows of the windows that those have closed.
        if self.is_unsettled() {
            return Ok(false);
        }
        Ok(self.ranking.advance(&mut self.store, &self.spec.windows, self.closed_through)?)
    }

    /// How many changes of a committed transaction still wait for the store.
    pub(crate) fn unapplied_changes(&self) -> u64 {
        if self.unapplied.is_some() { self.staged.batch.iter().count() as u64 } else { 0 }
    }

    /// Whether a committed transaction's changes still wait for the store.
    pub(crate) fn is_unsettled(&self) -> bool {
        self.unapplied.is_some()
    }

    /// The changelog offset before which nothing is needed any more, if it has moved.
    pub(crate) fn take_trim(&mut self) -> Option<(TopicPartition, Offset)> {
        Some((self.changelog.clone(), self.trim.take()?))
    }

    /// Forgets what the transaction being built would have changed.
    pub(crate) fn rollback(&mut self) {
        if self.unapplied.is_none() {
            self.staged.batch.clear();
            self.staged.changes.clear();
        }
        self.closing = self.committed_closing.clone();
    }

    fn emits_on_close(&self) -> bool {
        self.spec.emit == EmitStrategy::OnWindowClose && self.output.is_some()
    }
}

impl Staged {
    fn add(&mut self, changed: &ChangedRow<'_>) {
        self.batch.put(Space::Rows, &row::key(changed.start, changed.key), changed.row);
        let change = self.changes.entry(changed.start).or_default();
        change.rows += i64::from(changed.is_new);
        change.weight += changed.weight_added;
    }
}
