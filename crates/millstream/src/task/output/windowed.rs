//! The stored side of a windowed aggregate: what a commit changes in the window store, the changelog records that go with it, and
//! the final windows that are sent on.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::grouping::{ChangedRow, Partials};
use super::super::processor::{Closed, Entries, Output, Trim};
use super::super::stored_rows::StoredRows;
use super::super::{EmitStrategy, WindowedSpec};
use super::super::{OutputBuffer, TaskError};
use super::closing::{Closing, Rows};
use super::ranking::Ranking;
use crate::broker::{Delivered, TransactionalProducer};
use crate::partitioner::partition_for_key;
use crate::record::{Offset, Record, Timestamp, TopicPartition};
use crate::serdes::WindowedKey;
use crate::store::window_store::{WindowChange, WindowStore};
use crate::store::{Space, StateStore, StoreBatch, StoreError, StoreErrorKind, row};

/// How many rows are read at once of those that a commit changes.
const KEYS_AT_ONCE: usize = 4_096;

/// What a row takes in memory that a commit reads, as long as none has told: that of a count.
const USUAL_ROW_BYTES: usize = 16;

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
    stored: StoredRows,
    /// What one of them took on average in the last commit.
    stored_row_bytes: usize,
    store: WindowStore,
    changelog: TopicPartition,
    output: Option<ResultTopic>,
    closing: Closing,
    committed_closing: Closing,
    /// The piece of the final windows that the next transaction sends.
    piece: OutputBuffer,
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
            stored: StoredRows::default(),
            stored_row_bytes: USUAL_ROW_BYTES,
            store,
            changelog,
            output,
            closing,
            committed_closing,
            piece: OutputBuffer::default(),
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

    /// Reads the rows that the partial aggregates belong to.
    fn read_stored(&mut self) -> Result<(), StoreError> {
        let keys = self.partials.len();
        self.partials.sort();
        self.stored = StoredRows::with_capacity(keys);
        for from in (0..keys).step_by(KEYS_AT_ONCE) {
            let rows = self.store.multi_get(&self.partials.row_keys(from..keys.min(from + KEYS_AT_ONCE)))?;
            rows.iter().for_each(|row| self.stored.push(row.as_deref()));
        }
        self.stored_row_bytes = self.stored.bytes() / keys.max(1);
        Ok(())
    }

    /// Reads the next piece of the final windows.
    fn read_final_windows(&mut self) -> Result<(), StoreError> {
        let Self { spec, store, output, closing, committed_closing, piece, closed_through, .. } = self;
        let Some(output) = output.as_ref().filter(|_| spec.sends_final_windows()) else { return Ok(()) };
        if !committed_closing.is_behind(*closed_through) {
            return Ok(());
        }
        let rows = Rows { store, grouping: &*spec.grouping };
        committed_closing.find_place(*closed_through, &spec.windows, &rows)?;
        *closing = committed_closing.clone();
        closing.read(*closed_through, output.rows_per_commit, &spec.windows, &rows, &output.partition, piece)
    }

    /// Lets go of what was read for a transaction.
    fn forget_read(&mut self) {
        self.stored = StoredRows::default();
        self.piece = OutputBuffer::default();
    }

    /// Forgets what a transaction was to change, unless it has committed.
    fn forget_staged(&mut self) {
        if self.unapplied.is_none() {
            self.staged.batch.clear();
            self.staged.changes.clear();
        }
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

    /// With the rows that the next commit will read for what is kept: until then there is no telling but by the commit before.
    fn bytes(&self) -> usize {
        let stored = self.stored.bytes().max(self.partials.len() * self.stored_row_bytes);
        self.partials.bytes() + stored + self.piece.bytes()
    }

    /// Whether final windows wait to be sent on.
    fn wants_commit(&self) -> bool {
        self.spec.sends_final_windows() && self.closing.is_behind(self.closed_through)
    }

    fn prepare(&mut self) -> Result<(), TaskError> {
        self.forget_read();
        if self.partials.is_empty() {
            // A commit without any lets the memory of those before go.
            self.partials.clear();
            self.forget_staged();
        } else {
            self.read_stored()?;
        }
        Ok(self.read_final_windows()?)
    }

    /// Sends the changelog records of the changed rows, what is to be emitted with them, and a piece of the final windows.
    fn send(&mut self, _: Closed, producer: &mut dyn TransactionalProducer) -> Result<(), TaskError> {
        if !self.partials.is_empty() {
            self.send_rows(producer)?;
        }
        Ok(self.piece.send(producer)?)
    }

    fn entries(&self) -> Entries {
        let mut entries = Entries::new();
        self.closing.put_entries(&mut entries);
        entries
    }

    fn committed(&mut self, delivered: &Delivered, closed_through: Timestamp, input: Offset) {
        self.forget_read();
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
        self.forget_read();
        self.forget_staged();
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::broker::local::{LocalProducer, MemoryBroker, MemoryLog};
    use crate::broker::{Broker, TopicSettings};
    use crate::clock::ManualClock;
    use crate::record::Partition;
    use crate::serdes::{Json, Utf8};
    use crate::store::memory::MemoryStore;
    use crate::task::repartition::Partial;
    use crate::time::TimeWindows;
    use crate::topology::spec::End;
    use crate::topology::{Materialized, StreamsBuilder};

    const WINDOW: Timestamp = Timestamp(0);
    const END: Timestamp = Timestamp(1_000);

    /// The state of a task that keeps texts, on a broker of its own.
    struct Kept {
        state: WindowedState,
        producer: LocalProducer<MemoryLog>,
    }

    impl Kept {
        fn new(rows_per_commit: usize) -> Self {
            let broker = MemoryBroker::in_memory(Arc::new(ManualClock::new(Timestamp(0))));
            for topic in ["changelog", "closed"] {
                broker.create_topic(topic, &TopicSettings::kept_for_ever(1)).unwrap();
            }
            let builder = StreamsBuilder::with_serdes(Utf8, Utf8);
            let windows = TimeWindows::of_size_with_no_grace(Duration::from_millis(END.0 as u64));
            let kept = Materialized::as_("texts").with_value_serde(Json::<String>::new());
            let windowed = builder.stream("words").group_by(|key, _| *key).windowed_by(windows);
            windowed
                .emit_strategy(EmitStrategy::OnWindowClose)
                .aggregate(String::new, |text, word| text.push_str(word), |text, other| text.push_str(&other), kept)
                .to("closed");
            let mut topology = builder.build().unwrap();
            let Some(End::Windowed(spec)) = topology.pipelines.pop().map(|pipeline| pipeline.end) else { panic!("an aggregate") };
            let partition = |topic: &str| TopicPartition::new(topic, Partition(0));
            let output = ResultTopic { partition: partition("closed"), partitions: 1, rows_per_commit };
            let store = WindowStore::open(Arc::new(MemoryStore::new())).unwrap();
            let closing = Closing::default();
            let state =
                WindowedState::new(spec, store, partition("changelog"), Some(output), closing, Timestamp(0), Ranking::new(0));
            Self { state, producer: broker.producer("producer").unwrap() }
        }

        fn merge(&mut self, keys: usize, text_bytes: usize) {
            let text = format!("{:?}", "x".repeat(text_bytes));
            for key in 0..keys {
                let key = format!("{key:08}");
                assert!(self.state.kept().merge(&Partial {
                    key: key.as_bytes(),
                    start: WINDOW,
                    latest: WINDOW,
                    acc: text.as_bytes()
                }));
            }
        }

        fn send(&mut self) {
            let closed = Closed { committed: Timestamp(0), working: Timestamp(0) };
            self.producer.begin().unwrap();
            self.state.send(closed, &mut self.producer).unwrap();
        }

        /// Gives how many records went to the topic of final windows.
        fn commit(&mut self, closed_through: Timestamp) -> i64 {
            self.state.prepare().unwrap();
            self.send();
            let delivered = self.producer.commit().unwrap();
            self.state.committed(&delivered, closed_through, Offset(0));
            self.state.settle().unwrap();
            delivered.get(&TopicPartition::new("closed", Partition(0))).map_or(0, |(first, last)| last.0 - first.0 + 1)
        }
    }

    #[test]
    fn a_commit_without_changes_lets_the_memory_of_large_ones_go() {
        let mut kept = Kept::new(10);
        for _ in 0..2 {
            kept.merge(20_000, 10);
            kept.commit(Timestamp(0));
        }
        assert!(kept.state.staged.batch.held() > 1 << 20, "two in a row are the usual");
        kept.commit(Timestamp(0));
        assert_eq!(kept.state.staged.batch.held(), 0);
    }

    #[test]
    fn what_is_read_for_a_transaction_counts_until_it_has_ended() {
        let mut kept = Kept::new(10);
        kept.merge(100, 1_000);
        kept.commit(END);
        for commits in [true, false] {
            kept.state.prepare().unwrap();
            let piece = kept.state.bytes();
            assert!((10_000..40_000).contains(&piece), "ten rows take {piece}");
            kept.send();
            match commits {
                true => {
                    let delivered = kept.producer.commit().unwrap();
                    kept.state.committed(&delivered, END, Offset(0));
                }
                false => {
                    kept.producer.abort().unwrap();
                    kept.state.rollback();
                }
            }
            assert_eq!((kept.state.bytes(), kept.state.piece.in_use()), (0, 0));
        }
    }

    #[test]
    fn the_rows_that_a_commit_will_read_count_before_it() {
        let (keys, text_bytes) = (1_000, 5_000);
        let mut kept = Kept::new(10);
        kept.merge(keys, text_bytes);
        assert!(kept.state.bytes() < keys * text_bytes, "nothing is known of the rows yet");
        // The first finds no rows, the second those of the first.
        kept.commit(Timestamp(0));
        kept.merge(keys, 1);
        kept.commit(Timestamp(0));
        assert_eq!(kept.state.bytes(), 0);
        kept.merge(keys, 1);
        assert!(kept.state.bytes() > keys * text_bytes, "{}", kept.state.bytes());
        kept.state.prepare().unwrap();
        assert!(kept.state.stored.bytes() > keys * text_bytes);
        kept.state.rollback();
        assert_eq!((kept.state.bytes(), kept.state.stored.bytes()), (0, 0));
    }

    #[test]
    fn a_piece_of_large_rows_is_smaller_and_nothing_is_left_out() {
        let (keys, text_bytes) = (4_000, 5_000);
        let mut kept = Kept::new(20_000);
        kept.merge(keys, text_bytes);
        kept.commit(END);
        let pieces: Vec<_> = (0..4).map(|_| kept.commit(END)).collect();
        assert_eq!(pieces, [2_048, 1_952 + 1, 0, 0], "of some 10 MB each, the last with the end record");
    }
}
