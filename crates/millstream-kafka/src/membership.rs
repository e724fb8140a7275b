//! Members of groups on Kafka.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use millstream::broker::group::{Candidate, GroupMember, PartitionCounts};
use millstream::broker::{Broker as _, BrokerError, ErrorKind};
use millstream::record::Topic;

use crate::broker::KafkaBroker;
use crate::context::lock;
use crate::group::KafkaCoordinator;

/// A member of a consumer group.
pub type KafkaMembership = GroupMember<KafkaCoordinator>;

/// How long the group waits for a member to join again when it gathers all of them: the time after which one that has stopped is replaced when the roll
/// is called. Nothing holds up the thread that a member is polled by. One that is late after all joins as a new one.
const REBALANCE_TIMEOUT: Duration = Duration::from_secs(1);

/// How often is looked how many partitions topics have.
const COUNT_INTERVAL: Duration = Duration::from_secs(3);

/// Joins a group with its first poll.
pub(crate) fn join(broker: &KafkaBroker, candidate: &Candidate) -> Result<KafkaMembership, BrokerError> {
    let counts = Arc::new(Counts::default());
    counts.look(broker, &candidate.topics)?;
    let context = Context { counts: counts.clone() };
    let (looking, topics) = (broker.clone(), candidate.topics.clone());
    let keep_looking = move || {
        while counts.wait() {
            if let Err(error) = counts.look(&looking, &topics) {
                tracing::debug!(%error, "how many partitions topics have could not be looked up");
            }
        }
    };
    let thread = std::thread::Builder::new().name("group-topics".to_owned()).spawn(keep_looking);
    thread.map_err(|error| {
        BrokerError::new(ErrorKind::Retry, format!("a thread that looks at topics could not be started: {error}"))
    })?;
    let client_id = format!("{}-{}", candidate.group, candidate.instance);
    let coordinator = KafkaCoordinator::new(broker.config(), &candidate.group, &client_id, REBALANCE_TIMEOUT)?;
    Ok(GroupMember::new(coordinator, candidate.clone(), Arc::new(context)))
}

/// What the topics of a group are known to be, shared with the thread that looks.
#[derive(Default)]
struct Counts {
    known: Mutex<Known>,
    ended: Condvar,
}

#[derive(Default)]
struct Known {
    partitions: BTreeMap<Topic, u32>,
    ended: bool,
}

impl Counts {
    fn look(&self, broker: &KafkaBroker, topics: &[Topic]) -> Result<(), BrokerError> {
        for topic in topics {
            let found = broker.describe_topic(topic)?.ok_or_else(|| BrokerError::unknown_topic(topic))?;
            lock(&self.known).partitions.insert(topic.clone(), found.partitions);
        }
        Ok(())
    }

    /// Waits until it is time to look again; false where nobody wants to know any more.
    fn wait(&self) -> bool {
        let known = lock(&self.known);
        let waited = self.ended.wait_timeout_while(known, COUNT_INTERVAL, |known| !known.ended);
        !waited.unwrap_or_else(std::sync::PoisonError::into_inner).0.ended
    }
}

/// Ends the thread that looks when it is dropped.
struct Context {
    counts: Arc<Counts>,
}

impl PartitionCounts for Context {
    fn partitions(&self, topic: &str) -> Option<u32> {
        lock(&self.counts.known).partitions.get(topic).copied()
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        lock(&self.counts.known).ended = true;
        self.counts.ended.notify_all();
    }
}
