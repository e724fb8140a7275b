//! Fetches from many partitions by turns, outside any group.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::super::{BrokerError, ErrorKind, Fetched, FetchedBatch, Fetcher};
use super::fetch::{LocalBatch, fetch, out_of_range};
use super::log::Log;
use super::state::State;
use super::storage::{LogId, LogStorage};
use super::{Shared, lock};
use crate::record::{Offset, TopicPartition};

/// A fetcher of a [`super::LocalBroker`]. It reads when it is polled, and holds nothing that was fetched before.
#[derive(Debug)]
pub struct LocalFetcher<S: LogStorage> {
    shared: Arc<Shared<S>>,
    /// The positions of the partitions that are fetched.
    fetching: BTreeMap<TopicPartition, Offset>,
    /// The partition fetched last: the next one in order has its turn.
    latest: Option<TopicPartition>,
}

/// What a poll is to fetch.
struct Next {
    partition: TopicPartition,
    log: LogId,
    from: Offset,
    before: Offset,
}

impl<S: LogStorage> LocalFetcher<S> {
    pub(super) fn new(shared: Arc<Shared<S>>) -> Self {
        Self { shared, fetching: BTreeMap::new(), latest: None }
    }

    /// The next partition in turn that has something to fetch, or whose position its log does not have.
    fn next(&self, state: &State) -> Option<Next> {
        let is_after = |partition: &TopicPartition| self.latest.as_ref().is_none_or(|latest| partition > latest);
        let after = self.fetching.iter().filter(|(partition, _)| is_after(partition));
        let around = self.fetching.iter().filter(|(partition, _)| !is_after(partition));
        after.chain(around).find_map(|(partition, &from)| {
            let log = state.logs.get(partition)?;
            let before = log.last_stable();
            let ready = from < before || !has(log, from);
            ready.then(|| Next { partition: partition.clone(), log: log.id, from, before })
        })
    }

    fn read(&self, next: &Next) -> Result<LocalBatch, BrokerError> {
        let fetched = fetch(&self.shared.storage, next.log, &next.partition, next.from, next.before);
        // Looked at after the read: what was deleted from the head meanwhile must not be passed over in silence.
        let state = lock(&self.shared.state);
        let log = state.log(&next.partition)?;
        match has(log, next.from) {
            true => fetched,
            false => Err(out_of_range(&next.partition, next.from, log.start, log.end)),
        }
    }
}

/// Whether a position is one of the log's: that of a record it holds, or of the next one to come.
fn has(log: &Log, position: Offset) -> bool {
    log.start <= position && position <= log.end
}

impl<S: LogStorage> Fetcher for LocalFetcher<S> {
    type Batch = LocalBatch;

    fn start(&mut self, partition: &TopicPartition, from: Offset) -> Result<(), BrokerError> {
        lock(&self.shared.state).log(partition).map_err(|error| error.of_partition(partition.clone()))?;
        self.fetching.insert(partition.clone(), from);
        Ok(())
    }

    fn stop(&mut self, partition: &TopicPartition) {
        self.fetching.remove(partition);
    }

    /// An error of kind [`ErrorKind::Retry`] is of the partition that it names, which stays fetched: it passes, while
    /// [`Fetched::Failed`] would stop it. The other partitions have their turns before it is tried again.
    fn poll(&mut self, max_wait: Duration) -> Result<Fetched<LocalBatch>, BrokerError> {
        let next = {
            let mut state = lock(&self.shared.state);
            if !max_wait.is_zero() {
                let waiting = self.shared.changed.wait_timeout_while(state, max_wait, |state| self.next(state).is_none());
                state = waiting.unwrap_or_else(PoisonError::into_inner).0;
            }
            self.next(&state)
        };
        let Some(next) = next else { return Ok(Fetched::Nothing) };
        let read = self.read(&next);
        let partition = next.partition;
        self.latest = Some(partition.clone());
        match read {
            Ok(batch) => {
                self.fetching.insert(partition, batch.next_offset());
                Ok(Fetched::Batch(batch))
            }
            Err(error) if error.kind() == ErrorKind::Retry => Err(error.of_partition(partition)),
            Err(error) => {
                self.fetching.remove(&partition);
                Ok(Fetched::Failed(partition.clone(), error.of_partition(partition)))
            }
        }
    }
}
