//! What groups have committed. Asked as a consumer of the group that never joins it: librdkafka's request for it from outside of a
//! group, ListConsumerGroupOffsets, ends the process with a segmentation fault where the answer is that the coordinator is another
//! or still loading, as after any restart of a broker (`rd_kafka_handle_OffsetFetch` asks a group for it that is not there; 2.12.1).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millstream::broker::CommittedOffset;
use millstream::record::{Offset, TopicPartition};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::{Offset as NativeOffset, TopicPartitionList};

use crate::config::{KafkaConfig, Role};
use crate::context::{Diary, lock};
use crate::ffi::Failure;
use crate::partitions::number;

/// A client for each group that was asked for.
#[derive(Default)]
pub(crate) struct Positions {
    clients: Mutex<BTreeMap<String, Arc<BaseConsumer<PositionsContext>>>>,
}

#[derive(Debug, Default)]
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
        let mut asked = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            asked.add_partition(&partition.topic, number(partition));
        }
        // Only what is stable is told: the client reads committed records.
        let answer = client.committed_offsets(asked, max_wait);
        // Serves the client's log and errors, which say why there is no answer.
        while client.poll(Duration::ZERO).is_some() {}
        let answer = answer.map_err(|error| client.context().0.explain(error.into()))?;
        partitions.iter().map(|partition| position(&answer, partition)).collect()
    }

    fn client(&self, config: &KafkaConfig, group: &str) -> Result<Arc<BaseConsumer<PositionsContext>>, Failure> {
        let mut clients = lock(&self.clients);
        if let Some(client) = clients.get(group) {
            return Ok(client.clone());
        }
        let client: BaseConsumer<_> =
            config.client(Role::Consumer { group, member: group }).create_with_context(PositionsContext::default())?;
        let client = Arc::new(client);
        clients.insert(group.to_owned(), client.clone());
        Ok(client)
    }
}

fn position(answer: &TopicPartitionList, partition: &TopicPartition) -> Result<Option<CommittedOffset>, Failure> {
    let Some(element) = answer.find_partition(&partition.topic, number(partition)) else { return Ok(None) };
    element.error()?;
    let NativeOffset::Offset(offset) = element.offset() else { return Ok(None) };
    Ok(Some(CommittedOffset { offset: Offset(offset), metadata: element.metadata().to_owned() }))
}
