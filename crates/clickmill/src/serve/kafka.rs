//! The service on Apache Kafka.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use anyhow::Context;
use millstream::broker::{BrokerError, ErrorKind};
use millstream::clock::Clock;
use millstream::record::{Record, Timestamp, Topic, TopicPartition};
use millstream::runtime::StreamsConfig;
use millstream_kafka::{KafkaBroker, KafkaIntake, describe_group};
use millstream_rocksdb::memory::MemoryBudget;

use super::appending::{Answered, Appending};
use super::click_log::ClickLog;
use super::intake_trouble::IntakeTrouble;
use super::topology;
use crate::admin::topics::{self, Survey};
use crate::config::{Config, KafkaOptions, TopicsConfig};
use crate::http::{AppendError, Appended, ClicksTopic, Idempotency, IncomingClick};

/// How long an answer of the brokers may take before it is looked what keeps them.
const LOOK_AFTER: Duration = Duration::from_secs(1);

/// How long it is tried to learn who is in the group before this instance joins it.
const DESCRIBED_WITHIN: Duration = Duration::from_secs(3);

/// The most that is left of a request's time to write its answer.
const TO_ANSWER: Duration = Duration::from_secs(1);

/// What a batch of one record has beside key and value, at most: its header, and the lengths and numbers of the record
/// (Apache Kafka, `DefaultRecordBatch` and `DefaultRecord`).
const BYTES_ADDED: usize = 61 + 32;

/// A Kafka cluster as the service's log.
pub(super) struct KafkaLog {
    broker: Arc<KafkaBroker>,
    intake: KafkaIntake,
    trouble: IntakeTrouble,
}

impl ClickLog for KafkaLog {
    type Broker = KafkaBroker;

    const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);
    const SHARED: bool = true;

    fn open(config: &Config, _: &Arc<dyn Clock>, _: &MemoryBudget) -> anyhow::Result<Self> {
        let kafka = config.kafka.as_ref().context("the configuration names no Kafka cluster")?;
        let broker = KafkaBroker::new(kafka.client_config()?)?;
        let intake = broker.intake()?;
        // Well inside of the request, which is to tell of each click, and may have waited for room before.
        intake.limit_delivery(config.server.request_timeout / 2)?;
        Ok(Self { broker: Arc::new(broker), intake, trouble: IntakeTrouble::default() })
    }

    fn place(config: &Config) -> String {
        config.kafka.as_ref().map_or(String::new(), |kafka| format!("Kafka at {}", kafka.bootstrap_servers))
    }

    /// Members that were killed are not told from those that live: their client is the same.
    fn waits_for_group(&self, config: &Config) -> String {
        let group = &config.engine.application_id;
        match self.broker.group_members(group) {
            Ok(members) if members.len() > 1 => format!(
                "group {group} to share the partitions out: it has {} members, and waits a few seconds for one that was killed",
                members.len()
            ),
            Ok(members) => format!("group {group} to share the partitions out: it has {} members", members.len()),
            Err(error) => format!("group {group}: {error}"),
        }
    }

    fn instances_named(&self, config: &Config, instance: &str) -> Vec<String> {
        let Some(Ok(client)) = config.kafka.as_ref().map(KafkaOptions::client_config) else { return Vec::new() };
        match describe_group(&client, &config.engine.application_id, DESCRIBED_WITHIN) {
            Ok(group) => {
                let introductions = group.members.into_iter().filter_map(|member| member.introduction);
                introductions.filter(|who| *who.instance == *instance).filter_map(|who| Some(who.endpoint?.to_string())).collect()
            }
            Err(error) => {
                tracing::debug!(%error, "whether another process is this instance could not be asked");
                Vec::new()
            }
        }
    }

    fn broker(&self) -> &Arc<KafkaBroker> {
        &self.broker
    }

    /// The topic is the cluster's: it is only looked up. The application's own are created where they are missing; settings that lose
    /// state are refused.
    fn prepare_clicks_topic(&self, config: &Config) -> anyhow::Result<ClicksTopic> {
        let survey = topics::survey(&self.broker, config)?;
        let found = survey.clicks_partitions()?;
        // An ad stays in the partition that it was first counted in, however the topic has grown.
        let counted = survey.partitions(topics::Role::Changelog).filter(|_| config.clicks.keyed_by_ad);
        let partitions = counted.map_or(found, |counted| counted.min(found));
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

    /// Each click is a unit of its own. All are waited for, as long as the request has time.
    fn append(
        &self,
        topic: &str,
        clicks: &[IncomingClick<'_>],
        arrived: Timestamp,
        deadline: Instant,
        idempotency: Option<Idempotency<'_>>,
    ) -> Result<Appended, AppendError> {
        if idempotency.is_some() {
            return Err(AppendError::NoIdempotency);
        }
        let time = Time::until(deadline);
        if time.left().is_zero() {
            return Err(AppendError::Unavailable("the request had no time left when its turn came".to_owned()));
        }
        let mut appending = Appending::new(clicks.len());
        let answers = self.send_all(topic, clicks, arrived, &time, &mut appending);
        self.wait_for(&answers, topic, &time, &mut appending);
        let durable =
            clicks.iter().enumerate().filter(|(number, _)| appending.is_durable(*number)).map(|(_, click)| click.partition);
        self.trouble.passed(durable);
        appending.finish(self.trouble.text().as_deref())
    }

    fn partitions_to_append_to(&self, topic: &str) -> Result<u32, BrokerError> {
        self.intake.partitions(topic)
    }

    fn stored_answer(&self, _: &[u8]) -> Result<Option<Vec<u8>>, AppendError> {
        Err(AppendError::NoIdempotency)
    }

    fn trouble(&self) -> Option<String> {
        self.trouble.text()
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

/// The time of a request.
struct Time {
    /// Half of it: what is sent by then can be answered for in the rest.
    to_send: Instant,
    end: Instant,
}

impl Time {
    fn until(deadline: Instant) -> Self {
        let now = Instant::now();
        let left = deadline.saturating_duration_since(now);
        let left = left.saturating_sub(TO_ANSWER.min(left / 8));
        Self { to_send: now + left / 2, end: now + left }
    }

    fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }
}

impl KafkaLog {
    /// Sends the clicks. Each is answered for on the channel, or noted as refused.
    fn send_all(
        &self,
        topic: &str,
        clicks: &[IncomingClick<'_>],
        arrived: Timestamp,
        time: &Time,
        appending: &mut Appending,
    ) -> Receiver<Answered> {
        let topic = Topic::from(topic);
        let (answer, answers) = mpsc::channel();
        for (number, click) in clicks.iter().enumerate() {
            let to = TopicPartition::new(topic.clone(), click.partition);
            let record = Record::new(Some(click.ad_id.as_bytes()), Some(click.value), arrived);
            while let Err(refused) = self.send(&to, &record, number, &answer) {
                // Room comes as what was sent is answered for.
                let waits = refused.kind() == ErrorKind::Retry && Instant::now() < time.to_send;
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
        answers
    }

    /// Waits for the answers until all are there or the time is up. Where they take long, looks what keeps the brokers.
    fn wait_for(&self, answers: &Receiver<Answered>, topic: &str, time: &Time, appending: &mut Appending) {
        loop {
            match answers.recv_timeout(time.left().min(LOOK_AFTER)) {
                Ok(answered) => appending.note(answered),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) if time.left().is_zero() => break,
                Err(RecvTimeoutError::Timeout) => self.trouble.look(&self.broker, topic, time.left() / 2),
            }
        }
        let silence = format!("writing to topic {topic} is not answered for in the time of the request");
        appending.give_up(&BrokerError::new(ErrorKind::OutcomeUnknown, silence));
    }

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
