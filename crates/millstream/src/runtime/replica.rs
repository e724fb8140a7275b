//! A copy of a window store that tails its changelog: what restores, standbys and warm-ups are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::registry::RestoreProgress;
use crate::broker::{Broker, FetchedBatch, Isolation, LogReader};
use crate::clock::Clock;
use crate::record::{Offset, Record, Timestamp, TopicPartition};
use crate::serdes::WindowedKey;
use crate::store::window_store::{WindowChange, WindowStore};
use crate::store::{Space, StateStore, StoreBatch, StoreErrorKind, StoreIdentity, StoreProvider, row};
use crate::task::WindowedSpec;
use crate::task::counted_with::CountedWith;
use crate::task::output::Ranking;
use crate::task::{TaskError, TopicIdentity};

/// How often a replica that is behind says in the log how far it is.
const TELL_INTERVAL: Duration = Duration::from_secs(5);

/// How often a copy looks how far its owner is, in milliseconds.
const LOOK_INTERVAL_MS: i64 = 1_000;

/// A copy of a window store, brought up to the end of its changelog, or kept there. It is promoted in place: the store stays open.
pub(crate) struct Replica<B: Broker> {
    store: WindowStore,
    reader: B::Reader,
    spec: WindowedSpec,
    changelog: TopicPartition,
    progress: RestoreProgress,
    /// Windows that start before it have expired.
    kept_from: Timestamp,
    /// Windows that end at or before it change no more, by what was known of the owner before the log's end was looked up last; and those of them that
    /// lie here as they will stay.
    done: Timestamp,
    complete: Timestamp,
    ranking: Ranking,
    began: Timestamp,
    told: Timestamp,
    looked: Timestamp,
}

/// What a replica is a copy of, and where it is.
pub(crate) struct ReplicaOf<'a, B: Broker> {
    pub(crate) broker: &'a B,
    pub(crate) provider: &'a dyn StoreProvider,
    pub(crate) identity: StoreIdentity,
    pub(crate) changelog: TopicPartition,
    pub(crate) spec: WindowedSpec,
    /// How many rows of each final window are ranked.
    pub(crate) ranked_rows: usize,
    pub(crate) now: Timestamp,
}

impl<B: Broker> Replica<B> {
    /// Goes on with a store that is open, or opens it; throws it away where it belongs to another log, is garbled, or lies before the
    /// changelog's start; and finds where to read on.
    pub(crate) fn begin(of: ReplicaOf<'_, B>, open: Option<WindowStore>) -> Result<Self, TaskError> {
        let ReplicaOf { broker, changelog, .. } = &of;
        // The high watermark: a transaction that is still open there is waited for, whoever left it.
        let log = broker.log_range(changelog, Isolation::ReadUncommitted)?;
        let mut store = open_or_rebuild(&of, open, log.start, log.end)?;
        let position = match store.position() {
            Some(position) => position,
            None => {
                store.initialise(&of.identity, log.start)?;
                log.start
            }
        };
        let reader = broker.reader(changelog, position)?;
        let progress = RestoreProgress { from: position, position, end: log.end, records: 0, elapsed: Duration::ZERO };
        let ReplicaOf { spec, changelog, now, ranked_rows, .. } = of;
        let none = Timestamp(0);
        Ok(Self {
            store,
            reader,
            spec,
            changelog,
            progress,
            kept_from: none,
            done: none,
            complete: none,
            ranking: Ranking::new(ranked_rows),
            began: now,
            told: now,
            looked: now,
        })
    }

    pub(crate) fn progress(&self) -> RestoreProgress {
        self.progress
    }

    /// How many changelog records it is behind the end that it knows of.
    pub(crate) fn lag(&self) -> u64 {
        (self.progress.end.0 - self.progress.position.0).max(0) as u64
    }

    pub(crate) fn changelog(&self) -> &TopicPartition {
        &self.changelog
    }

    pub(crate) fn state_store(&self) -> &Arc<dyn StateStore> {
        self.store.state_store()
    }

    /// The task's input is that topic.
    pub(crate) fn read_from(&mut self, topic: TopicIdentity) -> Result<(), TaskError> {
        Ok(self.store.read_from(topic.to_bytes())?)
    }

    /// The position of the task's input that was committed last with what the store holds, as far as the store knows.
    pub(crate) fn committed_input(&self) -> Option<Offset> {
        self.store.input()
    }

    pub(crate) fn is_caught_up(&self) -> bool {
        self.progress.position >= self.progress.end
    }

    /// Its owner has nothing more to do with the windows that end at or before `done`: those whose retention is over expire here as there,
    /// and what the changelog still holds of them is passed over. The end of the log that is looked up next lies behind all that they hold.
    pub(crate) fn owner_is_done(&mut self, done: Timestamp) -> Result<(), TaskError> {
        self.done = self.done.max(done);
        self.kept_from = self.kept_from.max(self.spec.kept_from(done));
        self.store.expire(self.kept_from)?;
        Ok(())
    }

    /// Whether it is time to look again how far its owner is.
    pub(crate) fn is_to_look(&self, now: Timestamp) -> bool {
        !(0..LOOK_INTERVAL_MS).contains(&(now.0 - self.looked.0))
    }

    /// The changelog's end is there now.
    pub(crate) fn look(&mut self, end: Offset, now: Timestamp) {
        (self.progress.end, self.looked) = (end, now);
        self.ranking.resume();
    }

    /// Ranks a piece of a final window, as the owner does, so that the largest counts are found as quickly when this copy takes over. Gives whether there was
    /// one.
    pub(crate) fn derive(&mut self) -> Result<bool, TaskError> {
        if !self.is_caught_up() {
            return Ok(false);
        }
        self.complete = self.complete.max(self.done);
        Ok(self.ranking.advance(&mut self.store, &self.spec.windows, self.complete)?)
    }

    /// The store, for its task to go on with, or for another attempt.
    pub(crate) fn into_store(self) -> WindowStore {
        self.store
    }

    /// Reads and applies one batch, and says now and then how far it is. Gives whether there was one.
    ///
    /// # Errors
    /// Where nothing was applied. [`crate::broker::ErrorKind::OffsetOutOfRange`] where the changelog begins behind it by now: begin again.
    pub(crate) fn tail(&mut self, max_wait: Duration, clock: &dyn Clock) -> Result<bool, TaskError> {
        let has_read = self.read_batch(max_wait)?;
        let now = clock.now();
        let since = |then: Timestamp| Duration::from_millis(now.0.saturating_sub(then.0).max(0) as u64);
        self.progress.elapsed = since(self.began);
        if since(self.told) >= TELL_INTERVAL && !self.is_caught_up() {
            self.told = now;
            let RestoreProgress { position, end, records, .. } = self.progress;
            let (rate, left) = (self.progress.records_per_second(), self.progress.time_left());
            tracing::info!(
                changelog = %self.changelog, records, %position, %end, records_per_second = rate,
                seconds_left = left.map(|left| left.as_secs()), "a store is being restored"
            );
        }
        Ok(has_read)
    }

    fn read_batch(&mut self, max_wait: Duration) -> Result<bool, TaskError> {
        let Some(batch) = self.reader.read(max_wait)? else {
            // Offsets at the end may hold no record: the reader's position passes them.
            self.progress.position = self.progress.position.max(self.reader.position());
            return Ok(false);
        };
        let mut records = Vec::new();
        batch.records(&mut records)?;
        self.apply(&records, batch.next_offset())?;
        self.progress.records += records.len() as u64;
        self.progress.position = self.reader.position().max(batch.next_offset());
        Ok(true)
    }

    fn apply(&mut self, records: &[Record<'_>], position: Offset) -> Result<(), TaskError> {
        let mut latest: BTreeMap<Vec<u8>, &Record<'_>> = BTreeMap::new();
        for record in records {
            let key = record.key.and_then(WindowedKey::decode_from_changelog);
            let WindowedKey { key, start } = key.ok_or_else(|| self.unreadable(record))?;
            if start >= self.kept_from {
                latest.insert(row::key(start, key), record);
            }
        }
        let keys: Vec<Vec<u8>> = latest.keys().cloned().collect();
        let stored = self.store.multi_get(&keys)?;
        let mut batch = StoreBatch::new();
        let mut changes: BTreeMap<Timestamp, WindowChange> = BTreeMap::new();
        for ((row_key, record), stored) in latest.into_iter().zip(stored) {
            let (start, key) = row::split_key(&row_key).ok_or_else(|| self.unreadable(record))?;
            let mut output = Vec::new();
            let before = match &stored {
                Some(row) => {
                    let (_, weight) =
                        self.spec.grouping.output_of_row(start, row, &mut output).ok_or_else(|| row::unreadable(start, key))?;
                    weight
                }
                None => 0,
            };
            let after = match record.value {
                Some(value) => {
                    let restored = self.spec.grouping.row_of_changelog(start, record.timestamp, value);
                    let (row, weight) = restored.ok_or_else(|| self.unreadable(record))?;
                    batch.put(Space::Rows, &row_key, &row);
                    weight
                }
                None => {
                    batch.delete(Space::Rows, &row_key);
                    0
                }
            };
            let change = changes.entry(start).or_default();
            change.rows += i64::from(record.value.is_some()) - i64::from(stored.is_some());
            change.weight += after - before;
            change.first_offset = Some(change.first_offset.map_or(record.offset, |first| first.min(record.offset)));
        }
        self.store.restore(&mut batch, &changes, position)?;
        Ok(())
    }

    fn unreadable(&self, record: &Record<'_>) -> TaskError {
        TaskError::Stop(format!(
            "record {}@{} is not what this store writes to its changelog: another program or topology wrote it; use another \
             application id, or reset the application (clickmill reset)",
            self.changelog, record.offset
        ))
    }
}

fn open_or_rebuild<B: Broker>(
    of: &ReplicaOf<'_, B>,
    open: Option<WindowStore>,
    log_start: Offset,
    log_end: Offset,
) -> Result<WindowStore, TaskError> {
    let ReplicaOf { provider, spec, changelog, identity, .. } = of;
    let store_name = &*spec.store;
    let partition = changelog.partition;
    let opened = match open {
        Some(store) => Ok(store),
        None => provider.open(store_name, partition).and_then(WindowStore::open),
    };
    let reason = match opened {
        Ok(store) => match rebuild_reason(&store, identity, log_start, log_end)? {
            None => return Ok(store),
            // It is closed here, so that it can be removed.
            Some(reason) => reason,
        },
        Err(error) if error.kind() == StoreErrorKind::Corrupt => error.to_string(),
        Err(error) => return Err(error.into()),
    };
    tracing::warn!(store = %store_name, %partition, reason, "the store is rebuilt from its changelog");
    provider.destroy(store_name, partition)?;
    if log_start > Offset::ZERO {
        tracing::info!(store = %store_name, %partition, %log_start, "the changelog begins later than at 0: what lay before has expired");
    }
    Ok(WindowStore::open(provider.open(store_name, partition)?)?)
}

/// Why a store cannot be used as it is, if so.
fn rebuild_reason(
    store: &WindowStore,
    expected: &StoreIdentity,
    log_start: Offset,
    log_end: Offset,
) -> Result<Option<String>, TaskError> {
    let Some(found) = store.identity() else {
        return Ok(store.position().map(|_| "it does not say what it belongs to".to_owned()));
    };
    let belongs = |to: &StoreIdentity| StoreIdentity { window_size_ms: 0, keyed: false, ..to.clone() };
    if belongs(found) != belongs(expected) {
        return Ok(Some(format!("it belongs to {found:?}, not to {expected:?}")));
    }
    let counted_with = |identity: &StoreIdentity| CountedWith { window_size_ms: identity.window_size_ms, keyed: identity.keyed };
    if let Some(reason) = counted_with(found).conflict(counted_with(expected)) {
        return Err(TaskError::Stop(reason));
    }
    let position = store.position().unwrap_or(log_start);
    Ok(if position > log_end {
        Some(format!("its position {position} lies past the changelog's end {log_end}"))
    } else if position < log_start {
        Some(format!("its position {position} lies before the changelog's start {log_start}"))
    } else {
        None
    })
}
