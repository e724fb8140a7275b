//! A topology on a broker: its subtopologies with the topics they read and write, all of which exist.

use std::sync::Arc;

use super::StreamsConfig;
use crate::broker::group::{Candidate, Placement};
use crate::broker::{Broker, BrokerError, ErrorKind, TopicDescription, TopicSettings};
use crate::record::{Partition, Topic, TopicPartition};
use crate::task::counted_with::CountedWith;
use crate::task::output::Repartition;
use crate::task::{EmitStrategy, SideTopics, TaskId, Transform, WindowedSpec};
use crate::topology::Topology;
use crate::topology::spec::End;

/// The subtopologies of an application.
pub(crate) struct Plan {
    pub(crate) subtopologies: Vec<Subtopology>,
    side_partitions: u32,
    late: Topic,
    dead_letter: Topic,
}

/// What is done to the records of one topic.
pub(crate) struct Subtopology {
    pub(crate) topic: Topic,
    pub(crate) kind: Kind,
}

pub(crate) enum Kind {
    Source { repartition: Repartition, spec: WindowedSpec },
    Aggregate { source: Topic, kept: Kept },
    Fused { kept: Kept },
    Stateless { transform: Arc<dyn Transform>, output: Topic, output_partitions: u32 },
}

/// A windowed aggregate and the topics behind its store.
#[derive(Clone)]
pub(crate) struct Kept {
    pub(crate) spec: WindowedSpec,
    pub(crate) changelog: Topic,
    /// How many partitions the store has.
    pub(crate) partitions: u32,
    /// Where results go, and how many partitions that has.
    pub(crate) output: Option<(Topic, u32)>,
}

impl Plan {
    /// Looks the topics up and creates those that are missing, except source topics.
    pub(crate) fn prepare<B: Broker>(topology: &Topology, broker: &B, config: &StreamsConfig) -> Result<Self, BrokerError> {
        let topics = Topics { broker };
        let mut subtopologies = Vec::new();
        let mut side_partitions = 1;
        for pipeline in &topology.pipelines {
            let source = topics.existing(&pipeline.source)?;
            side_partitions = side_partitions.max(source.partitions);
            let topic = pipeline.source.clone();
            match &pipeline.end {
                End::Sink { topic: output, transform } => {
                    let output_partitions = topics.ensure(output, TopicSettings::kept_for_ever(source.partitions))?.partitions;
                    let kind = Kind::Stateless { transform: transform.clone(), output: output.clone(), output_partitions };
                    subtopologies.push(Subtopology { topic, kind });
                }
                End::Windowed(spec) => subtopologies.extend(topics.windowed(topic, &source, spec, config)?),
            }
        }
        let (late, dead_letter) = (config.late_topic(), config.dead_letter_topic());
        for side in [&late, &dead_letter] {
            side_partitions = topics.ensure(side, TopicSettings::kept_for_ever(side_partitions))?.partitions;
        }
        let plan = Self { subtopologies, side_partitions, late, dead_letter };
        plan.check_counted_with(&topics, config)?;
        Ok(plan)
    }

    /// Refuses to count on with settings that what is there was not counted with, before anything is read under them.
    fn check_counted_with<B: Broker>(&self, topics: &Topics<'_, B>, config: &StreamsConfig) -> Result<(), BrokerError> {
        for (source, repartition, kept) in self.aggregates() {
            let source_partitions = topics.existing(source)?.partitions;
            let partitions = |topic: &Topic, count| {
                let topic = topic.clone();
                (0..count).map(move |p| TopicPartition::new(topic.clone(), Partition(p)))
            };
            let repartitioned = repartition.into_iter().flat_map(|topic| partitions(topic, kept.partitions));
            let inputs: Vec<_> = partitions(source, source_partitions).chain(repartitioned).collect();
            let before = CountedWith::of_positions(topics.broker, &config.application_id, &inputs)?;
            if let Some(reason) = before.into_iter().find_map(|before| before.conflict(kept.spec.counted_with())) {
                return Err(refused(format!("store {}: {reason}", kept.spec.store)));
            }
        }
        Ok(())
    }

    /// What the instance is as a member of its group.
    pub(crate) fn candidate(&self, threads: usize, config: &StreamsConfig) -> Candidate {
        let topics: Vec<_> = self.subtopologies.iter().map(|s| s.topic.clone()).collect();
        let stateful = self.subtopologies.iter().filter(|s| s.kept().is_some()).map(|s| s.topic.clone()).collect();
        Candidate {
            incarnation: config.incarnation,
            member: config.member.as_deref().map(Into::into),
            stateful,
            threads: threads as u32,
            endpoint: config.endpoint.as_deref().map(Into::into),
            rack: config.rack.as_deref().map(Into::into),
            placement: Placement { standbys: config.num_standbys, ..Placement::default() },
            ..Candidate::new(config.application_id.as_str(), config.instance_id.as_str(), &topics)
        }
    }

    /// The task for a partition, and what it does.
    pub(crate) fn task(&self, input: &TopicPartition) -> Option<(TaskId, &Subtopology)> {
        let number = self.subtopologies.iter().position(|s| s.topic == input.topic)?;
        Some((TaskId { subtopology: number as u32, partition: input.partition }, &self.subtopologies[number]))
    }

    /// What a task of this plan does.
    pub(crate) fn subtopology(&self, id: TaskId) -> &Subtopology {
        &self.subtopologies[id.subtopology as usize]
    }

    /// Where late and unreadable records of a source partition go.
    pub(crate) fn side_topics(&self, source: &TopicPartition) -> SideTopics {
        let partition = Partition(source.partition.0 % self.side_partitions);
        SideTopics {
            source: source.clone(),
            late: TopicPartition::new(self.late.clone(), partition),
            dead_letter: TopicPartition::new(self.dead_letter.clone(), partition),
        }
    }

    /// The stores, each with the topic that its tasks read.
    pub(crate) fn stores(&self) -> impl Iterator<Item = (&Topic, &Arc<str>)> {
        self.subtopologies.iter().filter_map(|s| Some((&s.topic, &s.kept()?.spec.store)))
    }

    /// The windowed aggregates, each with its source topic and, if it is shuffled, its repartition topic.
    pub(crate) fn aggregates(&self) -> impl Iterator<Item = (&Topic, Option<&Topic>, &Kept)> {
        self.subtopologies.iter().filter_map(|s| match &s.kind {
            Kind::Aggregate { source, kept } => Some((source, Some(&s.topic), kept)),
            Kind::Fused { kept } => Some((&s.topic, None, kept)),
            Kind::Source { .. } | Kind::Stateless { .. } => None,
        })
    }
}

impl Subtopology {
    /// What it counts with, if it counts.
    pub(crate) fn counted_with(&self) -> Option<CountedWith> {
        match &self.kind {
            Kind::Source { spec, .. } => Some(spec.counted_with()),
            Kind::Aggregate { kept, .. } | Kind::Fused { kept } => Some(kept.spec.counted_with()),
            Kind::Stateless { .. } => None,
        }
    }

    /// The aggregate that its tasks keep, if they keep one.
    pub(crate) fn kept(&self) -> Option<&Kept> {
        match &self.kind {
            Kind::Aggregate { kept, .. } | Kind::Fused { kept } => Some(kept),
            Kind::Source { .. } | Kind::Stateless { .. } => None,
        }
    }
}

struct Topics<'a, B> {
    broker: &'a B,
}

impl<B: Broker> Topics<'_, B> {
    fn existing(&self, topic: &str) -> Result<TopicDescription, BrokerError> {
        self.broker.describe_topic(topic)?.ok_or_else(|| BrokerError::unknown_topic(topic))
    }

    fn ensure(&self, topic: &str, settings: TopicSettings) -> Result<TopicDescription, BrokerError> {
        if let Some(found) = self.broker.describe_topic(topic)? {
            return Ok(found);
        }
        self.broker.create_topic(topic, &settings)?;
        self.existing(topic)
    }

    fn windowed(
        &self,
        topic: Topic,
        source: &TopicDescription,
        spec: &WindowedSpec,
        config: &StreamsConfig,
    ) -> Result<Vec<Subtopology>, BrokerError> {
        let changelog = config.changelog_topic(&spec.store);
        let partitions = self.ensure(&changelog, TopicSettings::compacted(source.partitions))?.partitions;
        let output = self.output(spec, partitions)?;
        let kept = Kept { spec: spec.clone(), changelog: changelog.clone(), partitions, output };
        if spec.keyed {
            // One that has grown is counted on in the partitions that it had: those that came are refused one by one.
            if source.partitions < partitions {
                return Err(refused(format!(
                    "topic {topic} has {} partitions, {changelog} has {partitions}: a topic that is keyed by the grouping key must keep its \
                     number of partitions; reset the application (clickmill reset), or count it under another application id",
                    source.partitions
                )));
            }
            return Ok(vec![Subtopology { topic, kind: Kind::Fused { kept } }]);
        }
        let repartition = config.repartition_topic(&spec.store);
        let found = self.ensure(&repartition, TopicSettings::purged(partitions))?.partitions;
        if found != partitions {
            return Err(refused(format!(
                "topic {repartition} has {found} partitions, {changelog} has {partitions}: they must be equal; delete the one that was made \
                 by mistake, reset the application (clickmill reset), or use another application id"
            )));
        }
        let sender = Repartition::new(repartition.clone(), partitions);
        Ok(vec![
            Subtopology { topic: topic.clone(), kind: Kind::Source { repartition: sender, spec: spec.clone() } },
            Subtopology { topic: repartition, kind: Kind::Aggregate { source: topic, kept } },
        ])
    }

    fn output(&self, spec: &WindowedSpec, partitions: u32) -> Result<Option<(Topic, u32)>, BrokerError> {
        let Some(output) = &spec.output else { return Ok(None) };
        let found = self.ensure(output, TopicSettings::kept_for_ever(partitions))?.partitions;
        if spec.emit == EmitStrategy::OnWindowClose && found != partitions {
            return Err(refused(format!(
                "topic {output} has {found} partitions, the store {} has {partitions}: final windows go to the partition of the same number; \
                 delete the topic, and it is created anew",
                spec.store
            )));
        }
        Ok(Some((output.clone(), found)))
    }
}

fn refused(message: String) -> BrokerError {
    BrokerError::new(ErrorKind::Stop, message)
}
