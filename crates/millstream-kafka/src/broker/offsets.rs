//! Where logs start and end. librdkafka waits for the leader of a partition as long as it is let: that a partition has none is asked for
//! by ourselves, and is an answer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use millstream::broker::{Broker as _, BrokerError, ErrorKind, Isolation, LogRange};
use millstream::record::{Offset, TopicPartition};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::producer::Producer as _;

use super::admin_context::AdminContext;
use super::{KafkaBroker, PATIENCE, REQUEST_TIMEOUT, SHORT_PATIENCE};
use crate::error::{broker_error, kind};
use crate::ffi::{Admin, At, End, Failure};

/// How long a first request may take before it is asked whether the partitions have leaders at all, and how long that may take.
const FIRST_TIMEOUT: Duration = Duration::from_secs(1);

/// What a request for offsets is asked of.
type Asked<'a> = Admin<'a, AdminContext>;

impl KafkaBroker {
    /// Where one log starts and ends.
    pub(super) fn range(&self, partition: &TopicPartition, isolation: Isolation) -> Result<LogRange, BrokerError> {
        let one = [partition];
        let offset =
            |end| self.ask_leaders(SHORT_PATIENCE, &one, &partition.to_string(), |admin| admin.offset(partition, end, isolation));
        // The end first: it only rises, and so does the start, so that a start read later may lie behind it, never a gap.
        let range = offset(End::Latest).and_then(|end| Ok((offset(End::Earliest)?, end)));
        let (start, end) = range.map_err(|error| self.unknown(partition, error))?;
        Ok(LogRange { start, end: end.max(start) })
    }

    /// Where logs start and end, by one request for each end.
    pub(super) fn ranges(&self, partitions: &[TopicPartition], isolation: Isolation) -> Result<Vec<LogRange>, BrokerError> {
        // The ends first, as for one partition.
        let ends = self.latest(partitions, isolation)?;
        let starts = self.ends(partitions, End::Earliest, isolation).map_err(|error| self.unknown_of(partitions, error))?;
        Ok(starts.into_iter().zip(ends).map(|(start, end)| LogRange { start, end: end.max(start) }).collect())
    }

    /// The end of each log, by one request.
    pub(super) fn latest(&self, partitions: &[TopicPartition], isolation: Isolation) -> Result<Vec<Offset>, BrokerError> {
        self.ends(partitions, End::Latest, isolation).map_err(|error| self.unknown_of(partitions, error))
    }

    fn ends(&self, partitions: &[TopicPartition], end: End, isolation: Isolation) -> Result<Vec<Offset>, BrokerError> {
        let found = self.offsets(partitions, At::End(end), isolation)?;
        // Not an offset, and no error either: an answer that says nothing.
        let silence = |partition: &TopicPartition| {
            broker_error("looking up the offsets of", &partition.to_string(), &Failure::of_code(Code::OperationTimedOut))
        };
        partitions.iter().zip(found).map(|(partition, offset)| offset.ok_or_else(|| silence(partition))).collect()
    }

    pub(super) fn offsets(
        &self,
        partitions: &[TopicPartition],
        at: At,
        isolation: Isolation,
    ) -> Result<Vec<Option<Offset>>, BrokerError> {
        let last = last_of_each_topic(partitions);
        let subject = last.iter().map(|partition| &*partition.topic).collect::<Vec<_>>().join(", ");
        let asked: Vec<_> = partitions.iter().collect();
        self.ask_leaders(PATIENCE, &asked, &subject, |admin| admin.offsets(partitions, at, isolation))
    }

    /// Asks the leaders of partitions for offsets, again for so long while they may answer later; but a partition that is not there, or has
    /// no leader, is an answer.
    fn ask_leaders<T>(
        &self,
        patience: Duration,
        partitions: &[&TopicPartition],
        subject: &str,
        request: impl Fn(&Asked<'_>) -> Result<T, Failure>,
    ) -> Result<T, BrokerError> {
        let (began, mut timeout, client) = (Instant::now(), FIRST_TIMEOUT, self.shared.admin.client());
        loop {
            let failure = match request(&Admin::new(client, timeout)) {
                Ok(answer) => {
                    self.shared.admin.context().0.answered();
                    return Ok(answer);
                }
                Err(failure) => self.shared.admin.context().0.explain(failure),
            };
            let failed = |failure: &Failure| Err(broker_error("looking up the offsets of", subject, failure));
            if kind(&failure) != ErrorKind::Retry {
                return failed(&failure);
            }
            self.look_again_after(&failure, timeout);
            timeout = REQUEST_TIMEOUT;
            match self.without_leader(partitions) {
                // One that has just lost its leader is given the time to get another.
                Some(known) if kind(&known) == ErrorKind::Retry && began.elapsed() < FIRST_TIMEOUT => {
                    timeout = FIRST_TIMEOUT.saturating_sub(began.elapsed());
                }
                Some(known) => return failed(&known),
                None if began.elapsed() > patience => return failed(&failure),
                None => {}
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// Why one of these partitions has no offsets now: it is not there, or it has no leader. None where neither is known.
    fn without_leader(&self, partitions: &[&TopicPartition]) -> Option<Failure> {
        let admin = Admin::new(self.shared.admin.client(), FIRST_TIMEOUT);
        let mut topics = BTreeMap::new();
        partitions.iter().find_map(|partition| {
            let known = topics.entry(&partition.topic).or_insert_with(|| admin.replicas(&partition.topic));
            let replicas = match known {
                Ok(replicas) => replicas,
                Err(failure) if failure.code == Code::UnknownTopicOrPartition || failure.code == Code::UnknownTopic => {
                    return Some(Failure::of_code(Code::UnknownTopic));
                }
                Err(_) => return None,
            };
            let number = i64::from(partition.partition.0);
            match replicas.iter().find(|replicas| i64::from(replicas.partition) == number) {
                // It takes the brokers some time to say so of a partition, and none of a topic.
                None => Some(Failure::new(Code::UnknownPartition, format!("there is no {partition}"))),
                Some(replicas) if !replicas.has_leader => {
                    Some(Failure::new(Code::LeaderNotAvailable, format!("{partition} has no leader now")))
                }
                Some(_) => None,
            }
        })
    }

    /// The error for a partition that there is not, where one of these is none; else the error that it came from.
    fn unknown_of(&self, partitions: &[TopicPartition], error: BrokerError) -> BrokerError {
        last_of_each_topic(partitions).into_iter().fold(error, |error, last| self.unknown(last, error))
    }

    /// An unknown partition is answered as an unknown topic.
    fn unknown(&self, partition: &TopicPartition, error: BrokerError) -> BrokerError {
        if error.kind() != ErrorKind::Stop {
            return error;
        }
        match self.describe_topic(&partition.topic) {
            Ok(None) => BrokerError::unknown_topic(&partition.topic),
            Ok(Some(found)) if found.partitions <= partition.partition.0 => {
                BrokerError::unknown_partition(&partition.topic, partition.partition)
            }
            _ => error,
        }
    }
}

/// Of each topic the partition with the largest number: where that exists, all do.
fn last_of_each_topic(partitions: &[TopicPartition]) -> Vec<&TopicPartition> {
    let mut last: BTreeMap<&str, &TopicPartition> = BTreeMap::new();
    for partition in partitions {
        let known = last.entry(&partition.topic).or_insert(partition);
        *known = (*known).max(partition);
    }
    last.into_values().collect()
}
