//! Where each task's standbys are (rules 6, 7 and 8): first where they should be, then what of that may be now.

use std::cmp::Reverse;

use super::ideal::suitability;
use super::view::{Load, Loads, MemberNo, Progress, TaskNo, View};

/// Where standbys are, and where some of them should move.
pub(super) struct Standbys {
    /// The standbys of each task.
    pub(super) now: Vec<Vec<MemberNo>>,
    /// Members that are to build a task's state before they take the place of a standby that has it.
    pub(super) moves: Vec<(TaskNo, MemberNo)>,
}

/// Places the standbys of all tasks. `expected[task]` copies are on instances that are expected back, or are about to go: nothing
/// is built in their place, and nothing is moved to even out the load as long as there are any.
pub(super) fn place(view: &View<'_>, ideal: &[Option<MemberNo>], holders: &[Option<MemberNo>], expected: &[usize]) -> Standbys {
    let mut standbys = Standbys { now: vec![Vec::new(); view.tasks.len()], moves: Vec::new() };
    if view.frozen {
        standbys.now = holders.iter().enumerate().map(|(task, holder)| before(view, task, *holder)).collect();
        return standbys;
    }
    let mut places = Places::new(view, ideal, holders);
    for (task, expected) in expected.iter().enumerate() {
        places.choose(task, *expected);
    }
    if expected.iter().all(|copies| *copies == 0) {
        while places.even_out() {}
    }
    let chosen = places.chosen;
    for (task, chosen) in chosen.iter().enumerate() {
        standbys.settle(view, task, holders[task], chosen);
    }
    standbys
}

/// The members that were a task's standbys and still can be.
fn before(view: &View<'_>, task: TaskNo, holder: Option<MemberNo>) -> Vec<MemberNo> {
    let task = &view.tasks[task];
    let last = task.last_standbys.iter().copied();
    last.filter(|&member| task.stateful && view.members[member].taker && Some(member) != holder).collect()
}

impl Standbys {
    /// Decides what of the places chosen for a task's standbys can be taken now: a copy that is behind takes the place of a better one only
    /// when it has caught up.
    fn settle(&mut self, view: &View<'_>, task: TaskNo, holder: Option<MemberNo>, chosen: &[MemberNo]) {
        let last = before(view, task, holder);
        let (mut now, mut late) = (Vec::new(), Vec::new());
        for &member in chosen {
            let can_now = last.contains(&member) || view.is_caught_up(task, member);
            if can_now { now.push(member) } else { late.push(member) }
        }
        let mut spare: Vec<MemberNo> = last.into_iter().filter(|member| !chosen.contains(member)).collect();
        spare.sort_by_key(|&member| Reverse((view.progress(task, member), member)));
        for member in late {
            let better = spare.pop_if(|spare| view.progress(task, *spare) < view.progress(task, member));
            now.push(better.unwrap_or(member));
            if better.is_some() {
                self.moves.push((task, member));
            }
        }
        // One that drains keeps what it has until it goes.
        let drains = |member: &MemberNo| view.members[*member].state.draining && Some(*member) != holder;
        now.extend(view.tasks[task].last_standbys.iter().copied().filter(drains));
        now.sort_unstable();
        self.now[task] = now;
    }
}

/// The places of standbys while they are chosen.
struct Places<'v> {
    view: &'v View<'v>,
    ideal: &'v [Option<MemberNo>],
    holders: &'v [Option<MemberNo>],
    /// How much state each member will have: ideal active tasks, and standbys chosen so far.
    loads: Loads<'v>,
    chosen: Vec<Vec<MemberNo>>,
}

impl<'v> Places<'v> {
    fn new(view: &'v View<'v>, ideal: &'v [Option<MemberNo>], holders: &'v [Option<MemberNo>]) -> Self {
        let mut loads = Loads::new(view);
        let stateful = ideal.iter().zip(&view.tasks).filter(|(_, task)| task.stateful);
        stateful.filter_map(|(owner, _)| *owner).for_each(|owner| loads.add(owner));
        Self { view, ideal, holders, loads, chosen: vec![Vec::new(); view.tasks.len()] }
    }

    /// Chooses the places of one task: other racks first, then who has its state, then the least loaded.
    fn choose(&mut self, task: TaskNo, expected: usize) {
        if !self.view.tasks[task].stateful || self.holders[task].is_none() {
            return;
        }
        for _ in expected..self.view.situation.options.num_standbys {
            let possible = self.view.takers.iter().copied().filter(|&member| self.is_possible(task, member));
            let rank = |member: MemberNo| -> (_, _, Load, _) {
                (self.same_rack(task, member, None), self.stickiness(task, member), self.loads.with_one_more(member), member)
            };
            let Some(place) = possible.min_by_key(|&member| rank(member)) else { return };
            // Where the ideal owner is a standby until it takes over, its place is then that of the holder.
            let later = self.holders[task].filter(|_| self.ideal[task] == Some(place)).unwrap_or(place);
            self.loads.add(later);
            self.chosen[task].push(place);
        }
    }

    fn is_possible(&self, task: TaskNo, member: MemberNo) -> bool {
        if self.holders[task] == Some(member) || self.chosen[task].contains(&member) {
            return false;
        }
        // The ideal owner builds the state for a role of its own, unless it has it or there is nobody else.
        let too_few_others = self.view.takers.len() < self.view.situation.options.num_standbys + 2;
        self.ideal[task] != Some(member) || too_few_others || self.view.copy(task, member).is_some()
    }

    /// With how many other copies of the task a standby would share a rack, were it in the place of `instead_of`.
    fn same_rack(&self, task: TaskNo, member: MemberNo, instead_of: Option<MemberNo>) -> usize {
        let others = self.chosen[task].iter().copied().chain(self.holders[task]);
        others.filter(|&other| other != member && Some(other) != instead_of && self.view.share_a_rack(member, other)).count()
    }

    /// How near a member is to being the task's standby, the smaller the nearer.
    fn stickiness(&self, task: TaskNo, member: MemberNo) -> (u8, u64) {
        let was_standby = self.view.tasks[task].last_standbys.contains(&member);
        match self.view.progress(task, member) {
            (Progress::CaughtUp, _) => (if was_standby { 0 } else { 1 }, 0),
            _ if was_standby => (2, 0),
            (Progress::Nothing, _) => (5, 0),
            (Progress::Behind, lag) => (3, lag),
            _ => (4, 0),
        }
    }

    /// Moves one place from a member to one that has less even with it. Says whether there was such a place.
    fn even_out(&mut self) -> bool {
        let takers = &self.view.takers;
        let mut by_load = takers.clone();
        by_load.sort_by_key(|&member| (self.loads.of(member), member));
        for &from in by_load.iter().rev() {
            for &to in by_load.iter().filter(|&&to| self.loads.with_one_more(to) < self.loads.of(from)) {
                let movable = (0..self.chosen.len()).filter(|&task| self.can_move(task, from, to));
                let rank = |task: TaskNo| (suitability(self.view, task, to).map_or((1, None), |known| (0, Some(known))), task);
                let Some(task) = movable.min_by_key(|&task| rank(task)) else { continue };
                self.chosen[task].retain(|&member| member != from);
                self.chosen[task].push(to);
                self.loads.remove(from);
                self.loads.add(to);
                return true;
            }
        }
        false
    }

    fn can_move(&self, task: TaskNo, from: MemberNo, to: MemberNo) -> bool {
        self.chosen[task].contains(&from)
            && self.ideal[task] != Some(from)
            && self.is_possible(task, to)
            && self.same_rack(task, to, Some(from)) <= self.same_rack(task, from, None)
    }
}
