//! The stored side of a windowed aggregate: what a commit changes in the window store, the changelog records that go with it, and
//! the final windows that are sent on.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::TaskError;
use super::super::grouping::{ChangedRow, Partials};
use super::super::processor::{Closed, Entries, Output, Trim};
use super::closing::{Closing, Rows};
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
pub(crate) struct ResultTopic {
    /// The topic, and the partition of it that this task's final windows go to.
    pub(crate) partition: TopicPartition,
    /// How many partitions the topic has.
    pub(crate) partitions: u32,
    /// How many rows of final windows one commit sends.
    pub(crate) rows_per_commit: usize,
}

/// The window store of a running task, with what the transaction being built changes in it.
pub(crate) struct WindowedState {
    spec: WindowedSpec,
    partials: Box<dyn Partials>,
    /// The rows that the partial aggregates belong to, in their order.
    stored: Vec<Option<Vec<u8>>>,
    store: WindowStore,
    changelog: TopicPartition,
    output: Option<ResultTopic>,
    closing: Closing,
    committed_closing: Closing,
    /// The store's own closed_through as last committed: windows up to it are final and their rows are all in the store.
    closed_through: Timestamp,
    staged: Staged,
    /// A committed transaction's changes that the store has not taken yet: the positions of changelog and input that they lead to.
    unapplied: Option<(Offset, Offset)>,
    trim: Option<Trim>,
    ranking: Ranking,
}

/// What the transaction being built changes.
#[derive(Default)]
struct Staged {
    batch: StoreBatch,
    changes: BTreeMap<Timestamp, WindowChange>,
}

impl WindowedState {
    pub(crate) fn new(
        spec: WindowedSpec,
        store: WindowStore,
        changelog: TopicPartition,
        output: Option<ResultTopic>,
        closing: Closing,
        closed_through: Timestamp,
        ranking: Ranking,
    ) -> Self {
        let partials = spec.grouping.clone().partials();
        let committed_closing = closing.clone();
        Self {
            spec,
            partials,
            stored: Vec::new(),
            store,
            changelog,
            output,
            closing,
            committed_closing,
            closed_through,
            staged: Staged::default(),
            unapplied: None,
            trim: None,
            ranking,
        }
    }

    fn send_rows(&mut self, producer: &mut dyn TransactionalProducer) -> Result<(), TaskError> {
        let Self { staged, changelog, spec, output, partials, stored, .. } = self;
        let emit = output.as_ref().filter(|_| spec.emit == EmitStrategy::OnWindowUpdate);
        let mut key_bytes = Vec::new();
        partials.merge_into_rows(stored, &mut |changed| {
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

    fn send_final_windows(&mut self, producer: &mut dyn TransactionalProducer) -> Result<(), TaskError> {
        let Some(output) = self.output.as_ref().filter(|_| self.spec.sends_final_windows()) else { return Ok(()) };
        let rows = Rows { store: &self.store, grouping: &*self.spec.grouping };
        let limit = output.rows_per_commit;
        self.closing.send(self.closed_through, limit, &self.spec.windows, &rows, &output.partition, producer)
    }

    fn expire(&mut self) -> Result<(), StoreError> {
        // A window stays until it has been sent on, too.
        let done = if self.spec.sends_final_windows() { Timestamp(self.committed_closing.through) } else { self.closed_through };
        if self.store.expire(self.spec.kept_from(done))? {
            let before = self.store.needed_from();
            let trim =
                |before| Trim { log: self.changelog.clone(), before, flush: Some(Arc::downgrade(self.store.state_store())) };
            self.trim = before.map(trim);
        }
        Ok(())
    }
}

impl Output for WindowedState {
    type Kept = dyn Partials;

    fn kept(&mut self) -> &mut Self::Kept {
        &mut *self.partials
    }

    fn bytes(&self) -> usize {
        self.partials.bytes()
    }

    /// Whether final windows wait to be sent on.
    fn wants_commit(&self) -> bool {
        self.spec.sends_final_windows() && self.closing.is_behind(self.closed_through)
    }

    fn prepare(&mut self) -> Result<(), TaskError> {
        self.stored.clear();
        if self.partials.is_empty() {
            // A commit without any lets the memory of those before go.
            self.partials.clear();
        } else {
            self.stored = self.store.multi_get(&self.partials.sorted_row_keys())?;
        }
        if self.spec.sends_final_windows() && self.closing.is_behind(self.closed_through) {
            let rows = Rows { store: &self.store, grouping: &*self.spec.grouping };
            self.committed_closing.prepare(self.closed_through, &self.spec.windows, &rows)?;
            self.closing = self.committed_closing.clone();
        }
        Ok(())
    }

    /// Sends the changelog records of the changed rows, what is to be emitted with them, and a piece of the final windows.
    fn send(&mut self, _: Closed, producer: &mut dyn TransactionalProducer) -> Result<(), TaskError> {
        if !self.partials.is_empty() {
            self.send_rows(producer)?;
        }
        self.send_final_windows(producer)
    }

    fn entries(&self) -> Entries {
        let mut entries = Entries::new();
        self.closing.put_entries(&mut entries);
        entries
    }

    fn committed(&mut self, delivered: &Delivered, closed_through: Timestamp, input: Offset) {
        self.stored = Vec::new();
        self.committed_closing = self.closing.clone();
        self.closed_through = self.closed_through.max(closed_through);
        self.ranking.resume();
        if let Some(&(first, last)) = delivered.get(&self.changelog) {
            for change in self.staged.changes.values_mut() {
                change.first_offset = Some(first);
            }
            self.unapplied = Some((last.next(), input));
        }
    }

    fn rollback(&mut self) {
        self.partials.clear();
        self.stored = Vec::new();
        if self.unapplied.is_none() {
            self.staged.batch.clear();
            self.staged.changes.clear();
        }
        self.closing = self.committed_closing.clone();
    }

    /// Applies what has committed, then removes windows past their retention. The changelog holds the changes of a store that cannot
    /// take them.
    fn settle(&mut self) -> Result<(), TaskError> {
        if let Some((position, input)) = self.unapplied {
            self.store.apply(&mut self.staged.batch, &self.staged.changes, position, input)?;
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

    fn unapplied_changes(&self) -> u64 {
        if self.unapplied.is_some() { self.staged.batch.iter().count() as u64 } else { 0 }
    }

    /// Ranks a piece of the final windows.
    fn derive(&mut self) -> Result<bool, TaskError> {
        // A store that waits for its changes does not hold all rows of the windows that those have closed.
        if self.unapplied.is_some() {
            return Ok(false);
        }
        Ok(self.ranking.advance(&mut self.store, &self.spec.windows, self.closed_through)?)
    }

    fn take_trim(&mut self) -> Option<Trim> {
        self.trim.take()
    }

    fn writes_to(&self, partition: &TopicPartition) -> bool {
        let is_output = |output: &ResultTopic| match self.spec.emit {
            EmitStrategy::OnWindowClose => output.partition == *partition,
            EmitStrategy::OnWindowUpdate => output.partition.topic == partition.topic,
        };
        self.changelog == *partition || self.output.as_ref().is_some_and(is_output)
    }

    fn state_store(&self) -> Option<&Arc<dyn StateStore>> {
        Some(self.store.state_store())
    }

    fn into_store(self) -> Option<WindowStore> {
        Some(self.store)
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
