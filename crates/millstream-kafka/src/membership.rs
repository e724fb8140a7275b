//! A member of a consumer group, which fetches nothing.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream::broker::{BrokerError, ErrorKind, Fence, MemberEvent, Membership};
use millstream::record::{Topic, TopicPartition};
use rdkafka::Offset as NativeOffset;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::RDKafkaErrorCode as Code;

use crate::config::{KafkaConfig, Role};
use crate::error::{broker_error, is_of_topic};
use crate::ffi::{self, Consumer, Failure, know_partition};
use crate::partitions::{list_at, number};
use crate::rebalances::{Rebalance, Rebalances};

type Native = Consumer<Rebalances>;

/// A member of a consumer group. Dropping it leaves the group.
///
/// What librdkafka has assigned and what the engine was told can differ: librdkafka keeps partitions over a membership that was lost
/// while it waited for a revocation to be answered, and the group may have given them to others meanwhile. The engine is then told that
/// they are lost, and that they came again.
pub struct KafkaMembership {
    client: Option<Native>,
    group: Arc<str>,
    /// What comes next to be told.
    events: VecDeque<MemberEvent>,
    /// Assigned in librdkafka, paused.
    assigned: BTreeSet<TopicPartition>,
    /// Told to be ours, and not given up or lost since.
    told: BTreeSet<TopicPartition>,
    /// The member id under which what was told was assigned.
    member: Arc<str>,
    going: Option<Revocation>,
}

/// Partitions that the group asks back. librdkafka lets go of them when the last of them is given up.
#[derive(Debug)]
struct Revocation {
    partitions: Vec<TopicPartition>,
    /// Not given up yet.
    left: BTreeSet<TopicPartition>,
}

impl KafkaMembership {
    pub(crate) fn join(config: &KafkaConfig, group: &str, member: &str, topics: &[Topic]) -> Result<Self, BrokerError> {
        let failed = |failure: Failure| broker_error("joining", &format!("group {group}"), &failure);
        let client = Consumer::new(&config.client(Role::Member { group, member }), Rebalances::new(config.connection()));
        let client: Native = client.map_err(failed)?;
        let names: Vec<&str> = topics.iter().map(|topic| &**topic).collect();
        client.subscribe(&names).map_err(|error| failed(error.into()))?;
        Ok(Self {
            client: Some(client),
            group: group.into(),
            events: VecDeque::new(),
            assigned: BTreeSet::new(),
            told: BTreeSet::new(),
            member: "".into(),
            going: None,
        })
    }

    fn client(&self) -> Result<&Native, BrokerError> {
        let left = || BrokerError::new(ErrorKind::Fenced, format!("this member has left group {}", self.group));
        self.client.as_ref().ok_or_else(left)
    }

    fn failed(&self, operation: &str, failure: Failure) -> BrokerError {
        broker_error(operation, &format!("group {}", self.group), &self.explain(failure))
    }

    fn explain(&self, failure: Failure) -> Failure {
        match &self.client {
            Some(client) => client.context().diary.explain(failure),
            None => failure,
        }
    }

    /// Does what the group asks for next, if it asks for anything.
    fn follow_group(&mut self) -> Result<(), BrokerError> {
        match self.client()?.context().take() {
            Some(rebalance) => self.follow(rebalance),
            None => self.notice_loss(),
        }
    }

    fn follow(&mut self, rebalance: Rebalance) -> Result<(), BrokerError> {
        match rebalance {
            Rebalance::Assign(partitions, membership) => {
                self.assign(&partitions)?;
                // Without proof nothing could be committed; what is not told now is told with the next proof, or lost.
                if let Some(membership) = membership {
                    self.client()?.context().diary.answered();
                    self.prove(membership, &BTreeSet::new());
                }
            }
            Rebalance::Revoke(partitions, Some(membership)) => {
                let going: BTreeSet<_> = partitions.iter().cloned().collect();
                self.prove(membership, &going);
                let left: BTreeSet<_> = going.intersection(&self.told).cloned().collect();
                if left.is_empty() {
                    return self.unassign(&partitions);
                }
                self.events.push_back(MemberEvent::Revoked { partitions: left.iter().cloned().collect() });
                self.going = Some(Revocation { partitions, left });
            }
            Rebalance::Revoke(partitions, None) | Rebalance::Lose(partitions) => {
                self.lose();
                self.unassign(&partitions)?;
            }
        }
        Ok(())
    }

    /// Tells of a proof, and with it of every partition that it is good for and that was not told yet.
    fn prove(&mut self, membership: ffi::Membership, going: &BTreeSet<TopicPartition>) {
        if *self.member != *membership.member {
            self.lose();
            self.member = membership.member.into();
        }
        let new: Vec<_> = self
            .assigned
            .iter()
            .filter(|partition| !self.told.contains(*partition) && !going.contains(*partition))
            .cloned()
            .collect();
        self.told.extend(new.iter().cloned());
        let fence = Fence::new(self.group.clone(), membership.generation, self.member.clone());
        self.events.push_back(MemberEvent::Assigned { partitions: new, fence });
    }

    /// Everything that was told is lost.
    fn lose(&mut self) {
        if !self.told.is_empty() {
            self.told.clear();
            self.events.push_back(MemberEvent::Lost);
        }
    }

    /// While librdkafka waits for a revocation to be answered it does not tell that the membership is lost.
    fn notice_loss(&mut self) -> Result<(), BrokerError> {
        if self.going.is_none() || ffi::membership(self.client()?.client()).is_some() {
            return Ok(());
        }
        tracing::warn!(group = %self.group, "the membership was lost while partitions were asked back");
        self.lose();
        self.finish_revocation()
    }

    fn finish_revocation(&mut self) -> Result<(), BrokerError> {
        match self.going.take() {
            Some(going) => self.unassign(&going.partitions),
            None => Ok(()),
        }
    }

    /// Takes partitions over, paused, so that nothing is fetched of them.
    fn assign(&mut self, partitions: &[TopicPartition]) -> Result<(), BrokerError> {
        let list = list_at(partitions, NativeOffset::Offset(0))?;
        let client = self.client()?;
        // One that the client does not know yet would not be paused, without a word.
        if let Some(unknown) =
            partitions.iter().find(|partition| !know_partition(client.client(), &partition.topic, number(partition)))
        {
            let failure = Failure::new(Code::UnknownPartition, format!("there is no {unknown}"));
            return Err(self.useless(self.failed("taking partitions over in", failure)));
        }
        let paused = if partitions.is_empty() { Ok(()) } else { client.pause(&list) };
        let assigned = paused.and_then(|()| client.incremental_assign(&list));
        assigned.map_err(|error| self.useless(self.failed("taking partitions over in", error.into())))?;
        self.assigned.extend(partitions.iter().cloned());
        Ok(())
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), BrokerError> {
        for partition in partitions {
            self.assigned.remove(partition);
            self.told.remove(partition);
        }
        let client = self.client()?;
        let Err(error) = client.incremental_unassign(&list_at(partitions, NativeOffset::Invalid)?) else { return Ok(()) };
        // It may be that the client has let go of them by itself.
        tracing::warn!(group = %self.group, %error, "partitions could not be given up one by one: all are given up");
        client.unassign().map_err(|error| self.useless(self.failed("giving up partitions of", error.into())))?;
        self.assigned.clear();
        self.lose();
        Ok(())
    }

    /// A client that could not follow its group takes part in no other rebalance.
    fn useless(&self, error: BrokerError) -> BrokerError {
        BrokerError::new(ErrorKind::Fenced, error.to_string())
    }

    /// Waits in the client, which serves its events and heeds rebalances meanwhile.
    fn serve(&self, max_wait: Duration) -> Result<(), BrokerError> {
        match ffi::poll(self.client()?, max_wait) {
            None => Ok(()),
            Some(Ok(_)) => {
                let message =
                    format!("a record of group {} was fetched by a member that fetches nothing: joining anew", self.group);
                Err(BrokerError::new(ErrorKind::Fenced, message))
            }
            Some(Err(failure)) => self.check_trouble(failure),
        }
    }

    /// Trouble of the client as a whole. Most of it passes, and librdkafka tries again by itself.
    fn check_trouble(&self, failure: Failure) -> Result<(), BrokerError> {
        let failure = self.explain(failure);
        // The topics were there, and could be seen, when they were subscribed to. A broker that does not know one yet will learn of it;
        // for others, and for a right that was withdrawn, the tasks of that topic find out what it is when they look it up.
        let is_of_topic = is_of_topic(failure.code);
        let error = self.failed("consuming as a member of", failure);
        match error.kind() {
            ErrorKind::Stop | ErrorKind::Fenced if !is_of_topic => Err(error),
            // The client's context has said it.
            _ => Ok(()),
        }
    }

    fn close(&mut self) {
        if let Err(error) = self.finish_revocation() {
            tracing::debug!(group = %self.group, %error, "what was to be given up goes with the membership");
        }
        self.events.clear();
        self.assigned.clear();
        self.told.clear();
        if let Some(client) = self.client.take() {
            client.context().close();
            // What was asked for and never followed: the client waits for it to be done before it can close.
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

impl Membership for KafkaMembership {
    fn poll(&mut self, max_wait: Duration) -> Result<MemberEvent, BrokerError> {
        let began = Instant::now();
        // Once at least, so that a caller that never waits is served too.
        let mut served = false;
        loop {
            self.follow_group()?;
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            let left = max_wait.saturating_sub(began.elapsed());
            if served && left.is_zero() {
                return Ok(MemberEvent::Nothing);
            }
            self.serve(left)?;
            served = true;
        }
    }

    fn give_up(&mut self, partitions: &[TopicPartition]) -> Result<(), BrokerError> {
        let Some(going) = &mut self.going else { return Ok(()) };
        for partition in partitions {
            if going.left.remove(partition) {
                self.told.remove(partition);
            }
        }
        if going.left.is_empty() { self.finish_revocation() } else { Ok(()) }
    }

    fn leave(&mut self) -> Result<(), BrokerError> {
        self.close();
        Ok(())
    }
}

impl Drop for KafkaMembership {
    fn drop(&mut self) {
        self.close();
    }
}

/// On librdkafka's own mock of a broker.
#[cfg(test)]
mod tests {
    use millstream::record::Partition;
    use rdkafka::mocking::MockCluster;
    use rdkafka::types::{RDKafkaApiKey as Api, RDKafkaRespErr};

    use super::*;

    const SOON: Duration = Duration::from_secs(30);

    fn join(mock: &MockCluster<'_, impl rdkafka::ClientContext>) -> KafkaMembership {
        let quick = [("topic.metadata.refresh.interval.ms", "200"), ("heartbeat.interval.ms", "200")];
        let quick = quick.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let config = KafkaConfig::new(mock.bootstrap_servers(), quick).expect("a configuration");
        // As where a start has asked for the topics.
        config.connection().answered();
        KafkaMembership::join(&config, "group", "member", &["clicks".into(), "shuffled".into()]).expect("a member")
    }

    /// Polls until all of these are assigned, and no others.
    fn poll_until_assigned(member: &mut KafkaMembership, wanted: &[TopicPartition]) {
        let (began, wanted) = (Instant::now(), wanted.iter().cloned().collect::<BTreeSet<_>>());
        while member.told != wanted {
            assert!(began.elapsed() < SOON, "{:?} are assigned, not {wanted:?}", member.told);
            if let MemberEvent::Revoked { partitions } = member.poll(Duration::from_millis(100)).expect("it goes on") {
                member.give_up(&partitions).expect("given up");
            }
        }
    }

    #[test]
    fn a_member_goes_on_where_one_topic_may_not_be_seen_any_more() {
        let mock = MockCluster::new(1).expect("a mock");
        let of = |topic: &str| TopicPartition::new(topic, Partition(0));
        for topic in ["clicks", "shuffled"] {
            mock.create_topic(topic, 1, 1).expect("a topic");
        }
        let mut member = join(&mock);
        poll_until_assigned(&mut member, &[of("clicks"), of("shuffled")]);
        mock.topic_error("shuffled", RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED).expect("withdrawn");
        poll_until_assigned(&mut member, &[of("clicks")]);
        mock.topic_error("shuffled", RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).expect("granted again");
        poll_until_assigned(&mut member, &[of("clicks"), of("shuffled")]);
    }

    #[test]
    fn a_group_that_is_full_is_joined_when_a_session_has_ended() {
        let mock = MockCluster::new(1).expect("a mock");
        mock.create_topic("clicks", 1, 1).expect("a topic");
        mock.create_topic("shuffled", 1, 1).expect("a topic");
        mock.request_errors(Api::JoinGroup, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_MAX_SIZE_REACHED; 2]);
        let mut member = join(&mock);
        poll_until_assigned(&mut member, &["clicks", "shuffled"].map(|topic| TopicPartition::new(topic, Partition(0))));
    }
}
