//! Transactions of others that are ended for them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_protocol::messages::{InitProducerIdRequest, ProducerId, TransactionalId};
use kafka_protocol::protocol::StrBytes;
use millstream::broker::{BrokerError, ErrorKind};

use crate::config::KafkaConfig;
use crate::error::broker_error;
use crate::ffi::Failure;
use crate::wire::{Cluster, CoordinatorOf, Coordinators, codes, has_moved};

/// The first pause before coordinators are asked again, and the longest. They end a transaction within a few milliseconds.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// How long one answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Ends the transactions of producers that are gone. Keeps its connections, one to each transaction coordinator, from one call to the next.
pub struct KafkaTransactions {
    coordinators: Coordinators,
    cluster: Arc<Cluster>,
}

impl KafkaTransactions {
    /// Connects to nothing yet. `client_id` is what the brokers' logs call it.
    ///
    /// # Errors
    /// [`ErrorKind::Stop`]: a property asks for what only librdkafka can do, or names a file that cannot be used.
    pub fn new(config: &KafkaConfig, client_id: &str) -> Result<Self, BrokerError> {
        let cluster = Cluster::new(config, client_id).map_err(|error| BrokerError::new(ErrorKind::Stop, error.to_string()))?;
        let cluster = Arc::new(cluster);
        Ok(Self { coordinators: Coordinators::new(cluster.clone()), cluster })
    }

    /// Aborts the open transaction of each of these transactional ids, if it has one, and fences its producer: whatever that still tries is
    /// refused. All are asked once before any is waited for. Tries for about so long; an answer that is under way then is still waited for.
    ///
    /// When it returns, no transaction of theirs is open or about to end. An id that no producer has ever had is known to the brokers from then on.
    ///
    /// # Errors
    /// [`ErrorKind::Retry`] where time has run out, [`ErrorKind::Stop`] where no later attempt would succeed. The message names the id. Others may
    /// have been ended.
    pub fn end_transactions(&mut self, transactional_ids: &[&str], within: Duration) -> Result<(), BrokerError> {
        let (deadline, mut pause) = (Instant::now() + within, FIRST_PAUSE);
        let mut left = transactional_ids.to_vec();
        loop {
            let mut last = None;
            let mut still = Vec::new();
            for id in left {
                let Err(failure) = self.end(id) else { continue };
                let error = self.error(id, failure);
                if error.kind() == ErrorKind::Stop {
                    return Err(error);
                }
                still.push(id);
                last = Some(error);
            }
            match last {
                None => return Ok(()),
                Some(error) if Instant::now() + pause >= deadline => return Err(error),
                Some(error) => tracing::debug!(%error, "it is tried again"),
            }
            std::thread::park_timeout(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
            left = still;
        }
    }

    fn end(&mut self, id: &str) -> Result<(), Failure> {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(TransactionalId(StrBytes::from_string(id.to_owned()))))
            .with_transaction_timeout_ms(i32::try_from(self.cluster.settings.transaction_timeout.as_millis()).unwrap_or(i32::MAX))
            // Not as one that goes on: as a new producer.
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        let coordinator = CoordinatorOf::Transactions(id.to_owned());
        let answer = self.coordinators.call(&coordinator, &request, ANSWER_TIMEOUT)?;
        if has_moved(answer.error_code) {
            self.coordinators.forget(&coordinator);
        }
        Failure::check_with(answer.error_code.into(), || match answer.error_code {
            codes::CONCURRENT_TRANSACTIONS => "its transaction is still being ended".to_owned(),
            _ => String::new(),
        })
    }

    /// Whatever does not stop passes.
    fn error(&self, id: &str, failure: Failure) -> BrokerError {
        let error = broker_error("ending the transaction of", &format!("transactional id {id}"), &self.cluster.told(failure));
        if error.kind() == ErrorKind::Stop { error } else { BrokerError::new(ErrorKind::Retry, error.to_string()) }
    }
}
