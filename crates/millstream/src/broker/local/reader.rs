//! Reads one partition outside any group.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::super::{BrokerError, FetchedBatch, LogReader};
use super::fetch::{LocalBatch, fetch, out_of_range};
use super::state::State;
use super::storage::LogStorage;
use super::{Shared, lock};
use crate::record::{Offset, TopicPartition};

/// A reader of one partition of a [`super::LocalBroker`].
#[derive(Debug)]
pub struct LocalReader<S: LogStorage> {
    shared: Arc<Shared<S>>,
    partition: TopicPartition,
    position: Offset,
}

impl<S: LogStorage> LocalReader<S> {
    pub(super) fn new(shared: Arc<Shared<S>>, partition: &TopicPartition, from: Offset) -> Result<Self, BrokerError> {
        lock(&shared.state).log(partition)?;
        Ok(Self { shared, partition: partition.clone(), position: from })
    }

    fn at_end(&self, state: &State) -> bool {
        state.logs.get(&self.partition).is_some_and(|log| log.start <= self.position && log.last_stable() <= self.position)
    }
}

impl<S: LogStorage> LogReader for LocalReader<S> {
    type Batch = LocalBatch;

    fn read(&mut self, max_wait: Duration) -> Result<Option<LocalBatch>, BrokerError> {
        let mut state = lock(&self.shared.state);
        if !max_wait.is_zero() {
            let waiting = self.shared.changed.wait_timeout_while(state, max_wait, |state| self.at_end(state));
            state = waiting.unwrap_or_else(PoisonError::into_inner).0;
        }
        let (id, before) = {
            let log = state.log(&self.partition)?;
            (log.id, log.last_stable())
        };
        drop(state);
        let fetched = match self.position < before {
            true => Some(fetch(&self.shared.storage, id, &self.partition, self.position, before)?),
            false => None,
        };
        // Looked at after the read: what was deleted meanwhile must not be passed over in silence.
        let (start, end) = {
            let state = lock(&self.shared.state);
            let log = state.log(&self.partition)?;
            (log.start, log.end)
        };
        if self.position < start || self.position > end {
            return Err(out_of_range(&self.partition, self.position, start, end));
        }
        if let Some(batch) = &fetched {
            self.position = batch.next_offset();
        }
        Ok(fetched)
    }

    fn position(&self) -> Offset {
        self.position
    }
}
