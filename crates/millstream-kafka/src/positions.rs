//! What groups have committed. Asked as a consumer of the group that never joins it: librdkafka's request for it from outside of a
//! group, ListConsumerGroupOffsets, ends the process with a segmentation fault where the answer is that the coordinator is another
//! or still loading, as after any restart of a broker (`rd_kafka_handle_OffsetFetch` asks a group for it that is not there; 2.12.1).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millstream::broker::{CommittedOffset, Isolation};
use millstream::record::TopicPartition;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;

use crate::config::{KafkaConfig, Role};
use crate::context::{Diary, lock};
use crate::ffi::{self, Consumer, Failure};

/// A client for each group that was asked for, and for each way to ask.
#[derive(Default)]
pub(crate) struct Positions {
    clients: Mutex<BTreeMap<Asked, Arc<Consumer<PositionsContext>>>>,
}

/// A group, and whether only what is stable is told.
type Asked = (String, bool);

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
    /// What a group has committed, in the order asked. For whoever reads committed records only, a position that a transaction is about to change is
    /// refused, and may be asked for again.
    pub(crate) fn committed(
        &self,
        config: &KafkaConfig,
        group: &str,
        partitions: &[TopicPartition],
        isolation: Isolation,
        max_wait: Duration,
    ) -> Result<Vec<Option<CommittedOffset>>, Failure> {
        // A client that reads committed records is told only what is stable.
        let client = self.client(config, group, isolation == Isolation::ReadCommitted)?;
        let answer = ffi::committed(client.client(), partitions, max_wait);
        // Serves the client's log and errors, which say why there is no answer.
        while ffi::poll(&client, Duration::ZERO).is_some() {}
        answer.inspect(|_| client.context().0.answered()).map_err(|failure| client.context().0.explain(failure))
    }

    fn client(&self, config: &KafkaConfig, group: &str, is_stable: bool) -> Result<Arc<Consumer<PositionsContext>>, Failure> {
        let mut clients = lock(&self.clients);
        let key = (group.to_owned(), is_stable);
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let context = PositionsContext(Diary::new(config.connection()));
        let mut client = config.client(Role::Positions { group });
        if !is_stable {
            client.set("isolation.level", "read_uncommitted");
        }
        let client = Arc::new(Consumer::new(&client, context)?);
        clients.insert(key, client.clone());
        Ok(client)
    }
}
