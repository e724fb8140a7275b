//! Bringing a window store to the end of its changelog.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::registry::RestoreProgress;
use crate::broker::{Broker, BrokerError, ErrorKind, FetchedBatch, Isolation, LogReader};
use crate::clock::Clock;
use crate::record::{Offset, Record, Timestamp, TopicPartition};
use crate::serdes::WindowedKey;
use crate::store::window_store::{WindowChange, WindowStore};
use crate::store::{Space, StateStore, StoreBatch, StoreIdentity, StoreProvider, row};
use crate::task::counted_with::CountedWith;
use crate::task::{Grouping, TaskError};

/// How often a restore says in the log how far it is.
const TELL_INTERVAL: Duration = Duration::from_secs(5);

/// A store being restored.
pub(crate) struct Restoration<B: Broker> {
    store: WindowStore,
    reader: B::Reader,
    grouping: Arc<dyn Grouping>,
    changelog: TopicPartition,
    progress: RestoreProgress,
    began: Timestamp,
    told: Timestamp,
}

/// What a restore begins from.
pub(crate) struct RestoreFrom<'a, B: Broker> {
    pub(crate) broker: &'a B,
    pub(crate) provider: &'a dyn StoreProvider,
    pub(crate) store_name: &'a str,
    pub(crate) identity: StoreIdentity,
    pub(crate) changelog: TopicPartition,
    pub(crate) grouping: Arc<dyn Grouping>,
    pub(crate) now: Timestamp,
}

impl<B: Broker> Restoration<B> {
    /// Opens the store, throws it away where it belongs to another log or is garbled, and finds where to read on.
    pub(crate) fn begin(from: RestoreFrom<'_, B>) -> Result<Self, TaskError> {
        let RestoreFrom { broker, changelog, grouping, now, .. } = &from;
        // The high watermark: a transaction that is still open there is waited for, whoever left it.
        let log = broker.log_range(changelog, Isolation::ReadUncommitted)?;
        let mut store = open_or_rebuild(&from, log.start, log.end)?;
        let position = match store.position() {
            Some(position) => position,
            None => {
                store.initialise(&from.identity, log.start)?;
                log.start
            }
        };
        let reader = broker.reader(changelog, position)?;
        let progress = RestoreProgress { from: position, position, end: log.end, records: 0, elapsed: Duration::ZERO };
        Ok(Self { store, reader, grouping: grouping.clone(), changelog: changelog.clone(), progress, began: *now, told: *now })
    }

    pub(crate) fn progress(&self) -> RestoreProgress {
        self.progress
    }

    pub(crate) fn state_store(&self) -> &Arc<dyn StateStore> {
        self.store.state_store()
    }

    /// The position of the task's input that was committed last with what the store holds, as far as the store knows.
    pub(crate) fn committed_input(&self) -> Option<Offset> {
        self.store.input()
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.progress.position >= self.progress.end
    }

    /// The restored store.
    pub(crate) fn finish(self) -> WindowStore {
        self.store
    }

    /// Reads and applies one batch, and says now and then how far it is.
    pub(crate) fn advance(&mut self, max_wait: Duration, clock: &dyn Clock) -> Result<(), TaskError> {
        self.read_batch(max_wait)?;
        let now = clock.now();
        let since = |then: Timestamp| Duration::from_millis(now.0.saturating_sub(then.0).max(0) as u64);
        self.progress.elapsed = since(self.began);
        if since(self.told) >= TELL_INTERVAL {
            self.told = now;
            let RestoreProgress { position, end, records, .. } = self.progress;
            let (rate, left) = (self.progress.records_per_second(), self.progress.time_left());
            tracing::info!(
                changelog = %self.changelog, records, %position, %end, records_per_second = rate,
                seconds_left = left.map(|left| left.as_secs()), "a store is being restored"
            );
        }
        Ok(())
    }

    fn read_batch(&mut self, max_wait: Duration) -> Result<(), TaskError> {
        let Some(batch) = self.reader.read(max_wait)? else {
            // Offsets at the end may hold no record: the reader's position passes them.
            self.progress.position = self.progress.position.max(self.reader.position());
            return Ok(());
        };
        let mut records = Vec::new();
        batch.records(&mut records)?;
        self.apply(&records, batch.next_offset())?;
        self.progress.records += records.len() as u64;
        self.progress.position = self.reader.position().max(batch.next_offset());
        Ok(())
    }

    fn apply(&mut self, records: &[Record<'_>], position: Offset) -> Result<(), TaskError> {
        let mut latest: BTreeMap<Vec<u8>, &Record<'_>> = BTreeMap::new();
        for record in records {
            let key = record.key.and_then(WindowedKey::decode_from_changelog);
            let WindowedKey { key, start } = key.ok_or_else(|| self.unreadable(record))?;
            latest.insert(row::key(start, key), record);
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
                        self.grouping.output_of_row(start, row, &mut output).ok_or_else(|| row::unreadable(start, key))?;
                    weight
                }
                None => 0,
            };
            let after = match record.value {
                Some(value) => {
                    let restored = self.grouping.row_of_changelog(start, record.timestamp, value);
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
        self.store.apply(&mut batch, &changes, position, None)?;
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

fn open_or_rebuild<B: Broker>(from: &RestoreFrom<'_, B>, log_start: Offset, log_end: Offset) -> Result<WindowStore, TaskError> {
    let RestoreFrom { provider, store_name, changelog, identity, .. } = from;
    let partition = changelog.partition;
    let opened = provider.open(store_name, partition).and_then(WindowStore::open);
    let reason = match opened {
        Ok(store) => match rebuild_reason(&store, identity, log_start, log_end)? {
            None => return Ok(store),
            Some(reason) => reason,
        },
        Err(error) if error.kind() == crate::store::StoreErrorKind::Corrupt => error.to_string(),
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

/// The error for a position that the log no longer has.
pub(crate) fn gap(partition: &TopicPartition, position: Offset, start: Offset) -> BrokerError {
    BrokerError::new(
        ErrorKind::OffsetOutOfRange,
        format!(
            "{partition} begins at offset {start}, but the group has read only up to {position}: {} records were deleted before they were \
             counted; accept the loss and go on at {start} (clickmill reset --accept-gap), count what is left anew (clickmill reset), or \
             count it under another application id",
            start.0 - position.0
        ),
    )
}
