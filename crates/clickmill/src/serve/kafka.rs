//! The service on Apache Kafka.

use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};

use anyhow::Context;
use millstream::broker::{BrokerError, ErrorKind};
use millstream::clock::Clock;
use millstream::record::{Record, Timestamp, Topic, TopicPartition};
use millstream::runtime::StreamsConfig;
use millstream_kafka::{KafkaBroker, KafkaIntake};
use millstream_rocksdb::memory::MemoryBudget;

use super::click_log::ClickLog;
use super::topology;
use crate::admin::topics::{self, Survey};
use crate::config::{Config, TopicsConfig};
use crate::http::{AppendError, Appended, ClicksTopic, Idempotency, IncomingClick};

/// How long a request waits for room among what is on its way to the brokers.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a batch of one record has beside key and value, at most: its header, and the lengths and numbers of the record
/// (Apache Kafka, `DefaultRecordBatch` and `DefaultRecord`).
const BYTES_ADDED: usize = 61 + 32;

/// A Kafka cluster as the service's log.
pub(super) struct KafkaLog {
    broker: Arc<KafkaBroker>,
    intake: KafkaIntake,
}

/// What became of the click of that number within its request.
type Answered = (usize, Result<(), BrokerError>);

impl ClickLog for KafkaLog {
    type Broker = KafkaBroker;

    const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);
    const SHARED: bool = true;

    fn open(config: &Config, _: &Arc<dyn Clock>, _: &MemoryBudget) -> anyhow::Result<Self> {
        let kafka = config.kafka.as_ref().context("the configuration names no Kafka cluster")?;
        let mut client = kafka.client_config()?;
        if config.engine.static_membership {
            client = client.with_static_membership();
        }
        let broker = KafkaBroker::new(client)?;
        let intake = broker.intake()?;
        Ok(Self { broker: Arc::new(broker), intake })
    }

    fn broker(&self) -> &Arc<KafkaBroker> {
        &self.broker
    }

    /// The topic is the cluster's: it is only looked up. The application's own are created where they are missing; settings that lose
    /// state are refused.
    fn prepare_clicks_topic(&self, config: &Config) -> anyhow::Result<ClicksTopic> {
        let survey = topics::survey(&self.broker, config)?;
        let partitions = survey.clicks_partitions()?;
        survey.refuse_loss()?;
        for created in topics::create_missing(&self.broker, &survey)? {
            tracing::info!("{created}");
        }
        for warning in survey.warnings() {
            tracing::warn!("{warning}; clickmill topics says more, and clickmill topics --fix sets right what it can");
        }
        if let Some(bytes) = survey.max_clicks_batch_bytes() {
            self.intake.limit_batches(bytes)?;
        }
        Ok(ClicksTopic { partitions, max_record_bytes: max_record_bytes(config, &survey) })
    }

    fn keep_sent_on(&self, config: &Config, streams: &StreamsConfig) -> anyhow::Result<()> {
        let TopicsConfig { late_retention, dead_letter_retention, closed_retention } = config.topics;
        self.broker.set_retention(&streams.late_topic(), late_retention)?;
        self.broker.set_retention(&streams.dead_letter_topic(), dead_letter_retention)?;
        self.broker.set_retention(&topology::closed_topic(config), closed_retention)?;
        Ok(())
    }

    /// Each click is a unit of its own. All are waited for.
    fn append(
        &self,
        topic: &str,
        clicks: &[IncomingClick<'_>],
        arrived: Timestamp,
        idempotency: Option<Idempotency<'_>>,
    ) -> Result<Appended, AppendError> {
        if idempotency.is_some() {
            return Err(AppendError::NoIdempotency);
        }
        let topic = Topic::from(topic);
        let mut appending = Appending { outcomes: vec![Outcome::NotSent; clicks.len()], trouble: None };
        let (answer, answers) = mpsc::channel();
        let began = Instant::now();
        for (number, click) in clicks.iter().enumerate() {
            let to = TopicPartition::new(topic.clone(), click.partition);
            let record = Record::new(Some(click.ad_id.as_bytes()), Some(click.value), arrived);
            while let Err(refused) = self.send(&to, &record, number, &answer) {
                // Room comes as what was sent is answered for.
                let waits = refused.kind() == ErrorKind::Retry && began.elapsed() < PATIENCE;
                match answers.recv_timeout(Duration::from_millis(20)) {
                    Ok(answered) => appending.note(answered),
                    Err(_) if waits => {}
                    Err(_) => {
                        appending.note((number, Err(refused)));
                        break;
                    }
                }
            }
        }
        drop(answer);
        answers.into_iter().for_each(|answered| appending.note(answered));
        appending.finish()
    }

    fn stored_answer(&self, _: &[u8]) -> Result<Option<Vec<u8>>, AppendError> {
        Err(AppendError::NoIdempotency)
    }

    fn maintain(&self) -> Result<bool, BrokerError> {
        Ok(false)
    }

    fn disk_bytes(&self) -> u64 {
        0
    }
}

/// How large a click may be so that a batch with it alone, not compressed, is taken by the topic and by our client.
fn max_record_bytes(config: &Config, survey: &Survey) -> usize {
    let ours = config.kafka.as_ref().and_then(|kafka| kafka.properties.get("message.max.bytes")?.parse().ok());
    let limits = [survey.max_clicks_batch_bytes(), ours].into_iter().flatten();
    limits.min().map_or(usize::MAX, |limit: usize| limit.saturating_sub(BYTES_ADDED))
}

impl KafkaLog {
    fn send(
        &self,
        to: &TopicPartition,
        record: &Record<'_>,
        number: usize,
        answer: &Sender<Answered>,
    ) -> Result<(), BrokerError> {
        let answer = answer.clone();
        self.intake.send(to, record, move |outcome| {
            // Nobody waits any more where the request has ended.
            let _ = answer.send((number, outcome.map(drop)));
        })
    }
}

/// What becomes of the clicks of one request.
struct Appending {
    outcomes: Vec<Outcome>,
    trouble: Option<BrokerError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    NotSent,
    Durable,
    /// It is certain that it was not written.
    Refused,
    Unknown,
}

impl Appending {
    fn note(&mut self, (number, outcome): Answered) {
        self.outcomes[number] = match &outcome {
            Ok(()) => Outcome::Durable,
            Err(error) if error.kind() == ErrorKind::OutcomeUnknown => Outcome::Unknown,
            Err(_) => Outcome::Refused,
        };
        // The worst is told: what may have been written, then what a person has to look at.
        if let Err(error) = outcome
            && self.trouble.as_ref().is_none_or(|before| severity(before) < severity(&error))
        {
            self.trouble = Some(error);
        }
    }

    fn finish(self) -> Result<Appended, AppendError> {
        let Some(trouble) = self.trouble else { return Ok(Appended::Now) };
        let reason = trouble.to_string();
        let has = |outcome| self.outcomes.contains(&outcome);
        if has(Outcome::Durable) || has(Outcome::Unknown) {
            let durable = self.outcomes.iter().map(|outcome| *outcome == Outcome::Durable).collect();
            return Err(AppendError::Partly { durable, reason });
        }
        Err(match trouble.kind() {
            ErrorKind::Stop => AppendError::Failed(reason),
            _ => AppendError::Unavailable(reason),
        })
    }
}

fn severity(error: &BrokerError) -> u8 {
    match error.kind() {
        ErrorKind::OutcomeUnknown => 2,
        ErrorKind::Stop => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(outcomes: &[Result<(), ErrorKind>]) -> Result<Appended, AppendError> {
        let mut appending = Appending { outcomes: vec![Outcome::NotSent; outcomes.len()], trouble: None };
        for (number, outcome) in outcomes.iter().enumerate() {
            appending.note((number, outcome.map_err(|kind| BrokerError::new(kind, format!("{kind:?}")))));
        }
        appending.finish()
    }

    #[test]
    fn a_request_that_is_durable_in_part_says_which_part() {
        assert_eq!(finished(&[Ok(()), Ok(())]).unwrap(), Appended::Now);
        let Err(AppendError::Partly { durable, reason }) =
            finished(&[Ok(()), Err(ErrorKind::Retry), Err(ErrorKind::OutcomeUnknown)])
        else {
            panic!("part of it is durable");
        };
        assert_eq!((durable, &*reason), (vec![true, false, false], "OutcomeUnknown"));
    }

    #[test]
    fn what_was_certainly_not_written_is_no_unknown() {
        assert!(matches!(finished(&[Err(ErrorKind::Retry)]), Err(AppendError::Unavailable(_))));
        assert!(matches!(finished(&[Err(ErrorKind::Retry), Err(ErrorKind::Stop)]), Err(AppendError::Failed(_))));
        assert!(matches!(finished(&[Err(ErrorKind::OutcomeUnknown)]), Err(AppendError::Partly { .. })));
    }
}
