//! A group whose members do what they are assigned: they give up tasks, late or at once, restore, tail changelogs, die and come back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::view::Load;
use super::super::*;
use super::{ACCEPTABLE, behind, check};
use crate::record::TopicPartition;

/// How far behind a copy is that is built from the beginning of its changelog.
const WHOLE_LOG: u64 = 1_000;

#[derive(Debug, Clone, Default)]
pub(super) struct Node {
    pub(super) threads: u32,
    pub(super) rack: Option<Arc<str>>,
    pub(super) draining: bool,
    pub(super) not_understood: bool,
    pub(super) owned: BTreeMap<TopicPartition, Stage>,
    /// Standbys and warm-ups that it runs.
    replicas: BTreeSet<TopicPartition>,
    /// What lies on its disk, with the lag.
    pub(super) disk: BTreeMap<TopicPartition, u64>,
    /// What it is to give up.
    revoked: BTreeSet<TopicPartition>,
}

#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) tasks: BTreeMap<TopicPartition, TaskInfo>,
    pub(super) options: Options,
    pub(super) nodes: BTreeMap<Arc<str>, Node>,
    /// Nodes that are away, with their disks.
    pub(super) away: BTreeMap<Arc<str>, Node>,
    pub(super) previous: Assignment,
    pub(super) now_ms: i64,
    /// How many copies were built from the beginning of a changelog.
    pub(super) built: usize,
    pub(super) ends_unknown: bool,
    pub(super) lags_unknown: bool,
}

impl Group {
    pub(super) fn join(&mut self, name: &str, threads: u32, rack: Option<&str>) {
        let node = Node { threads, rack: rack.map(Arc::from), ..Node::default() };
        self.nodes.insert(Arc::from(name), node);
    }

    /// A node leaves, or dies: what it has on its disk stays there.
    pub(super) fn leave(&mut self, name: &str) {
        let Some(mut node) = self.nodes.remove(name) else { return };
        node.owned.clear();
        node.replicas.clear();
        node.revoked.clear();
        node.draining = false;
        self.away.insert(Arc::from(name), node);
    }

    pub(super) fn come_back(&mut self, name: &str) {
        let Some(node) = self.away.remove(name) else { return };
        self.nodes.insert(Arc::from(name), node);
    }

    pub(super) fn situation(&self) -> Situation {
        let state = |node: &Node| {
            let copy = |lag: u64| if self.lags_unknown { StateCopy { lag: None } } else { behind(lag) };
            MemberState {
                threads: node.threads,
                rack: node.rack.clone(),
                draining: node.draining,
                understood: !node.not_understood,
                owned: node.owned.clone(),
                copies: node.disk.iter().map(|(task, lag)| (task.clone(), copy(*lag))).collect(),
            }
        };
        Situation {
            tasks: self.tasks.clone(),
            members: self.nodes.iter().map(|(id, node)| (id.clone(), state(node))).collect(),
            previous: self.previous.clone(),
            options: self.options,
            now_ms: self.now_ms,
            ends_known: !self.ends_unknown,
        }
    }

    /// Assigns, and has all nodes adopt the assignment, but for what they are to give up.
    pub(super) fn rebalance(&mut self) -> Outcome {
        let situation = self.situation();
        let outcome = assign(&situation);
        check(&situation, &outcome);
        for (id, roles) in &outcome.assignment.members {
            for task in roles.active.iter().filter(|task| !situation.members[id].owned.contains_key(*task)) {
                assert!(!self.nodes.values().any(|node| node.owned.contains_key(task)), "{task} would have two owners");
            }
        }
        for (id, roles) in &outcome.assignment.members {
            let node = self.nodes.get_mut(id).unwrap();
            self.built += node.adopt(&self.tasks, roles);
        }
        self.previous = outcome.assignment.clone();
        outcome
    }

    /// Nodes give up what they were asked for.
    pub(super) fn give_up(&mut self, which: impl Fn(usize) -> bool) {
        for (_, node) in self.nodes.values_mut().enumerate().filter(|(number, _)| which(*number)) {
            for task in std::mem::take(&mut node.revoked) {
                node.owned.remove(&task);
            }
        }
    }

    /// What is run comes `by` records nearer to the end; what only lies there falls behind.
    pub(super) fn progress(&mut self, by: u64) {
        for node in self.nodes.values_mut() {
            for (task, lag) in &mut node.disk {
                let is_run = node.owned.contains_key(task) || node.replicas.contains(task);
                *lag = if is_run { lag.saturating_sub(by) } else { *lag + 1 };
                if *lag <= ACCEPTABLE && node.owned.contains_key(task) {
                    node.owned.insert(task.clone(), Stage::Running);
                }
            }
        }
        for node in self.away.values_mut() {
            node.disk.values_mut().for_each(|lag| *lag += 20);
        }
    }

    /// One round in which all that is under way comes to its end.
    pub(super) fn round(&mut self) -> Outcome {
        let outcome = self.rebalance();
        self.give_up(|_| true);
        self.progress(WHOLE_LOG * 10);
        outcome
    }

    /// Rounds until nothing changes any more.
    pub(super) fn settle(&mut self) {
        let bound = 20 + 3 * self.tasks.len() * (1 + self.options.num_standbys);
        let mut quiet_rounds = 0;
        for _ in 0..bound {
            let before = (self.previous.clone(), self.owners());
            self.now_ms += 10_000;
            let outcome = self.round();
            let is_quiet = before == (self.previous.clone(), self.owners()) && outcome.assignment.absent.is_empty();
            quiet_rounds = if is_quiet { quiet_rounds + 1 } else { 0 };
            // In the first one what was assigned before may just have been begun.
            if quiet_rounds == 2 {
                return self.check_rest(&outcome);
            }
        }
        panic!("no rest after {bound} rounds: {:#?}", self.previous);
    }

    pub(super) fn owner(&self, task: &TopicPartition) -> Option<&Arc<str>> {
        self.nodes.iter().find(|(_, node)| node.owned.contains_key(task)).map(|(id, _)| id)
    }

    pub(super) fn owners(&self) -> BTreeMap<TopicPartition, Arc<str>> {
        self.tasks.keys().filter_map(|task| Some((task.clone(), self.owner(task)?.clone()))).collect()
    }

    /// What holds of a group at rest.
    fn check_rest(&self, outcome: &Outcome) {
        assert_eq!(outcome.next_look_ms, None);
        let Assignment { members, moving, probe_at_ms, .. } = &outcome.assignment;
        assert!(moving.is_empty() && probe_at_ms.is_none());
        assert!(members.values().all(|roles| roles.warmup.is_empty()));
        self.check_balance();
        for (task, _) in self.tasks.iter().filter(|(_, info)| info.stateful) {
            self.check_standbys(task, members);
        }
        self.check_balance_of_standbys(members);
    }

    fn takers(&self) -> impl Iterator<Item = (&Arc<str>, &Node)> {
        self.nodes.iter().filter(|(_, node)| !node.not_understood && !node.draining)
    }

    /// Nobody could give a task of a kind away and both be loaded less than the more loaded of them was.
    fn check_balance(&self) {
        let kinds: BTreeSet<_> = self.tasks.keys().map(|task| &task.topic).collect();
        for kind in kinds {
            let count = |node: &Node| node.owned.keys().filter(|task| task.topic == *kind).count() as u64;
            for (from, rich) in self.takers() {
                for (to, poor) in self.takers() {
                    let has = Load { tasks: count(rich), threads: rich.threads.into() };
                    let would = Load { tasks: count(poor) + 1, threads: poor.threads.into() };
                    assert!(has <= would, "{kind}: {from} has {has:?}, and {to} would have {would:?}");
                }
            }
        }
    }

    fn check_standbys(&self, task: &TopicPartition, members: &BTreeMap<Arc<str>, Roles>) {
        let standbys: Vec<_> = members.iter().filter(|(_, roles)| roles.standby.contains(task)).map(|(id, _)| id).collect();
        let owner = self.owner(task).unwrap();
        let takers = self.takers().count();
        assert_eq!(standbys.len(), self.options.num_standbys.min(takers - 1), "{task}: {standbys:?}");
        let copies: Vec<_> = standbys.iter().copied().chain([owner]).collect();
        for standby in &standbys {
            let others = || copies.iter().filter(|other| *other != standby);
            let shared = |node: &Node| others().filter(|other| self.nodes[**other].rack == node.rack).count();
            let best = self.takers().filter(|(id, _)| !copies.contains(id)).map(|(_, node)| shared(node)).min();
            let has = shared(&self.nodes[*standby]);
            assert!(best.is_none_or(|best| has <= best), "{task}: {standby} shares its rack with {has} of {copies:?}");
        }
    }

    /// Where all nodes are alike, no standby could move to where there is less state.
    fn check_balance_of_standbys(&self, members: &BTreeMap<Arc<str>, Roles>) {
        let place = |node: &Node| (node.threads, node.rack.clone());
        let are_alike = self.takers().all(|(_, node)| Some(place(node)) == self.takers().next().map(|(_, node)| place(node)));
        let has = |id: &Arc<str>, task: &TopicPartition| members[id].active.contains(task) || members[id].standby.contains(task);
        let count = |id: &Arc<str>| self.tasks.iter().filter(|(task, info)| info.stateful && has(id, task)).count();
        for (from, _) in self.takers().filter(|_| are_alike) {
            for (to, _) in self.takers().filter(|(to, _)| count(to) + 1 < count(from)) {
                let movable = members[from].standby.iter().find(|task| !has(to, task));
                assert_eq!(movable, None, "could move from {from}, which has {}, to {to}, which has {}", count(from), count(to));
            }
        }
    }
}

impl Node {
    /// The number of copies that it begins to build from the beginning of their changelogs.
    fn adopt(&mut self, tasks: &BTreeMap<TopicPartition, TaskInfo>, roles: &Roles) -> usize {
        self.revoked = self.owned.keys().filter(|task| !roles.active.contains(*task)).cloned().collect();
        self.replicas = roles.standby.union(&roles.warmup).cloned().collect();
        let mut built = 0;
        for task in self.replicas.iter().chain(&roles.active).filter(|task| tasks[*task].stateful) {
            built += usize::from(!self.disk.contains_key(task));
            self.disk.entry(task.clone()).or_insert(WHOLE_LOG);
        }
        for task in &roles.active {
            let is_ready = self.disk.get(task).is_none_or(|lag| *lag <= ACCEPTABLE);
            let stage = if is_ready { Stage::Running } else { Stage::Restoring };
            self.owned.entry(task.clone()).or_insert(stage);
        }
        built
    }
}
