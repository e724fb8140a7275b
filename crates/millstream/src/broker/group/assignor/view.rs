//! The situation by numbers: tasks and members in the order of their names, and what is asked of them again and again.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Lag, MemberState, Situation, Stage, StateCopy};
use crate::record::TopicPartition;

/// The number of a task in the order of names.
pub(super) type TaskNo = usize;

/// The number of a member in the order of instance ids.
pub(super) type MemberNo = usize;

pub(super) struct View<'a> {
    pub(super) situation: &'a Situation,
    pub(super) tasks: Vec<Task<'a>>,
    pub(super) members: Vec<Member<'a>>,
    /// The members that tasks can be given to.
    pub(super) takers: Vec<MemberNo>,
    /// Nothing moves from an owner that lives: lags mean nothing, or all members are about to go.
    pub(super) frozen: bool,
}

pub(super) struct Task<'a> {
    pub(super) name: &'a TopicPartition,
    pub(super) stateful: bool,
    /// The members that list it as owned, understood or not.
    pub(super) claimants: Vec<MemberNo>,
    /// The member that was to get it as soon as it was given up.
    pub(super) heir: Option<MemberNo>,
    /// The member that the last assignment gave it to.
    pub(super) last_active: Option<MemberNo>,
    pub(super) last_standbys: Vec<MemberNo>,
    pub(super) last_warmups: Vec<MemberNo>,
}

pub(super) struct Member<'a> {
    pub(super) id: &'a Arc<str>,
    pub(super) state: &'a MemberState,
    pub(super) taker: bool,
}

impl<'a> View<'a> {
    pub(super) fn new(situation: &'a Situation) -> Self {
        let understood = |state: &MemberState| state.understood;
        // Where all are about to go, somebody has to hold what nobody owns.
        let all_drain = !situation.members.values().any(|state| understood(state) && !state.draining);
        let members: Vec<Member<'_>> = (situation.members.iter())
            .map(|(id, state)| Member { id, state, taker: understood(state) && (all_drain || !state.draining) })
            .collect();
        let takers = (0..members.len()).filter(|&member| members[member].taker).collect();
        let tasks = tasks(situation, &members);
        Self { situation, tasks, members, takers, frozen: all_drain || !situation.ends_known }
    }

    pub(super) fn threads(&self, member: MemberNo) -> u64 {
        u64::from(self.members[member].state.threads.max(1))
    }

    /// The member that holds the task and can be left with it.
    pub(super) fn owner(&self, task: TaskNo) -> Option<MemberNo> {
        match self.tasks[task].claimants[..] {
            [owner] if self.members[owner].state.understood => Some(owner),
            _ => None,
        }
    }

    pub(super) fn is_restoring(&self, task: TaskNo, owner: MemberNo) -> bool {
        self.members[owner].state.owned.get(self.tasks[task].name) == Some(&Stage::Restoring)
    }

    /// Rule 3: the last owner that can be given the task again.
    pub(super) fn last_owner(&self, task: TaskNo) -> Option<MemberNo> {
        let Task { claimants, heir, last_active, .. } = &self.tasks[task];
        let last = if claimants.is_empty() { *last_active } else { self.owner(task) };
        heir.or(last).filter(|&member| self.members[member].taker)
    }

    pub(super) fn copy(&self, task: TaskNo, member: MemberNo) -> Option<StateCopy> {
        self.members[member].state.copies.get(self.tasks[task].name).copied()
    }

    pub(super) fn lag(&self, task: TaskNo, member: MemberNo) -> Option<Lag> {
        self.copy(task, member)?.lag
    }

    /// Rule 4, but for the owner that runs the task.
    pub(super) fn is_caught_up(&self, task: TaskNo, member: MemberNo) -> bool {
        // Without the changelogs' ends a lag says nothing.
        let acceptable = self.situation.options.acceptable_lag;
        self.situation.ends_known && self.lag(task, member).is_some_and(|lag| lag.is_within(acceptable))
    }

    /// How near a member's copy is to taking a task over, the smaller the nearer.
    pub(super) fn progress(&self, task: TaskNo, member: MemberNo) -> (Progress, u64) {
        let Task { last_active, last_standbys, last_warmups, .. } = &self.tasks[task];
        let known = self.lag(task, member).filter(|_| self.situation.ends_known);
        match (self.copy(task, member), known) {
            (None, _) => (Progress::Nothing, 0),
            (_, Some(_)) if self.is_caught_up(task, member) => (Progress::CaughtUp, 0),
            (_, Some(lag)) => (Progress::Behind, lag.records),
            (_, None) if *last_active == Some(member) => (Progress::WasActive, 0),
            (_, None) if last_standbys.contains(&member) || last_warmups.contains(&member) => (Progress::WasReplica, 0),
            (_, None) => (Progress::Unknown, 0),
        }
    }

    /// Whether two members stand in one rack.
    pub(super) fn share_a_rack(&self, one: MemberNo, other: MemberNo) -> bool {
        self.members[one].state.rack == self.members[other].state.rack
    }
}

/// What is known of a copy, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Progress {
    CaughtUp,
    Behind,
    WasActive,
    WasReplica,
    Unknown,
    Nothing,
}

fn tasks<'a>(situation: &'a Situation, members: &[Member<'a>]) -> Vec<Task<'a>> {
    let mut tasks: Vec<Task<'a>> = (situation.tasks.iter())
        .map(|(name, info)| {
            let (claimants, last_standbys, last_warmups) = Default::default();
            Task { name, stateful: info.stateful, claimants, heir: None, last_active: None, last_standbys, last_warmups }
        })
        .collect();
    let task_numbers: BTreeMap<_, TaskNo> = situation.tasks.keys().zip(0..).collect();
    let member_numbers: BTreeMap<_, MemberNo> = situation.members.keys().zip(0..).collect();
    for (number, member) in members.iter().enumerate() {
        for task in member.state.owned.keys().filter_map(|name| task_numbers.get(name)) {
            tasks[*task].claimants.push(number);
        }
        let Some(roles) = situation.previous.members.get(member.id).filter(|_| member.state.understood) else { continue };
        let numbers = |names: &'a std::collections::BTreeSet<TopicPartition>| {
            names.iter().filter_map(|name| task_numbers.get(name).copied())
        };
        numbers(&roles.active).for_each(|task| tasks[task].last_active = Some(number));
        numbers(&roles.standby).for_each(|task| tasks[task].last_standbys.push(number));
        numbers(&roles.warmup).for_each(|task| tasks[task].last_warmups.push(number));
    }
    for (name, heir) in &situation.previous.moving {
        if let (Some(task), Some(member)) = (task_numbers.get(name), member_numbers.get(heir)) {
            tasks[*task].heir = Some(*member).filter(|&member| members[member].taker);
        }
    }
    tasks
}

/// So many tasks for so many threads, compared by their quotient.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) tasks: u64,
    pub(super) threads: u64,
}

impl Ord for Load {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.tasks * other.threads).cmp(&(other.tasks * self.threads))
    }
}

impl PartialOrd for Load {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Load {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Load {}

/// How many tasks each member has so far.
pub(super) struct Loads<'v> {
    view: &'v View<'v>,
    tasks: Vec<u64>,
}

impl<'v> Loads<'v> {
    pub(super) fn new(view: &'v View<'v>) -> Self {
        Self { view, tasks: vec![0; view.members.len()] }
    }

    pub(super) fn add(&mut self, member: MemberNo) {
        self.tasks[member] += 1;
    }

    pub(super) fn remove(&mut self, member: MemberNo) {
        self.tasks[member] -= 1;
    }

    pub(super) fn count(&self, member: MemberNo) -> u64 {
        self.tasks[member]
    }

    pub(super) fn of(&self, member: MemberNo) -> Load {
        Load { tasks: self.tasks[member], threads: self.view.threads(member) }
    }

    /// The load with one task more.
    pub(super) fn with_one_more(&self, member: MemberNo) -> Load {
        Load { tasks: self.tasks[member] + 1, threads: self.view.threads(member) }
    }
}
