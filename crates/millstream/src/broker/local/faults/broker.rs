//! The broker as one instance of the program sees it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::super::{LocalCoordinator, lock};
use super::{
    Call, Fault, Faults, FaultyCoordinator, FaultyFetcher, FaultyMembership, FaultyProducer, FaultyReader, MemoryBroker,
    asked_for,
};
use crate::broker::group::{Candidate, GroupMember};
use crate::broker::{Broker, BrokerError, CommittedOffset, ErrorKind, Isolation, LogRange, TopicDescription, TopicSettings};
use crate::record::{Offset, TopicPartition};

/// A [`MemoryBroker`] as one instance of the program sees it, with faults. Clones belong to the same instance.
#[derive(Clone)]
pub struct FaultyBroker {
    pub(super) broker: MemoryBroker,
    pub(super) instance: Arc<Instance>,
}

/// What an instance's broker, and all that it has made, share.
pub(super) struct Instance {
    faults: Arc<dyn Faults>,
    crashed: AtomicBool,
    /// Group and name of every member it has had and not given up.
    pub(super) members: Mutex<BTreeSet<(Arc<str>, Arc<str>)>>,
}

impl std::fmt::Debug for FaultyBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FaultyBroker").field("crashed", &self.is_crashed()).finish_non_exhaustive()
    }
}

impl FaultyBroker {
    /// The broker for a new instance of the program.
    pub fn new(broker: MemoryBroker, faults: Arc<dyn Faults>) -> Self {
        let instance = Instance { faults, crashed: AtomicBool::new(false), members: Mutex::default() };
        Self { broker, instance: Arc::new(instance) }
    }

    /// Whether this instance has crashed.
    pub fn is_crashed(&self) -> bool {
        self.instance.is_crashed()
    }

    /// Lets the instance die: no call of its has an effect from here on.
    pub fn crash(&self) {
        self.instance.crashed.store(true, Ordering::SeqCst);
    }

    /// Expires the memberships of this instance: the others get its partitions, and it is fenced if it still lives.
    pub fn expire_members(&self) {
        for (group, member) in std::mem::take(&mut *lock(&self.instance.members)) {
            self.broker.expire_member(&group, &member);
        }
    }

    fn call<T>(&self, call: Call, make: impl FnOnce(&MemoryBroker) -> Result<T, BrokerError>) -> Result<T, BrokerError> {
        let fault = self.before(call)?;
        let outcome = make(&self.broker);
        self.after(fault)?;
        outcome
    }

    /// Asks for the call's fault and does what is to happen before it.
    pub(super) fn before(&self, call: Call) -> Result<Option<Fault>, BrokerError> {
        self.instance.alive()?;
        let fault = self.instance.faults.next(call);
        match fault {
            Some(Fault::CrashBefore) => {
                self.crash();
                self.instance.alive()?;
            }
            Some(Fault::Fail(kind)) => return Err(asked_for(call, kind)),
            Some(Fault::LoseMembership) => self.expire_members(),
            Some(Fault::Rebalance) => self.groups().iter().for_each(|group| self.broker.force_rebalance(group)),
            Some(Fault::TimeOutRebalance) => {
                for group in self.groups() {
                    self.broker.time_out_rebalance(&group);
                }
            }
            _ => {}
        }
        Ok(fault)
    }

    /// The groups that it is in, or was.
    fn groups(&self) -> BTreeSet<Arc<str>> {
        lock(&self.instance.members).iter().map(|(group, _)| group.clone()).collect()
    }

    /// Does what is to happen after the call.
    pub(super) fn after(&self, fault: Option<Fault>) -> Result<(), BrokerError> {
        if fault == Some(Fault::CrashAfter) {
            self.crash();
        }
        self.instance.alive()
    }
}

impl Instance {
    pub(super) fn is_crashed(&self) -> bool {
        self.crashed.load(Ordering::SeqCst)
    }

    fn alive(&self) -> Result<(), BrokerError> {
        match self.is_crashed() {
            true => Err(BrokerError::new(ErrorKind::Stop, "this instance has crashed, as it was told to")),
            false => Ok(()),
        }
    }
}

impl Broker for FaultyBroker {
    type Membership = FaultyMembership;
    type Fetcher = FaultyFetcher;
    type Producer = FaultyProducer;
    type Reader = FaultyReader;

    fn cluster_id(&self) -> Result<String, BrokerError> {
        self.call(Call::Other, |broker| broker.cluster_id())
    }

    fn describe_topic(&self, topic: &str) -> Result<Option<TopicDescription>, BrokerError> {
        self.call(Call::Other, |broker| broker.describe_topic(topic))
    }

    fn create_topic(&self, topic: &str, settings: &TopicSettings) -> Result<(), BrokerError> {
        self.call(Call::Other, |broker| broker.create_topic(topic, settings))
    }

    fn log_range(&self, partition: &TopicPartition, isolation: Isolation) -> Result<LogRange, BrokerError> {
        self.call(Call::LogRange, |broker| broker.log_range(partition, isolation))
    }

    fn check_writable(&self, partition: &TopicPartition) -> Result<(), BrokerError> {
        self.call(Call::Other, |broker| broker.check_writable(partition))
    }

    fn delete_records(&self, partition: &TopicPartition, before: Offset) -> Result<(), BrokerError> {
        self.call(Call::DeleteRecords, |broker| broker.delete_records(partition, before))
    }

    fn committed(&self, group: &str, partitions: &[TopicPartition]) -> Result<Vec<Option<CommittedOffset>>, BrokerError> {
        self.call(Call::Committed, |broker| broker.committed(group, partitions))
    }

    fn committed_so_far(&self, group: &str, partitions: &[TopicPartition]) -> Result<Vec<Option<CommittedOffset>>, BrokerError> {
        self.call(Call::Committed, |broker| broker.committed_so_far(group, partitions))
    }

    fn join(&self, candidate: &Candidate) -> Result<FaultyMembership, BrokerError> {
        let fault = self.before(Call::Join)?;
        let shared = &self.broker.shared;
        let line = FaultyCoordinator::new(self.clone(), candidate.group.clone(), LocalCoordinator::new(shared, candidate)?);
        self.after(fault)?;
        Ok(GroupMember::new(line, candidate.clone(), shared.clone()))
    }

    fn fetcher(&self) -> Result<FaultyFetcher, BrokerError> {
        let fetcher = self.call(Call::Fetcher, |broker| broker.fetcher())?;
        Ok(FaultyFetcher::new(self.clone(), fetcher))
    }

    fn producer(&self, transactional_id: &str) -> Result<FaultyProducer, BrokerError> {
        let producer = self.call(Call::Producer, |broker| broker.producer(transactional_id))?;
        Ok(FaultyProducer::new(self.clone(), producer))
    }

    fn reader(&self, partition: &TopicPartition, from: Offset) -> Result<FaultyReader, BrokerError> {
        let reader = self.call(Call::Other, |broker| broker.reader(partition, from))?;
        Ok(FaultyReader::new(self.clone(), reader))
    }
}
