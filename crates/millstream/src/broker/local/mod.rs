//! A broker in one process, on a storage of its own: [`MemoryBroker`] in memory, and the embedded broker on RocksDB in
//! `millstream-rocksdb`. What follows is the same for both.
//!
//! - **A unit** is what becomes durable and visible together: the records and positions of a transaction, or the records of one
//!   intake request with its idempotency key. Nothing of a transaction reaches the log before it commits.
//! - **Group commit**: units that arrive while a write is under way are written together by the next one. The first to wait
//!   leads, so one thread alone always does the same in the same order.
//! - **Memory follows the storage**: topics, ends of logs and positions change in memory only after the write that changes them
//!   has succeeded. A failed write changes nothing, and is undone by the next one in case it turns up after all. Whoever it was
//!   for hears that the outcome is unknown, unless the storage can rule that out.
//! - **Locks** are taken in this order: maintenance, writer, state. The queue's is never held with another.

mod batch;
mod commit;
mod entries;
pub mod faults;
mod fetch;
mod fetcher;
mod group;
mod in_flight;
mod log;
mod maintenance;
mod membership;
mod memory;
mod plan;
mod producer;
mod reader;
mod state;
mod storage;
mod topics;
mod unit;
mod writer;

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

pub use fetch::LocalBatch;
pub use fetcher::LocalFetcher;
pub use maintenance::IDEMPOTENCY_KEPT_FOR;
pub use membership::{LocalCoordinator, LocalMembership};
pub use memory::{MemoryBroker, MemoryLog};
pub use producer::LocalProducer;
pub use reader::LocalReader;
pub use storage::{LogChange, LogId, LogStorage, LogWrite, VisitBatch, VisitEntry};
pub use unit::Unit;

use super::group::{Candidate, GroupMember};
use super::{Broker, BrokerError, CommittedOffset, Delivered, ErrorKind, Isolation, LogRange, TopicDescription, TopicSettings};
use crate::clock::Clock;
use crate::record::{Offset, TopicPartition};
use commit::Queue;
use maintenance::Maintenance;
use state::State;
use writer::Writer;

/// A partitioned log with groups and transactions in one process. Clones are the same broker.
#[derive(Debug)]
pub struct LocalBroker<S> {
    shared: Arc<Shared<S>>,
}

impl<S> Clone for LocalBroker<S> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

/// What became of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Appended {
    /// It is stored now, and these are the offsets of its records.
    Stored(Delivered),
    /// Its idempotency key was stored before, with this result. Nothing was added.
    AlreadyStored(Vec<u8>),
}

struct Shared<S> {
    storage: S,
    clock: Arc<dyn Clock>,
    cluster_id: String,
    state: Mutex<State>,
    /// Something changed that a poll or a read may wait for.
    changed: Condvar,
    writer: Mutex<Writer>,
    queue: Mutex<Queue>,
    queue_moved: Condvar,
    /// Taken before any other lock.
    maintenance: Mutex<Maintenance>,
}

impl<S> std::fmt::Debug for Shared<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("cluster_id", &self.cluster_id).finish_non_exhaustive()
    }
}

/// Locks; a thread that panicked changed nothing halfway, for every change is made after the storage has it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: LogStorage> LocalBroker<S> {
    /// Opens the broker on what the storage holds. An empty storage takes `new_cluster_id` as its identity for life.
    ///
    /// # Errors
    /// [`ErrorKind::Stop`] where the storage was written by another version or cannot be read.
    pub fn open(storage: S, clock: Arc<dyn Clock>, new_cluster_id: &str) -> Result<Self, BrokerError> {
        let cluster_id = identity(&storage, new_cluster_id)?;
        let state = Mutex::new(State::load(&storage)?);
        let (changed, writer, queue, queue_moved, maintenance) = Default::default();
        let shared = Shared { storage, clock, cluster_id, state, changed, writer, queue, queue_moved, maintenance };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Appends a unit: all of it or nothing. Returns once it is durable.
    ///
    /// # Errors
    /// [`ErrorKind::Retry`] where there is no room; nothing is stored, and the same unit may be given again.
    /// [`ErrorKind::OutcomeUnknown`] where the write was tried and failed: the unit cannot be read, but where the process dies
    /// before it goes on, it may be there after the next start. With an idempotency key it may be given again.
    pub fn append(&self, unit: Unit) -> Result<Appended, BrokerError> {
        self.shared.submit(Arc::new(unit))
    }

    /// The result that is stored with an idempotency key.
    ///
    /// # Errors
    /// Where the storage cannot be read.
    pub fn stored_result(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BrokerError> {
        self.shared.stored_result(key)
    }

    /// The storage beneath.
    pub fn storage(&self) -> &S {
        &self.shared.storage
    }
}

/// The cluster id that is stored, or the new one, stored now.
fn identity(storage: &impl LogStorage, new_cluster_id: &str) -> Result<String, BrokerError> {
    let Some(stored) = storage.entry(entries::IDENTITY)? else {
        let mut write = LogWrite::default();
        write.put_entry(entries::IDENTITY.to_vec(), entries::encode_identity(new_cluster_id));
        storage.write(&write)?;
        return Ok(new_cluster_id.to_owned());
    };
    match entries::decode_identity(&stored) {
        Some((entries::VERSION, cluster_id)) => Ok(cluster_id),
        Some((version, _)) => {
            let ours = entries::VERSION;
            let message = format!("the broker's log has format version {version}, and this program reads version {ours}");
            Err(BrokerError::new(ErrorKind::Stop, message))
        }
        None => Err(BrokerError::new(ErrorKind::Stop, "the broker's log has an identity that cannot be read")),
    }
}

impl<S: LogStorage> Broker for LocalBroker<S> {
    type Membership = LocalMembership<S>;
    type Fetcher = LocalFetcher<S>;
    type Producer = LocalProducer<S>;
    type Reader = LocalReader<S>;

    fn cluster_id(&self) -> Result<String, BrokerError> {
        Ok(self.shared.cluster_id.clone())
    }

    fn describe_topic(&self, topic: &str) -> Result<Option<TopicDescription>, BrokerError> {
        let state = lock(&self.shared.state);
        Ok(state.topics.get(topic).map(|known| TopicDescription {
            id: format!("{}-{}", self.shared.cluster_id, known.number),
            partitions: known.settings.partitions,
        }))
    }

    fn create_topic(&self, topic: &str, settings: &TopicSettings) -> Result<(), BrokerError> {
        self.shared.create_topic(topic, settings)
    }

    fn log_range(&self, partition: &TopicPartition, isolation: Isolation) -> Result<LogRange, BrokerError> {
        // A write that is under way belongs to the high watermark already.
        let _settled = (isolation == Isolation::ReadUncommitted).then(|| lock(&self.shared.writer));
        Ok(lock(&self.shared.state).log(partition)?.range(isolation))
    }

    fn delete_records(&self, partition: &TopicPartition, before: Offset) -> Result<(), BrokerError> {
        self.shared.delete_records(partition, before)
    }

    /// The positions of the group. A commit that is under way is waited for: whoever takes partitions over sees the last commit
    /// of whoever had them.
    ///
    /// # Errors
    /// [`ErrorKind::Retry`] while a transaction is open that would commit one of them.
    fn committed(&self, group: &str, partitions: &[TopicPartition]) -> Result<Vec<Option<CommittedOffset>>, BrokerError> {
        let _settled = lock(&self.shared.writer);
        let state = lock(&self.shared.state);
        if let Some(unsettled) = partitions.iter().find(|partition| state.open.touches(group, partition)) {
            let message = format!("the position of group {group} in {unsettled} is part of a transaction that is still open");
            return Err(BrokerError::new(ErrorKind::Retry, message));
        }
        let none = BTreeMap::new();
        let offsets = state.groups.get(group).map_or(&none, |group| &group.offsets);
        Ok(partitions.iter().map(|partition| offsets.get(partition).cloned()).collect())
    }

    /// A member gets a new name in any case: memberships do not outlive the process.
    fn join(&self, candidate: &Candidate) -> Result<Self::Membership, BrokerError> {
        let line = LocalCoordinator::new(&self.shared, candidate)?;
        Ok(GroupMember::new(line, candidate.clone(), self.shared.clone()))
    }

    fn fetcher(&self) -> Result<Self::Fetcher, BrokerError> {
        Ok(LocalFetcher::new(self.shared.clone()))
    }

    fn producer(&self, transactional_id: &str) -> Result<Self::Producer, BrokerError> {
        LocalProducer::new(self.shared.clone(), transactional_id)
    }

    fn reader(&self, partition: &TopicPartition, from: Offset) -> Result<Self::Reader, BrokerError> {
        LocalReader::new(self.shared.clone(), partition, from)
    }
}
