//! Reading a partition outside any group, as a restore does. All readers share a client, each has a queue of its own.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use millstream::broker::{BrokerError, ErrorKind, FetchedBatch, LogReader};
use millstream::record::{Offset, TopicPartition};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::batch::KafkaBatch;
use crate::config::{KafkaConfig, Role};
use crate::context::{Diary, lock};
use crate::error::{broker_error, reading_error};
use crate::ffi::{self, Consumption, Failure, KeepAlive, Queue};
use crate::partitions::number;

const MESSAGES: usize = 4096;

/// How long a read waits before it serves the client's events again.
const SLICE: Duration = Duration::from_millis(100);

/// A reader that has not had its first answer from the broker waits for it at least so long: nothing is known before.
const FIRST_ANSWER: Duration = Duration::from_secs(5);

/// The clients behind the readers. One is enough unless a partition is read twice at a time.
#[derive(Default)]
pub(crate) struct Readers {
    clients: Mutex<Vec<Arc<ReaderClient>>>,
}

struct ReaderClient {
    native: Arc<BaseConsumer<ReaderContext>>,
    /// The partitions that are being read.
    taken: Mutex<BTreeSet<TopicPartition>>,
}

#[derive(Debug)]
struct ReaderContext(Diary);

impl ClientContext for ReaderContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }
}

impl ConsumerContext for ReaderContext {}

impl Readers {
    pub(crate) fn reader(
        &self,
        config: &KafkaConfig,
        partition: &TopicPartition,
        from: Offset,
    ) -> Result<KafkaReader, BrokerError> {
        let client = self.client_for(config, partition)?;
        Ok(KafkaReader {
            consumption: None,
            place: Place { partition: partition.clone(), client },
            position: from,
            answered: false,
        })
    }

    /// A client that does not read this partition yet.
    fn client_for(&self, config: &KafkaConfig, partition: &TopicPartition) -> Result<Arc<ReaderClient>, BrokerError> {
        let mut clients = lock(&self.clients);
        if let Some(free) = clients.iter().find(|client| lock(&client.taken).insert(partition.clone())) {
            return Ok(free.clone());
        }
        let native = config.client(Role::Reader).create_with_context(ReaderContext(Diary::new(config.connection())));
        let native = native.map_err(|error: KafkaError| broker_error("reading", &partition.to_string(), &error.into()))?;
        let taken = Mutex::new(BTreeSet::from([partition.clone()]));
        let client = Arc::new(ReaderClient { native: Arc::new(native), taken });
        clients.push(client.clone());
        Ok(client)
    }
}

/// A partition that is taken at a client, for as long as this lives.
struct Place {
    partition: TopicPartition,
    client: Arc<ReaderClient>,
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.client.taken).remove(&self.partition);
    }
}

/// Reads committed records of one partition.
pub struct KafkaReader {
    // Ends before the place is free for another.
    consumption: Option<(Consumption, Arc<Queue>)>,
    place: Place,
    position: Offset,
    answered: bool,
}

impl KafkaReader {
    /// Fetching begins with the first read, so that a position that is gone by then is noticed and nothing stale is read.
    fn queue(&mut self) -> Result<&Queue, BrokerError> {
        if self.consumption.is_none() {
            let Place { partition, client } = &self.place;
            let native = &client.native;
            let keep_alive: KeepAlive = native.clone();
            let queue = Arc::new(Queue::new(native.client(), keep_alive));
            let (topic, from) = (&partition.topic, self.position.0);
            let started = Consumption::start(native.client(), queue.clone(), topic, number(partition), from);
            self.consumption = Some((started.map_err(|failure| self.failed(failure))?, queue));
        }
        let queue = self.consumption.as_ref().map(|(_, queue)| &**queue);
        queue.ok_or_else(|| self.failed(Failure::of_code(Code::State)))
    }

    fn diary(&self) -> &Diary {
        &self.place.client.native.context().0
    }

    fn failed(&self, failure: Failure) -> BrokerError {
        let failure = self.diary().explain(failure);
        reading_error(&format!("{} from offset {}", self.place.partition, self.position), &failure)
    }

    fn receive(&mut self, most: usize, max_wait: Duration) -> Result<KafkaBatch, BrokerError> {
        let messages = self.queue()?.fetch(most, max_wait);
        let mut batch = KafkaBatch::new(self.place.partition.clone(), self.position, self.place.client.native.clone());
        let mut at_end = false;
        for message in messages {
            match message.failure() {
                None if message.offset() >= batch.next_offset().0 => batch.push(message),
                None => {}
                Some(failure) if failure.code == Code::PartitionEOF => {
                    at_end = true;
                    batch.pass_to(Offset(message.offset()));
                }
                Some(failure) => {
                    let error = self.failed(failure);
                    if error.kind() != ErrorKind::Retry {
                        return Err(error);
                    }
                    self.diary().tries_again(&error);
                }
            }
        }
        if at_end || batch.next_offset() > self.position {
            self.answered = true;
            self.diary().answered();
        }
        Ok(batch)
    }
}

impl LogReader for KafkaReader {
    type Batch = KafkaBatch;

    fn read(&mut self, max_wait: Duration) -> Result<Option<KafkaBatch>, BrokerError> {
        let began = Instant::now();
        loop {
            // Serves the client's log and errors.
            if let Some(Err(failure)) = ffi::poll(&self.place.client.native, Duration::ZERO) {
                let error = self.failed(failure);
                if error.kind() == ErrorKind::Stop {
                    return Err(error);
                }
            }
            let most = if self.answered { max_wait } else { max_wait.max(FIRST_ANSWER) };
            let batch = self.receive(MESSAGES, most.saturating_sub(began.elapsed()).min(SLICE))?;
            let moved = batch.next_offset() > self.position;
            self.position = batch.next_offset();
            if batch.has_records() {
                return Ok(Some(batch));
            }
            // The end, once it is known, is an answer too.
            let most = if self.answered { max_wait } else { most };
            if (self.answered && moved) || began.elapsed() >= most {
                return Ok(None);
            }
        }
    }

    fn position(&self) -> Offset {
        self.position
    }
}
