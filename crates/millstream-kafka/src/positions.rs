//! What groups have committed. Asked as a consumer of the group that never joins it: librdkafka's request for it from outside of a
//! group, ListConsumerGroupOffsets, ends the process with a segmentation fault where the answer is that the coordinator is another
//! or still loading, as after any restart of a broker (`rd_kafka_handle_OffsetFetch` asks a group for it that is not there; 2.12.1).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millstream::broker::CommittedOffset;
use millstream::record::TopicPartition;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;

use crate::config::{KafkaConfig, Role};
use crate::context::{Diary, lock};
use crate::ffi::{self, Consumer, Failure};

/// A client for each group that was asked for.
#[derive(Default)]
pub(crate) struct Positions {
    clients: Mutex<BTreeMap<String, Arc<Consumer<PositionsContext>>>>,
}

#[derive(Debug)]
struct PositionsContext(Diary);

impl ClientContext for PositionsContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }
}

impl ConsumerContext for PositionsContext {}

impl Positions {
    /// What a group has committed, in the order asked. A position that a transaction is about to change is refused, and may be asked
    /// for again.
    pub(crate) fn committed(
        &self,
        config: &KafkaConfig,
        group: &str,
        partitions: &[TopicPartition],
        max_wait: Duration,
    ) -> Result<Vec<Option<CommittedOffset>>, Failure> {
        let client = self.client(config, group)?;
        // Only what is stable is told: the client reads committed records.
        let answer = ffi::committed(client.client(), partitions, max_wait);
        // Serves the client's log and errors, which say why there is no answer.
        while ffi::poll(&client, Duration::ZERO).is_some() {}
        answer.inspect(|_| client.context().0.answered()).map_err(|failure| client.context().0.explain(failure))
    }

    fn client(&self, config: &KafkaConfig, group: &str) -> Result<Arc<Consumer<PositionsContext>>, Failure> {
        let mut clients = lock(&self.clients);
        if let Some(client) = clients.get(group) {
            return Ok(client.clone());
        }
        let context = PositionsContext(Diary::new(config.connection()));
        let client = Arc::new(Consumer::new(&config.client(Role::Positions { group }), context)?);
        clients.insert(group.to_owned(), client.clone());
        Ok(client)
    }
}
