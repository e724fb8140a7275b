use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::context::{Parts, Stepped, StreamsError};
use super::handover::Handover;
use super::plan::Plan;
use super::task::Task;
use super::trouble::Complaint;
use crate::broker::{Broker, BrokerError, ErrorKind, Fence, MemberEvent, Membership, StoreCopy};
use crate::record::{Timestamp, TopicPartition};
use crate::task::TaskId;

/// How often what lies on the disk is looked at and reported, in milliseconds.
const REPORT_INTERVAL_MS: i64 = 200;

/// The instance as a member of the application's group: it hears which tasks are the instance's own, hands them out, and reports when
/// those that are asked back have ended.
pub struct Member<B: Broker> {
    parts: Arc<Parts<B>>,
    handover: Arc<Handover<B>>,
    plan: Option<Arc<Plan>>,
    membership: Option<B::Membership>,
    /// Asked back, and not given up yet.
    revoked: Vec<TopicPartition>,
    threads: usize,
    complaint: Complaint,
    /// What the group calls it.
    name: Option<Arc<str>>,
    /// When what lies on the disk was reported last.
    reported_at: Option<Timestamp>,
}

impl<B: Broker> std::fmt::Debug for Member<B>
where
    B::Membership: std::fmt::Debug,
{
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { membership, revoked, .. } = self;
        f.debug_struct("Member").field("membership", membership).field("revoked", revoked).finish_non_exhaustive()
    }
}

impl<B: Broker> Member<B> {
    pub(super) fn new(threads: usize, parts: Arc<Parts<B>>, handover: Arc<Handover<B>>) -> Self {
        Self {
            parts,
            handover,
            plan: None,
            membership: None,
            revoked: Vec::new(),
            threads,
            complaint: Complaint::default(),
            name: None,
            reported_at: None,
        }
    }

    /// Hears what the group has to say, and does it. Waits for that at most `max_wait`.
    ///
    /// # Errors
    /// Where the instance as a whole has to stop. It must not be stepped again.
    pub fn step(&mut self, max_wait: Duration) -> Result<Stepped, StreamsError> {
        match self.try_step(max_wait) {
            Ok(stepped) => Ok(stepped),
            Err(error) => {
                let reason = error.to_string();
                if let Some(held_back) = self.complaint.is_to_be_said(&reason, self.parts.now()) {
                    tracing::warn!(reason, kind = ?error.kind(), held_back, "the instance could not be a member of its group");
                }
                match error.kind() {
                    ErrorKind::Stop | ErrorKind::OffsetOutOfRange => return Err(StreamsError::new(error)),
                    ErrorKind::Fenced => self.lose(),
                    ErrorKind::Retry | ErrorKind::AbortTransaction | ErrorKind::OutcomeUnknown => {}
                }
                Ok(Stepped::Troubled)
            }
        }
    }

    /// Leaves the group, once all threads have committed and closed.
    pub fn close(mut self) {
        self.handover.wait_closed();
        self.parts.registry.put_member(false);
        // Where it cannot be told, the group finds out by itself.
        if let Some(Err(error)) = self.membership.take().map(|mut membership| membership.leave()) {
            tracing::warn!(%error, "the group could not be told that this member leaves");
        }
    }

    fn try_step(&mut self, max_wait: Duration) -> Result<Stepped, BrokerError> {
        let plan = self.connect()?;
        self.report(&plan);
        let version = self.handover.version();
        let given_up = self.give_up(&plan)?;
        self.handover.make_missing(|id, role, membership| Task::assigned(id, role, &plan, membership, &self.parts.registry));
        let wait = if self.revoked.is_empty() && !given_up { max_wait } else { Duration::ZERO };
        let Some(membership) = &mut self.membership else { return Ok(Stepped::Troubled) };
        let registry = &self.parts.registry;
        if registry.is_handing_over() {
            membership.hand_over();
        }
        for (instance, incarnation) in registry.take_dead() {
            membership.evict(&instance, incarnation)?;
        }
        membership.suspect(&registry.silent());
        let event = membership.poll(wait)?;
        registry.put_directory(membership.directory());
        registry.put_handed_over(membership.has_handed_over());
        match event {
            MemberEvent::Nothing if given_up => Ok(Stepped::Worked),
            MemberEvent::Nothing if self.revoked.is_empty() => Ok(Stepped::Idle),
            MemberEvent::Nothing => {
                // The threads are at it.
                self.handover.wait(version, max_wait);
                Ok(Stepped::Worked)
            }
            MemberEvent::Assigned { partitions, fence } => {
                self.assign(&plan, &partitions, fence);
                Ok(Stepped::Worked)
            }
            MemberEvent::Standbys { partitions } => {
                // Where nothing is kept there is nothing to have a copy of.
                let ids = ids(&plan, &partitions).into_iter().filter(|id| plan.subtopology(*id).kept().is_some());
                self.handover.put_standbys(ids);
                self.parts.registry.put_member(true);
                Ok(Stepped::Worked)
            }
            MemberEvent::Revoked { partitions } => {
                self.handover.recall(ids(&plan, &partitions));
                self.revoked.extend(partitions);
                Ok(Stepped::Worked)
            }
            MemberEvent::Lost => {
                tracing::warn!("the membership was lost: uncommitted work is dropped, and the group joined again");
                self.forget();
                Ok(Stepped::Worked)
            }
        }
    }

    /// Makes sure that there are a plan and a membership.
    fn connect(&mut self) -> Result<Arc<Plan>, BrokerError> {
        let Parts { broker, topology, config, .. } = &*self.parts;
        let plan = match &self.plan {
            Some(plan) => plan.clone(),
            None => Arc::new(Plan::prepare(topology, &**broker, config)?),
        };
        self.plan = Some(plan.clone());
        if self.membership.is_none() {
            let membership = broker.join(&plan.candidate(self.threads, config))?;
            self.parts.registry.put_confirmation(membership.confirmation());
            self.membership = Some(membership);
            self.reported_at = None;
        }
        Ok(plan)
    }

    /// Reports what lies on the disk, now and then.
    fn report(&mut self, plan: &Plan) {
        let now = self.parts.now();
        if self.reported_at.is_some_and(|at| self.parts.is_before(at, REPORT_INTERVAL_MS)) {
            return;
        }
        let copies = self.copies(plan);
        if let Some(membership) = &mut self.membership {
            membership.report(now, copies);
        }
        self.reported_at = Some(now);
    }

    /// The stores that are here: those of tasks, and those that nobody has opened.
    fn copies(&self, plan: &Plan) -> BTreeMap<TopicPartition, StoreCopy> {
        let mut copies = BTreeMap::new();
        for (topic, store) in plan.stores() {
            match self.parts.provider.partitions(store) {
                Ok(partitions) => {
                    let unopened = partitions.into_iter().map(|partition| TopicPartition::new(topic.clone(), partition));
                    copies.extend(unopened.map(|task| (task, StoreCopy { position: None, is_caught_up: false })));
                }
                Err(error) => tracing::debug!(%error, store = &**store, "the stores on the disk could not be listed"),
            }
        }
        let kept = self.parts.registry.tasks().into_iter().filter(|task| plan.subtopology(task.id).kept().is_some());
        copies.extend(kept.map(|task| (task.input().clone(), task.copy())));
        copies
    }

    fn assign(&mut self, plan: &Arc<Plan>, partitions: &[TopicPartition], fence: Fence) {
        if self.name.as_ref() != Some(fence.member()) {
            self.parts.observer.joined(fence.member());
            self.name = Some(fence.member().clone());
        }
        let ids = ids(plan, partitions);
        if ids.len() < partitions.len() {
            tracing::warn!(?partitions, "partitions were assigned that the topology does not read: they are left alone");
        }
        self.handover.assign(fence, &ids);
        self.parts.registry.put_member(true);
    }

    /// Reports what was asked back and is in nobody's hands any more.
    fn give_up(&mut self, plan: &Plan) -> Result<bool, BrokerError> {
        if self.revoked.is_empty() || !self.handover.are_given_up(ids(plan, &self.revoked)) {
            return Ok(false);
        }
        if let Some(membership) = &mut self.membership {
            membership.give_up(&self.revoked)?;
        }
        self.revoked.clear();
        Ok(true)
    }

    /// The membership is of no use any more: another is begun.
    fn lose(&mut self) {
        self.membership = None;
        self.forget();
    }

    /// Nothing is ours any more.
    fn forget(&mut self) {
        self.revoked.clear();
        self.handover.lose();
        self.parts.registry.put_member(false);
    }
}

fn ids(plan: &Plan, partitions: &[TopicPartition]) -> Vec<TaskId> {
    partitions.iter().filter_map(|input| Some(plan.task(input)?.0)).collect()
}
