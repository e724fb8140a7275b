//! The broker: what the engine asks of a cluster.

mod admin_context;
mod administration;
mod obstacle;
mod offsets;

pub use administration::GroupMember;
pub use obstacle::Obstacle;

use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream::broker::group::Candidate;
use millstream::broker::{Broker, BrokerError, CommittedOffset, ErrorKind, Isolation, LogRange, TopicDescription, TopicSettings};
use millstream::record::{Offset, TopicPartition};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::producer::Producer as _;

use self::admin_context::AdminContext;
use crate::config::{KafkaConfig, Role};
use crate::context::Diary;
use crate::error::{broker_error, kind};
use crate::fetcher::KafkaFetcher;
use crate::ffi::{self, Admin, Failure, Producer};
use crate::intake::KafkaIntake;
use crate::membership::{self, KafkaMembership};
use crate::positions::Positions;
use crate::producer::KafkaProducer;
use crate::reader::{KafkaReader, Readers};
use crate::settings::{RETENTION_MS, retention_ms, topic_settings};

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a request is repeated while its answer is that it may succeed later.
const PATIENCE: Duration = Duration::from_secs(15);

/// The same where a caller that comes again by itself has other things to do.
const SHORT_PATIENCE: Duration = Duration::from_secs(2);

/// How long a look at where the leaders are may take: any broker answers it.
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection to a Kafka cluster. Cheap to clone.
#[derive(Clone)]
pub struct KafkaBroker {
    shared: Arc<Shared>,
}

struct Shared {
    config: KafkaConfig,
    admin: Producer<AdminContext>,
    readers: Readers,
    positions: Positions,
}

impl KafkaBroker {
    /// A connection to that cluster. Nothing is sent yet.
    ///
    /// # Errors
    /// Where the properties contradict each other.
    pub fn new(config: KafkaConfig) -> Result<Self, BrokerError> {
        let admin = Producer::new(&config.client(Role::Admin), AdminContext(Diary::new(config.connection())));
        let admin = admin.map_err(|failure| broker_error("creating a client of", config.bootstrap_servers(), &failure))?;
        Ok(Self { shared: Arc::new(Shared { config, admin, readers: Readers::default(), positions: Positions::default() }) })
    }

    /// A producer for records that come from outside, each with an answer of its own.
    ///
    /// # Errors
    /// Where the properties contradict each other.
    pub fn intake(&self) -> Result<KafkaIntake, BrokerError> {
        KafkaIntake::new(&self.shared.config)
    }

    /// Sets how long a topic keeps records by their own timestamps; none is for ever. A topic that does so already is left alone.
    ///
    /// # Errors
    /// Where there is no such topic, or this user may not change it.
    pub fn set_retention(&self, topic: &str, retention: Option<Duration>) -> Result<(), BrokerError> {
        let wanted = retention_ms(retention).to_string();
        let now = self.ask(PATIENCE, "reading the settings of topic", topic, |admin| admin.topic_config(topic))?;
        if now.get(RETENTION_MS) == Some(&wanted) {
            return Ok(());
        }
        tracing::info!(topic, retention_ms = wanted, "the retention of the topic is changed");
        let settings = [(RETENTION_MS, wanted)];
        self.ask(PATIENCE, "changing the settings of topic", topic, |admin| admin.alter_topic_config(topic, &settings))
    }

    /// What it was made with.
    pub(crate) fn config(&self) -> &KafkaConfig {
        &self.shared.config
    }

    /// The positions of a group, for which open transactions are waited for or not.
    fn positions(
        &self,
        group: &str,
        partitions: &[TopicPartition],
        isolation: Isolation,
    ) -> Result<Vec<Option<CommittedOffset>>, BrokerError> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let Shared { config, positions, .. } = &*self.shared;
        self.ask(SHORT_PATIENCE, "reading the committed positions of group", group, |_| {
            positions.committed(config, group, partitions, isolation, REQUEST_TIMEOUT)
        })
    }

    /// Sends a request, again for so long while it may succeed later.
    fn ask<T>(
        &self,
        patience: Duration,
        operation: &str,
        subject: &str,
        request: impl Fn(&Admin<'_, AdminContext>) -> Result<T, Failure>,
    ) -> Result<T, BrokerError> {
        self.ask_within(REQUEST_TIMEOUT, patience, operation, subject, request)
    }

    /// As [`KafkaBroker::ask`], with that time for each attempt.
    fn ask_within<T>(
        &self,
        timeout: Duration,
        patience: Duration,
        operation: &str,
        subject: &str,
        request: impl Fn(&Admin<'_, AdminContext>) -> Result<T, Failure>,
    ) -> Result<T, BrokerError> {
        let admin = Admin::new(self.shared.admin.client(), timeout);
        let began = Instant::now();
        loop {
            let failure = match request(&admin) {
                Ok(answer) => {
                    self.shared.admin.context().0.answered();
                    return Ok(answer);
                }
                Err(failure) => self.shared.admin.context().0.explain(failure),
            };
            if kind(&failure) != ErrorKind::Retry {
                return Err(broker_error(operation, subject, &failure));
            }
            self.look_again_after(&failure, timeout);
            if began.elapsed() > patience {
                return Err(broker_error(operation, subject, &failure));
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// librdkafka goes by the leaders, and by the broker for requests of this kind, that it knows until it is told to look again. Where that
    /// fails, the next attempt does too: so it is done after the last one, for the next request.
    fn look_again_after(&self, failure: &Failure, timeout: Duration) {
        if may_have_moved(failure.code)
            && let Err(failure) = ffi::look_again(self.shared.admin.client(), timeout.min(LOOK_TIMEOUT))
        {
            tracing::debug!(%failure, "no broker tells where the leaders are");
        }
    }

    /// Waits until what was created can be used: the brokers learn of it one after the other.
    fn wait_for_topic(&self, topic: &str, partitions: u32) -> Result<TopicDescription, BrokerError> {
        let began = Instant::now();
        loop {
            match self.describe_topic(topic)? {
                Some(found) if found.partitions >= partitions => return Ok(found),
                _ if began.elapsed() > PATIENCE => {
                    let message = format!("topic {topic} was created, but the brokers do not know it yet");
                    return Err(BrokerError::new(ErrorKind::Retry, message));
                }
                _ => std::thread::park_timeout(Duration::from_millis(20)),
            }
        }
    }
}

/// Whether the request may have gone to a broker that does not lead the partition any more: it says so, or is gone and says nothing.
fn may_have_moved(code: Code) -> bool {
    matches!(
        code,
        Code::FencedLeaderEpoch
            | Code::UnknownLeaderEpoch
            | Code::NotLeaderForPartition
            | Code::LeaderNotAvailable
            | Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::BrokerTransportFailure
    )
}

impl Broker for KafkaBroker {
    type Membership = KafkaMembership;
    type Fetcher = KafkaFetcher;
    type Producer = KafkaProducer;
    type Reader = KafkaReader;

    fn cluster_id(&self) -> Result<String, BrokerError> {
        let client = self.shared.admin.client();
        let id = client.fetch_cluster_id(PATIENCE);
        id.inspect(|_| self.shared.admin.context().0.answered()).ok_or_else(|| {
            let silence = Failure::new(Code::OperationTimedOut, "no broker has answered");
            let failure = self.shared.admin.context().0.explain(silence);
            broker_error("reading the cluster's id from", self.shared.config.bootstrap_servers(), &failure)
        })
    }

    fn describe_topic(&self, topic: &str) -> Result<Option<TopicDescription>, BrokerError> {
        self.ask(SHORT_PATIENCE, "describing topic", topic, |admin| admin.describe_topic(topic))
    }

    fn create_topic(&self, topic: &str, settings: &TopicSettings) -> Result<(), BrokerError> {
        let is_new = self.create(topic, settings.partitions, &topic_settings(settings))?;
        // One that was there may have been created a moment ago, too.
        let found = self.wait_for_topic(topic, if is_new { settings.partitions } else { 1 })?;
        if found.partitions == settings.partitions {
            return Ok(());
        }
        let message = format!(
            "topic {topic} exists with {} partitions, not {}: delete it if it was made by mistake, or use another name",
            found.partitions, settings.partitions
        );
        Err(BrokerError::new(ErrorKind::Stop, message))
    }

    fn log_range(&self, partition: &TopicPartition, isolation: Isolation) -> Result<LogRange, BrokerError> {
        self.range(partition, isolation)
    }

    fn log_ranges(&self, partitions: &[TopicPartition], isolation: Isolation) -> Result<Vec<LogRange>, BrokerError> {
        self.ranges(partitions, isolation)
    }

    fn log_ends(&self, partitions: &[TopicPartition], isolation: Isolation) -> Result<Vec<Offset>, BrokerError> {
        self.latest(partitions, isolation)
    }

    fn check_writable(&self, partition: &TopicPartition) -> Result<(), BrokerError> {
        self.obstacle_of(partition)
    }

    fn delete_records(&self, partition: &TopicPartition, before: Offset) -> Result<(), BrokerError> {
        let subject = partition.to_string();
        let delete =
            |before| self.ask(SHORT_PATIENCE, "deleting records of", &subject, |admin| admin.delete_records(partition, before));
        match delete(before) {
            // Never to the end as it is by then: a leader that is new may learn of records that are to stay between two requests.
            Err(error) if error.kind() == ErrorKind::OffsetOutOfRange => {
                delete(before.min(self.log_range(partition, Isolation::ReadUncommitted)?.end))
            }
            outcome => outcome,
        }
    }

    fn committed(&self, group: &str, partitions: &[TopicPartition]) -> Result<Vec<Option<CommittedOffset>>, BrokerError> {
        self.positions(group, partitions, Isolation::ReadCommitted)
    }

    fn committed_so_far(&self, group: &str, partitions: &[TopicPartition]) -> Result<Vec<Option<CommittedOffset>>, BrokerError> {
        self.positions(group, partitions, Isolation::ReadUncommitted)
    }

    fn join(&self, candidate: &Candidate) -> Result<KafkaMembership, BrokerError> {
        membership::join(self, candidate)
    }

    fn fetcher(&self) -> Result<KafkaFetcher, BrokerError> {
        KafkaFetcher::new(&self.shared.config)
    }

    fn producer(&self, transactional_id: &str) -> Result<KafkaProducer, BrokerError> {
        KafkaProducer::init(&self.shared.config, transactional_id)
    }

    fn reader(&self, partition: &TopicPartition, from: Offset) -> Result<KafkaReader, BrokerError> {
        self.shared.readers.reader(&self.shared.config, partition, from)
    }
}
