//! A member of a consumer group.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream::broker::{BrokerError, Consumer, ErrorKind, FetchedBatch, GroupMetadata, Polled};
use millstream::record::{Offset, Partition, Topic, TopicPartition};
use rdkafka::Offset as NativeOffset;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode as Code;

use crate::batch::KafkaBatch;
use crate::config::{KafkaConfig, Role};
use crate::error::{broker_error, reading_error};
use crate::ffi::{Failure, Membership, Message, Queue, position};
use crate::partitions::{list_at, number};
use crate::rebalances::{Rebalance, Rebalances};

type Native = BaseConsumer<Rebalances>;

/// How many messages are taken from librdkafka at once.
const MESSAGES: usize = 4096;

/// How long a poll waits for records before it looks for rebalances again.
const SLICE: Duration = Duration::from_millis(20);

/// How long a partition that was just assigned may take until it can be started.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// A member of a consumer group. Dropping it leaves the group.
pub struct KafkaConsumer {
    // Fetched messages and the queue go before the client that they came from.
    fetched: VecDeque<Result<KafkaBatch, BrokerError>>,
    queue: Option<Queue>,
    client: Option<Arc<Native>>,
    group: Arc<str>,
    assigned: BTreeMap<TopicPartition, Fetching>,
    /// Asked back by the group; the next poll says so.
    told_to_go: Option<Vec<TopicPartition>>,
    /// Told to be going, and ours until the next poll.
    going: Option<Vec<TopicPartition>>,
}

/// What is fetched of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fetching {
    /// Nothing.
    Paused,
    /// Records from here on; what lies before was polled or skipped.
    From(Offset),
}

impl KafkaConsumer {
    pub(crate) fn join(config: &KafkaConfig, group: &str, member: &str, topics: &[Topic]) -> Result<Self, BrokerError> {
        let failed = |failure: Failure| broker_error("joining", &format!("group {group}"), &failure);
        let client: Native = config
            .client(Role::Consumer { group, member })
            .create_with_context(Rebalances::default())
            .map_err(|error| failed(error.into()))?;
        let client = Arc::new(client);
        let names: Vec<&str> = topics.iter().map(|topic| &**topic).collect();
        client.subscribe(&names).map_err(|error| failed(error.into()))?;
        let queue = Queue::new(client.client(), client.clone());
        Ok(Self {
            fetched: VecDeque::new(),
            queue: Some(queue),
            client: Some(client),
            group: group.into(),
            assigned: BTreeMap::new(),
            told_to_go: None,
            going: None,
        })
    }

    fn client(&self) -> Result<&Arc<Native>, BrokerError> {
        let left = || BrokerError::new(ErrorKind::Fenced, format!("this member has left group {}", self.group));
        self.client.as_ref().ok_or_else(left)
    }

    /// Lets the group have what it was told that it gets.
    fn give_up_going(&mut self) -> Result<(), BrokerError> {
        match self.going.take() {
            Some(going) => self.unassign(&going),
            None => Ok(()),
        }
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), BrokerError> {
        for partition in partitions {
            self.assigned.remove(partition);
            self.forget_fetched(partition);
        }
        let client = self.client()?;
        let unassigned = client.incremental_unassign(&list_at(partitions, NativeOffset::Invalid)?);
        // It may be that the client has let go of them by itself.
        if let Err(error) = unassigned {
            tracing::debug!(group = %self.group, %error, "partitions could not be given up one by one");
            client.unassign().map_err(|error| self.failed("giving up partitions of", error.into()))?;
        }
        Ok(())
    }

    fn failed(&self, operation: &str, failure: Failure) -> BrokerError {
        let failure = match &self.client {
            Some(client) => client.context().diary.explain(failure),
            None => failure,
        };
        broker_error(operation, &format!("group {}", self.group), &failure)
    }

    /// Serves the client's own events, and does what the group asks for.
    fn follow_group(&mut self) -> Result<Option<Polled<KafkaBatch>>, BrokerError> {
        let client = self.client()?.clone();
        match client.poll(Duration::ZERO) {
            None => {}
            // Every partition's queue was led elsewhere before it was assigned.
            Some(Ok(_)) => {
                let message = format!("a record of group {} came on the wrong queue: joining anew", self.group);
                return Err(BrokerError::new(ErrorKind::Fenced, message));
            }
            Some(Err(error)) => self.check_trouble(error.into())?,
        }
        let Some(rebalance) = client.context().take() else { return Ok(None) };
        self.follow(rebalance)
    }

    fn follow(&mut self, rebalance: Rebalance) -> Result<Option<Polled<KafkaBatch>>, BrokerError> {
        match rebalance {
            Rebalance::Revoke(partitions, membership) => {
                for partition in &partitions {
                    self.forget_fetched(partition);
                    if let Some(fetching) = self.assigned.get_mut(partition) {
                        *fetching = Fetching::Paused;
                    }
                }
                self.told_to_go = Some(partitions);
                Ok(membership.map(|membership| Polled::Assigned { partitions: Vec::new(), group: self.proof(membership) }))
            }
            Rebalance::Lose(partitions) => {
                self.unassign(&partitions)?;
                self.assigned.clear();
                self.fetched.clear();
                Ok(Some(Polled::Lost))
            }
            Rebalance::Assign(partitions, membership) => {
                self.assign(&partitions)?;
                // Without proof nothing could be committed; that the partitions are lost is what comes next.
                Ok(membership.map(|membership| Polled::Assigned { partitions, group: self.proof(membership) }))
            }
        }
    }

    fn proof(&self, membership: Membership) -> GroupMetadata {
        GroupMetadata { group: self.group.clone(), generation: membership.generation, member: membership.member.into() }
    }

    /// Trouble of the client as a whole. Most of it passes, and librdkafka tries again by itself.
    fn check_trouble(&self, failure: Failure) -> Result<(), BrokerError> {
        // The topics were there when they were subscribed to: a broker that does not know one yet will learn of it.
        let may_be_new = matches!(failure.code, Code::UnknownTopicOrPartition | Code::UnknownTopic);
        let error = self.failed("consuming as a member of", failure);
        match error.kind() {
            ErrorKind::Stop | ErrorKind::Fenced if !may_be_new => Err(error),
            _ => {
                tracing::warn!(%error, "the client tries again");
                Ok(())
            }
        }
    }

    /// Takes partitions over, paused, so that nothing is fetched of them.
    fn assign(&mut self, partitions: &[TopicPartition]) -> Result<(), BrokerError> {
        let client = self.client()?.clone();
        let failed = |failure: Failure| broker_error("taking partitions over in", &format!("group {}", self.group), &failure);
        if let Some(queue) = &self.queue {
            for partition in partitions {
                if !queue.take_partition(client.client(), &partition.topic, number(partition)) {
                    return Err(failed(Failure::new(Code::UnknownPartition, format!("there is no {partition}"))));
                }
            }
        }
        let list = list_at(partitions, NativeOffset::Offset(0))?;
        if !partitions.is_empty() {
            client.pause(&list).map_err(|error| failed(error.into()))?;
        }
        client.incremental_assign(&list).map_err(|error| failed(error.into()))?;
        self.assigned.extend(partitions.iter().map(|partition| (partition.clone(), Fetching::Paused)));
        Ok(())
    }

    fn forget_fetched(&mut self, partition: &TopicPartition) {
        self.fetched.retain(|fetched| !matches!(fetched, Ok(batch) if batch.partition() == partition));
    }

    /// Takes what has been fetched, and makes a batch for each partition that it comes from.
    fn fetch(&mut self, max_wait: Duration) -> Result<(), BrokerError> {
        let client = self.client()?.clone();
        let Some(queue) = &self.queue else { return Ok(()) };
        let mut open: Vec<KafkaBatch> = Vec::new();
        let mut failed = BTreeSet::new();
        for message in queue.fetch(MESSAGES, max_wait) {
            let at = match open.iter().rposition(|batch| batch.takes(&message)) {
                Some(at) => at,
                None => {
                    let partition =
                        TopicPartition::new(self.name_of(message.topic()), Partition(message.partition().max(0) as u32));
                    // What was taken before a rewind or a pause is not wanted; librdkafka drops it too, where it still has it.
                    let Some(Fetching::From(from)) = self.assigned.get(&partition) else { continue };
                    open.push(KafkaBatch::new(partition, *from, client.clone()));
                    open.len() - 1
                }
            };
            match receive(&mut open[at], message) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Retry => {
                    tracing::warn!(%error, "the client tries again");
                    failed.insert(open[at].partition().clone());
                }
                Err(error) => self.fetched.push_back(Err(error)),
            }
        }
        for batch in open {
            self.keep(batch);
        }
        failed.iter().try_for_each(|partition| self.return_to_position(partition))
    }

    /// librdkafka takes an event of trouble for a record, and its position then lies behind the next one, which a rebalance or the look
    /// for markers would skip.
    fn return_to_position(&self, partition: &TopicPartition) -> Result<(), BrokerError> {
        let Some(Fetching::From(from)) = self.assigned.get(partition) else { return Ok(()) };
        // A client whose position is not known to be right is of no use.
        self.seek(partition, *from).map_err(|error| BrokerError::new(ErrorKind::Fenced, error.to_string()))
    }

    /// Moves on over offsets that hold no record: markers, which librdkafka takes from the queue and does not hand out.
    fn pass_markers(&mut self) -> Result<(), BrokerError> {
        let client = self.client()?.clone();
        let fetching = |(partition, fetching): (&TopicPartition, &Fetching)| match fetching {
            Fetching::From(from) => Some((partition.clone(), *from)),
            Fetching::Paused => None,
        };
        let fetched: Vec<_> = self.assigned.iter().filter_map(fetching).collect();
        let list = list_at(fetched.iter().map(|(partition, _)| partition), NativeOffset::Invalid)?;
        position(client.client(), &list).map_err(|failure| self.failed("looking up the positions of", failure))?;
        for ((partition, from), element) in fetched.into_iter().zip(list.elements()) {
            if let NativeOffset::Offset(offset) = element.offset()
                && offset > from.0
            {
                self.keep(KafkaBatch::new(partition, Offset(offset), client.clone()));
            }
        }
        Ok(())
    }

    /// The topic's name, shared where it is known.
    fn name_of(&self, topic: &str) -> Topic {
        let known = self.assigned.keys().find(|partition| &*partition.topic == topic);
        known.map_or_else(|| topic.into(), |partition| partition.topic.clone())
    }

    fn keep(&mut self, batch: KafkaBatch) {
        if let Some(Fetching::From(from)) = self.assigned.get_mut(batch.partition())
            && batch.next_offset() > *from
        {
            *from = batch.next_offset();
            self.fetched.push_back(Ok(batch));
        }
    }

    /// Sets the position from which an assigned partition is fetched. An assignment takes a moment until it can be done.
    fn seek(&self, partition: &TopicPartition, from: Offset) -> Result<(), BrokerError> {
        let client = self.client()?;
        let began = Instant::now();
        loop {
            let list = list_at([partition], NativeOffset::Offset(from.0))?;
            let sought = client.seek_partitions(list, START_TIMEOUT);
            let failure: Failure = match sought {
                Err(error) => error.into(),
                Ok(list) => match list.elements().first().map_or(Ok(()), |element| element.error()) {
                    Ok(()) => return Ok(()),
                    Err(error) => error.into(),
                },
            };
            let is_early = matches!(failure.code, Code::State | Code::PreviousInProgress);
            if !is_early || began.elapsed() > START_TIMEOUT {
                // Whatever it is, another attempt after a while does no harm.
                let error = broker_error("starting to read", &partition.to_string(), &failure);
                return Err(BrokerError::new(ErrorKind::Retry, error.to_string()));
            }
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    fn check_held(&self, partition: &TopicPartition) -> Result<(), BrokerError> {
        if self.assigned.contains_key(partition) {
            return Ok(());
        }
        let message = format!("this member of group {} does not hold {partition}", self.group);
        Err(BrokerError::new(ErrorKind::Fenced, message))
    }

    fn close(&mut self) {
        self.going = self.going.take().or(self.told_to_go.take());
        if let Err(error) = self.give_up_going() {
            tracing::debug!(group = %self.group, %error, "what was to be given up goes with the membership");
        }
        self.fetched.clear();
        self.assigned.clear();
        self.queue = None;
        if let Some(client) = self.client.take() {
            client.context().close();
            // What was asked for and never told: the client waits for it to be done before it can close.
            while let Some(rebalance) = client.context().take() {
                let (Rebalance::Assign(partitions, _) | Rebalance::Revoke(partitions, _) | Rebalance::Lose(partitions)) =
                    &rebalance;
                let Ok(list) = list_at(partitions, NativeOffset::Offset(0)) else { continue };
                let assigns = matches!(rebalance, Rebalance::Assign(..));
                let done = if assigns { client.incremental_assign(&list) } else { client.incremental_unassign(&list) };
                if let Err(error) = done {
                    tracing::debug!(group = %self.group, %error, "a rebalance could not be finished before the end");
                }
            }
        }
    }
}

/// Adds what was fetched to a batch of its partition, or says what has kept the next records from coming.
fn receive(batch: &mut KafkaBatch, message: Message) -> Result<(), BrokerError> {
    if let Some(code) = message.error() {
        let subject = format!("{} from offset {} (at {})", batch.partition(), batch.next_offset(), message.offset());
        return Err(reading_error(&subject, &Failure::new(code, message.error_text())));
    }
    // What lies before was read already.
    if message.offset() >= batch.next_offset().0 {
        batch.push(message);
    }
    Ok(())
}

impl Consumer for KafkaConsumer {
    type Batch = KafkaBatch;

    fn poll(&mut self, max_wait: Duration) -> Result<Polled<KafkaBatch>, BrokerError> {
        let began = Instant::now();
        self.give_up_going()?;
        loop {
            if let Some(partitions) = self.told_to_go.take() {
                self.going = Some(partitions.clone());
                return Ok(Polled::Revoked { partitions });
            }
            if let Some(event) = self.follow_group()? {
                return Ok(event);
            }
            if let Some(fetched) = self.fetched.pop_front() {
                return fetched.map(Polled::Batch);
            }
            let left = max_wait.saturating_sub(began.elapsed());
            self.fetch(left.min(SLICE))?;
            if self.fetched.is_empty() {
                self.pass_markers()?;
            }
            if self.fetched.is_empty() && left.is_zero() {
                return Ok(Polled::Nothing);
            }
        }
    }

    fn start(&mut self, partition: &TopicPartition, from: Offset) -> Result<(), BrokerError> {
        self.check_held(partition)?;
        self.forget_fetched(partition);
        self.assigned.insert(partition.clone(), Fetching::Paused);
        self.seek(partition, from)?;
        let resumed = self.client()?.resume(&list_at([partition], NativeOffset::Invalid)?);
        resumed.map_err(|error| self.failed("resuming a partition of", error.into()))?;
        self.assigned.insert(partition.clone(), Fetching::From(from));
        Ok(())
    }

    fn pause(&mut self, partition: &TopicPartition) -> Result<(), BrokerError> {
        self.check_held(partition)?;
        self.forget_fetched(partition);
        self.assigned.insert(partition.clone(), Fetching::Paused);
        let paused = self.client()?.pause(&list_at([partition], NativeOffset::Invalid)?);
        paused.map_err(|error| self.failed("pausing a partition of", error.into()))
    }

    fn leave(&mut self) -> Result<(), BrokerError> {
        self.close();
        Ok(())
    }
}

impl Drop for KafkaConsumer {
    fn drop(&mut self) {
        self.close();
    }
}

/// On librdkafka's own mock of a broker: a real one does not fail when it is told to.
#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use millstream::record::{Record, Timestamp};
    use rdkafka::mocking::MockCluster;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;
    use crate::intake::KafkaIntake;

    const SOON: Duration = Duration::from_secs(30);

    #[test]
    fn no_record_is_skipped_after_a_fetch_that_failed() {
        let mock = MockCluster::new(1).expect("a mock");
        mock.create_topic("failing", 1, 1).expect("a topic");
        let config = KafkaConfig::new(mock.bootstrap_servers(), []).expect("a configuration");
        let intake = KafkaIntake::new(&config).expect("an intake");
        let from = TopicPartition::new("failing", Partition(0));
        write(&intake, &from, "before");
        let mut consumer = KafkaConsumer::join(&config, "failing", "member", &["failing".into()]).expect("a member");
        while !matches!(consumer.poll(SOON).expect("polled"), Polled::Assigned { .. }) {}
        consumer.start(&from, Offset(0)).expect("started");
        assert_eq!(read_to(&mut consumer, Offset(1)), ["before"]);
        for round in 1..4 {
            mock.request_errors(RDKafkaApiKey::Fetch, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN]);
            let began = Instant::now();
            while began.elapsed() < Duration::from_secs(1) {
                let polled = consumer.poll(Duration::from_millis(50)).expect("polled");
                assert!(matches!(polled, Polled::Nothing), "there is nothing, not {polled:?}");
            }
            let value = format!("after failure {round}");
            write(&intake, &from, &value);
            assert_eq!(read_to(&mut consumer, Offset(1 + round)), [value]);
        }
    }

    fn write(intake: &KafkaIntake, to: &TopicPartition, value: &str) {
        let (answer, answers) = mpsc::channel();
        let record = Record::new(None, Some(value.as_bytes()), Timestamp(1));
        intake.send(to, &record, move |outcome| answer.send(outcome).expect("waited for")).expect("taken");
        answers.recv_timeout(SOON).expect("answered").expect("written");
    }

    /// The values of what is read up to that position.
    fn read_to(consumer: &mut KafkaConsumer, end: Offset) -> Vec<String> {
        let (mut values, mut position, began) = (Vec::new(), Offset(0), Instant::now());
        while position < end {
            assert!(began.elapsed() < SOON, "it is read up to {position} of {end}");
            let Polled::Batch(batch) = consumer.poll(Duration::from_millis(100)).expect("polled") else { continue };
            let mut records = Vec::new();
            batch.records(&mut records).expect("whole");
            values.extend(records.iter().map(|record| String::from_utf8_lossy(record.value.expect("a value")).into_owned()));
            position = batch.next_offset();
        }
        values
    }
}
