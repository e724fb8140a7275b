//! The leader of a generation: what all members say of themselves, made into what each is assigned.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::StoreCopy;
use super::assignor::{self, Lag, MemberState, Options, Outcome, Situation, Stage, StateCopy, TaskInfo};
use super::directory::{Directory, InstanceInfo};
use super::user_data::{self, MemberInfo};
use super::{Candidate, MemberAssignment, MemberMetadata, PartitionCounts};
use crate::record::{Offset, Partition, Timestamp, Topic, TopicPartition};

/// What a member remembers of the generation that it leads.
#[derive(Debug, Default)]
pub(super) struct Leader {
    /// How many partitions each topic had.
    counted: BTreeMap<Topic, u32>,
    /// When it has to assign anew, in milliseconds since the epoch.
    next_look_ms: Option<i64>,
}

impl Leader {
    /// Says what each member is assigned in that generation. `before` is what this member was told last.
    pub(super) fn assign(
        &mut self,
        candidate: &Candidate,
        counts: &dyn PartitionCounts,
        before: &Directory,
        (generation, now): (i32, Timestamp),
        members: &BTreeMap<Arc<str>, MemberMetadata>,
    ) -> BTreeMap<Arc<str>, MemberAssignment> {
        let said = Said::of(members);
        self.counted = count(candidate, counts);
        let absent = said.newest(before).threads();
        let situation = said.situation(candidate, &self.counted, before, now.0);
        let Outcome { assignment, next_look_ms, warnings } = assignor::assign(&situation);
        self.next_look_ms = next_look_ms;
        for warning in warnings {
            tracing::warn!(group = %candidate.group, generation, "{warning}");
        }
        let absent = absent.into_iter().filter(|(instance, _)| assignment.absent.contains_key(instance)).collect();
        let directory = Directory { generation, instances: said.instances(), absent, assignment };
        let user_data = user_data::encode(&directory);
        let active = |instance| directory.assignment.members.get(instance).map(|roles| roles.active.iter().cloned().collect());
        let assigned = said.names.iter().map(|(name, instance)| {
            let partitions = active(instance).unwrap_or_default();
            (name.clone(), MemberAssignment { partitions, user_data: user_data.clone() })
        });
        assigned.collect()
    }

    /// Why the group should rebalance now, if it should.
    pub(super) fn wants_rebalance(
        &self,
        candidate: &Candidate,
        counts: &dyn PartitionCounts,
        now: Timestamp,
    ) -> Option<&'static str> {
        if self.next_look_ms.is_some_and(|at| at <= now.0) {
            return Some("a deadline of the assignment has passed");
        }
        (count(candidate, counts) != self.counted).then_some("a topic has grown")
    }
}

/// What all members say.
struct Said<'a> {
    /// The instance of each member.
    names: BTreeMap<Arc<str>, Arc<str>>,
    /// What each instance says.
    instances: BTreeMap<Arc<str>, Member<'a>>,
}

struct Member<'a> {
    name: &'a Arc<str>,
    metadata: &'a MemberMetadata,
    /// None where it cannot be understood.
    info: Option<MemberInfo>,
}

impl<'a> Said<'a> {
    fn of(members: &'a BTreeMap<Arc<str>, MemberMetadata>) -> Self {
        let mut said = Self { names: BTreeMap::new(), instances: BTreeMap::new() };
        for (name, metadata) in members {
            let info = user_data::decode::<MemberInfo>(&metadata.user_data);
            let instance = info.as_ref().map_or(name, |info| &info.instance);
            // An instance that has started again while its last life is still a member is another one, until the group misses that.
            let instance = if said.instances.contains_key(instance) { name } else { instance }.clone();
            said.names.insert(name.clone(), instance.clone());
            said.instances.insert(instance, Member { name, metadata, info });
        }
        said
    }

    fn situation(&self, candidate: &Candidate, counted: &BTreeMap<Topic, u32>, before: &Directory, now_ms: i64) -> Situation {
        let tasks = counted.iter().flat_map(|(topic, partitions)| {
            let info = TaskInfo { stateful: candidate.stateful.contains(topic) };
            (0..*partitions).map(move |partition| (TopicPartition::new(topic.clone(), Partition(partition)), info))
        });
        let ends = self.ends();
        let state = |member: &Member<'_>| match &member.info {
            Some(info) if candidate.topics.iter().all(|topic| member.metadata.topics.contains(topic)) => {
                state_of(member.metadata, info, &ends)
            }
            _ => MemberState { understood: false, ..MemberState::default() },
        };
        Situation {
            tasks: tasks.collect(),
            members: self.instances.iter().map(|(instance, member)| (instance.clone(), state(member))).collect(),
            previous: self.newest(before).assignment.clone(),
            options: Options {
                num_standbys: candidate.placement.standbys as usize,
                max_warmups: candidate.placement.warmups as usize,
                standby_delay_ms: candidate.placement.standby_delay_ms,
                ..Options::default()
            },
            now_ms,
            ends_known: true,
        }
    }

    /// How far the changelog of each task is, by the copy that is furthest. That of its owner is at its end, and where there is none the one that
    /// is furthest goes on.
    fn ends(&self) -> BTreeMap<TopicPartition, Offset> {
        let mut ends: BTreeMap<TopicPartition, Offset> = BTreeMap::new();
        let copies = self.infos().flat_map(|info| &info.copies);
        for (task, position) in copies.filter_map(|(task, copy)| Some((task, copy.position?))) {
            let end = ends.entry(task.clone()).or_insert(position);
            *end = position.max(*end);
        }
        ends
    }

    /// What was assigned last, by whoever among them heard last of it: the leader may have joined since.
    fn newest<'b>(&'b self, before: &'b Directory) -> &'b Directory {
        let told = self.infos().map(|info| &*info.directory);
        told.chain([before]).max_by_key(|directory| directory.generation).unwrap_or(before)
    }

    fn infos(&self) -> impl Iterator<Item = &MemberInfo> {
        self.instances.values().filter_map(|member| member.info.as_ref())
    }

    fn instances(&self) -> BTreeMap<Arc<str>, InstanceInfo> {
        let known = self.instances.iter().filter_map(|(instance, Member { name, info, .. })| {
            let MemberInfo { incarnation, endpoint, rack, threads, .. } = info.as_ref()?;
            let (member, endpoint, rack) = ((*name).clone(), endpoint.clone(), rack.clone());
            let info = InstanceInfo { member, incarnation: *incarnation, endpoint, rack, threads: *threads };
            Some((instance.clone(), info))
        });
        known.collect()
    }
}

fn state_of(metadata: &MemberMetadata, info: &MemberInfo, ends: &BTreeMap<TopicPartition, Offset>) -> MemberState {
    let stage = |task| match info.copies.get(task) {
        Some(copy) if !copy.is_caught_up => Stage::Restoring,
        _ => Stage::Running,
    };
    let lag = |(task, copy): (&TopicPartition, &StoreCopy)| {
        let behind = copy.position.map(|position| (ends.get(task).map_or(0, |end| end.0 - position.0)).max(0) as u64);
        // One that has caught up may be behind by what came since: it is taken at its word. Another is not, however near it seems.
        let records = if copy.is_caught_up { Some(0) } else { behind.map(|behind| behind.max(1)) };
        (task.clone(), StateCopy { lag: records.map(|records| Lag { records, ms: 0 }) })
    };
    MemberState {
        threads: info.threads,
        rack: info.rack.clone(),
        draining: info.is_leaving,
        understood: true,
        owned: metadata.owned.iter().map(|task| (task.clone(), stage(task))).collect(),
        copies: info.copies.iter().map(lag).collect(),
    }
}

fn count(candidate: &Candidate, counts: &dyn PartitionCounts) -> BTreeMap<Topic, u32> {
    candidate.topics.iter().filter_map(|topic| Some((topic.clone(), counts.partitions(topic)?))).collect()
}
