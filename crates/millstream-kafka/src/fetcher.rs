//! Fetching many partitions outside any group, from positions of the caller's choice.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use millstream::broker::{BrokerError, ErrorKind, Fetched, FetchedBatch, Fetcher};
use millstream::record::{Offset, Partition, Topic, TopicPartition};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::batch::KafkaBatch;
use crate::config::{KafkaConfig, Role};
use crate::context::Diary;
use crate::error::{broker_error, is_of_topic, reading_error};
use crate::ffi::{self, Admin, Consumption, Failure, Message, Queue};
use crate::partitions::number;

type Native = BaseConsumer<FetcherContext>;

/// How many messages are taken from librdkafka at once.
const MESSAGES: usize = 4096;

/// How long a poll waits for records before it serves the client's events again.
const SLICE: Duration = Duration::from_millis(100);

/// How long one question for the partitions of a topic may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);

/// Fetches committed records of many partitions, which share a client, its connections and one queue.
pub struct KafkaFetcher {
    fetched: VecDeque<Fetched<KafkaBatch>>,
    // They end before the queue that they are fetched into, and that before its client.
    fetching: BTreeMap<TopicPartition, Fetching>,
    queue: Arc<Queue>,
    client: Arc<Native>,
}

/// A partition that is fetched.
struct Fetching {
    consumption: Consumption,
    /// Records from here on are wanted; what lies before was taken or skipped.
    from: Offset,
}

#[derive(Debug)]
struct FetcherContext {
    diary: Diary,
    /// Whether a partition may be missing.
    suspicion: AtomicBool,
}

impl ClientContext for FetcherContext {
    /// That a topic, or a partition of one, is not there (any more) librdkafka tells those who use queues by its log alone.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if facility == "ERROR" {
            self.suspicion.store(true, Ordering::Relaxed);
        }
        self.diary.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.diary.error(error, reason);
    }
}

impl ConsumerContext for FetcherContext {}

impl KafkaFetcher {
    pub(crate) fn new(config: &KafkaConfig) -> Result<Self, BrokerError> {
        let context = FetcherContext { diary: Diary::new(config.connection()), suspicion: AtomicBool::new(false) };
        let client = config.client(Role::Fetcher).create_with_context(context);
        let client: Native =
            client.map_err(|error: KafkaError| broker_error("creating", "a client that fetches", &error.into()))?;
        let client = Arc::new(client);
        let queue = Arc::new(Queue::new(client.client(), client.clone()));
        Ok(Self { fetched: VecDeque::new(), fetching: BTreeMap::new(), queue, client })
    }

    fn diary(&self) -> &Diary {
        &self.client.context().diary
    }

    /// Serves the client's own events.
    fn serve(&mut self) -> Result<(), BrokerError> {
        while let Some(event) = ffi::poll(&self.client, Duration::ZERO) {
            if let Err(failure) = event {
                self.check_trouble(failure)?;
            }
        }
        if self.client.context().suspicion.swap(false, Ordering::Relaxed) {
            self.look_for_missing();
        }
        Ok(())
    }

    /// Gives up the partitions that the brokers do not have, and those of topics that this user may not see. Where brokers do not answer
    /// now, librdkafka will suspect it again.
    fn look_for_missing(&mut self) {
        let topics: BTreeSet<Topic> = self.fetching.keys().map(|partition| partition.topic.clone()).collect();
        for topic in topics {
            let described = Admin::new(self.client.client(), LOOK_TIMEOUT).describe_topic(&topic);
            let (partitions, failure) = match described {
                Ok(Some(description)) => (description.partitions, Failure::of_code(Code::UnknownPartition)),
                Ok(None) => (0, Failure::of_code(Code::UnknownTopic)),
                Err(failure) if is_of_topic(failure.code) => (0, failure),
                Err(failure) => {
                    tracing::debug!(%failure, topic = &*topic, "it is not known whether the topic is there");
                    continue;
                }
            };
            let is_missing = |partition: &&TopicPartition| partition.topic == topic && partition.partition.0 >= partitions;
            let missing: Vec<_> = self.fetching.keys().filter(is_missing).cloned().collect();
            for partition in missing {
                let error = broker_error("reading", &partition.to_string(), &failure);
                // Whether it comes back, and as which topic, is for whoever looks up its position to find out.
                let is_gone = failure.code != Code::TopicAuthorizationFailed;
                let kind = if is_gone { ErrorKind::OffsetOutOfRange } else { error.kind() };
                self.give_up_with(partition, BrokerError::new(kind, error.to_string()));
            }
        }
    }

    /// Most trouble of the client as a whole passes, and librdkafka tries again by itself.
    fn check_trouble(&self, failure: Failure) -> Result<(), BrokerError> {
        let failure = self.diary().explain(failure);
        if is_of_topic(failure.code) {
            // Most of it comes in the queue, with the partition that it is about. Of the rest it is asked which topic it is.
            self.client.context().suspicion.store(true, Ordering::Relaxed);
            return Ok(());
        }
        let error = broker_error("fetching from", "the cluster", &failure);
        match error.kind() {
            ErrorKind::Stop | ErrorKind::Fenced => Err(error),
            // The client's context has said it.
            _ => Ok(()),
        }
    }

    /// Takes what has been fetched, and makes a batch for each partition that it comes from.
    fn fetch(&mut self, max_wait: Duration) {
        let messages = self.queue.fetch(MESSAGES, max_wait);
        let (mut open, mut failed) = (Vec::new(), Vec::new());
        let mut at = 0;
        for message in messages {
            match self.batch_of(&message, &mut open, at, &failed) {
                Some(found) => at = found,
                None => continue,
            }
            match message.failure() {
                None if message.offset() >= open[at].next_offset().0 => open[at].push(message),
                // It lies before what was asked for.
                None => {}
                Some(failure) if failure.code == Code::PartitionEOF => {
                    self.diary().answered();
                    open[at].pass_to(Offset(message.offset()));
                }
                Some(failure) => {
                    let batch = open.swap_remove(at);
                    failed.push(batch.partition().clone());
                    self.fail(batch, failure, message.offset());
                    at = 0;
                }
            }
        }
        for batch in open {
            self.keep(batch);
        }
    }

    /// Which of the open batches a message belongs to, perhaps a new one; none where its partition is not fetched, or has failed since
    /// this message was fetched. Most likely it is the one of the message before.
    fn batch_of(&self, message: &Message, open: &mut Vec<KafkaBatch>, before: usize, failed: &[TopicPartition]) -> Option<usize> {
        if open.get(before).is_some_and(|batch| batch.takes(message)) {
            return Some(before);
        }
        if let Some(found) = open.iter().position(|batch| batch.takes(message)) {
            return Some(found);
        }
        let partition = Partition(message.partition().try_into().ok()?);
        let partition = TopicPartition::new(self.name_of(message.topic()), partition);
        if failed.contains(&partition) {
            return None;
        }
        let from = self.fetching.get(&partition)?.from;
        open.push(KafkaBatch::new(partition, from, self.client.clone()));
        Some(open.len() - 1)
    }

    /// The topic's name, shared where it is known.
    fn name_of(&self, topic: &str) -> Topic {
        let known = self.fetching.keys().find(|partition| &*partition.topic == topic);
        known.map_or_else(|| topic.into(), |partition| partition.topic.clone())
    }

    fn keep(&mut self, batch: KafkaBatch) {
        if let Some(fetching) = self.fetching.get_mut(batch.partition())
            && batch.next_offset() > fetching.from
        {
            fetching.from = batch.next_offset();
            self.client.context().diary.answered();
            self.fetched.push_back(Fetched::Batch(batch));
        }
    }

    /// Something kept the next record of a partition from coming. Whatever comes after that is not what comes next: where the trouble
    /// passes the partition is fetched anew from its position, for librdkafka may go on behind it; otherwise not at all.
    fn fail(&mut self, batch: KafkaBatch, failure: Failure, at: i64) {
        let (partition, from) = (batch.partition().clone(), batch.next_offset());
        self.keep(batch);
        let failure = self.diary().explain(failure);
        let error = reading_error(&format!("{partition} from offset {from} (at {at})"), &failure);
        let Some(fetching) = self.fetching.get_mut(&partition) else { return };
        if error.kind() == ErrorKind::Retry {
            self.client.context().diary.tries_again(&error);
            match fetching.consumption.restart(from.0) {
                Ok(()) => {}
                Err(failure) => self.give_up(partition, &failure),
            }
        } else {
            self.fetching.remove(&partition);
            self.fetched.push_back(Fetched::Failed(partition.clone(), error.of_partition(partition)));
        }
    }

    fn give_up(&mut self, partition: TopicPartition, failure: &Failure) {
        let Some(fetching) = self.fetching.remove(&partition) else { return };
        let error = reading_error(&format!("{partition} from offset {}", fetching.from), failure);
        self.fetched.push_back(Fetched::Failed(partition.clone(), error.of_partition(partition)));
    }

    fn give_up_with(&mut self, partition: TopicPartition, error: BrokerError) {
        if self.fetching.remove(&partition).is_some() {
            self.fetched.push_back(Fetched::Failed(partition.clone(), error.of_partition(partition)));
        }
    }

    fn forget_fetched(&mut self, partition: &TopicPartition) {
        self.fetched.retain(|fetched| match fetched {
            Fetched::Batch(batch) => batch.partition() != partition,
            Fetched::Failed(failed, _) => failed != partition,
            Fetched::Nothing => false,
        });
    }
}

impl Fetcher for KafkaFetcher {
    type Batch = KafkaBatch;

    fn start(&mut self, partition: &TopicPartition, from: Offset) -> Result<(), BrokerError> {
        self.forget_fetched(partition);
        let started = match self.fetching.get_mut(partition) {
            Some(fetching) => {
                fetching.from = from;
                fetching.consumption.restart(from.0)
            }
            None => {
                let (client, queue) = (self.client.client(), self.queue.clone());
                Consumption::start(client, queue, &partition.topic, number(partition), from.0).map(|consumption| {
                    self.fetching.insert(partition.clone(), Fetching { consumption, from });
                })
            }
        };
        started.map_err(|failure| {
            self.fetching.remove(partition);
            reading_error(&format!("{partition} from offset {from}"), &failure).of_partition(partition.clone())
        })
    }

    fn stop(&mut self, partition: &TopicPartition) {
        self.forget_fetched(partition);
        self.fetching.remove(partition);
    }

    fn poll(&mut self, max_wait: Duration) -> Result<Fetched<KafkaBatch>, BrokerError> {
        let began = Instant::now();
        loop {
            if let Some(fetched) = self.fetched.pop_front() {
                return Ok(fetched);
            }
            self.serve()?;
            let left = max_wait.saturating_sub(began.elapsed());
            self.fetch(left.min(SLICE));
            if self.fetched.is_empty() && left.is_zero() {
                return Ok(Fetched::Nothing);
            }
        }
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
        let mut fetcher = KafkaFetcher::new(&config).expect("a fetcher");
        fetcher.start(&from, Offset(0)).expect("started");
        assert_eq!(read_to(&mut fetcher, Offset(1)), ["before"]);
        for round in 1..4 {
            // Nothing is left in the queue, so that it is known what comes.
            while !matches!(fetcher.poll(Duration::from_millis(300)).expect("polled"), Fetched::Nothing) {}
            mock.request_errors(RDKafkaApiKey::Fetch, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN]);
            wait_for_messages(&fetcher, 1);
            // It is fetched behind the failure, and taken with it.
            let value = format!("after failure {round}");
            write(&intake, &from, &value);
            wait_for_messages(&fetcher, 2);
            assert_eq!(read_to(&mut fetcher, Offset(1 + round)), [value]);
        }
    }

    fn wait_for_messages(fetcher: &KafkaFetcher, count: usize) {
        let began = Instant::now();
        while fetcher.queue.length() < count {
            assert!(began.elapsed() < SOON, "there are {} of {count} messages", fetcher.queue.length());
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    fn write(intake: &KafkaIntake, to: &TopicPartition, value: &str) {
        let (answer, answers) = mpsc::channel();
        let record = Record::new(None, Some(value.as_bytes()), Timestamp(1));
        intake.send(to, &record, move |outcome| answer.send(outcome).expect("waited for")).expect("taken");
        answers.recv_timeout(SOON).expect("answered").expect("written");
    }

    /// The values of what is read up to that position.
    fn read_to(fetcher: &mut KafkaFetcher, end: Offset) -> Vec<String> {
        let (mut values, mut position, began) = (Vec::new(), Offset(0), Instant::now());
        while position < end {
            assert!(began.elapsed() < SOON, "it is read up to {position} of {end}");
            let Fetched::Batch(batch) = fetcher.poll(Duration::from_millis(100)).expect("polled") else { continue };
            let mut records = Vec::new();
            batch.records(&mut records).expect("whole");
            values.extend(records.iter().map(|record| String::from_utf8_lossy(record.value.expect("a value")).into_owned()));
            position = batch.next_offset();
        }
        values
    }
}
