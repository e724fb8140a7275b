//! Who should hold each task by balance alone (rules 2 and 3).

use std::collections::BTreeMap;

use super::view::{Load, Loads, MemberNo, TaskNo, View};

/// The ideal owner of each task; none where no member can hold tasks.
///
/// Within a kind of task nobody could give one away to another member and have both loaded less than the more loaded of them was. Who
/// gets the odd ones is decided by the load of the kinds before and by who has them already: for kinds with state the second comes first,
/// since evening out the odd ones of several kinds is not worth the state that would move.
pub(super) fn owners(view: &View<'_>) -> Vec<Option<MemberNo>> {
    let mut owners = vec![None; view.tasks.len()];
    if view.takers.is_empty() {
        return owners;
    }
    let mut kinds: BTreeMap<_, Vec<TaskNo>> = BTreeMap::new();
    for (number, task) in view.tasks.iter().enumerate() {
        // Those with state come first: they take the even shares, and what moves easily makes up for their odd ones.
        kinds.entry((!task.stateful, &task.name.topic)).or_default().push(number);
    }
    let mut loads = Loads::new(view);
    for tasks in kinds.values() {
        let shares = shares(view, tasks, &loads);
        Kind::new(view, tasks, &shares).share_out(&mut owners);
        for owner in tasks.iter().filter_map(|&task| owners[task]) {
            loads.add(owner);
        }
    }
    owners
}

/// How many tasks of one kind each member should have.
fn shares(view: &View<'_>, tasks: &[TaskNo], before: &Loads<'_>) -> Vec<u64> {
    let held = held(view, tasks);
    let stateful = tasks.iter().any(|&task| view.tasks[task].stateful);
    let mut shares = Loads::new(view);
    for _ in tasks {
        let next = view.takers.iter().min_by_key(|&&member| {
            let has_them_all = shares.count(member) >= held[member];
            // State stays where it is; what has none makes up for the odd ones of the kinds before.
            (shares.with_one_more(member), stateful && has_them_all, before.of(member), has_them_all, member)
        });
        next.into_iter().for_each(|member| shares.add(*member));
    }
    (0..view.members.len()).map(|member| shares.count(member)).collect()
}

/// How many of these tasks each member had last.
fn held(view: &View<'_>, tasks: &[TaskNo]) -> Vec<u64> {
    let mut held = vec![0; view.members.len()];
    tasks.iter().filter_map(|&task| view.last_owner(task)).for_each(|owner| held[owner] += 1);
    held
}

/// The tasks of one kind while they are shared out.
struct Kind<'v> {
    view: &'v View<'v>,
    tasks: &'v [TaskNo],
    /// How many tasks each member is to get beside those that it keeps.
    room: Vec<u64>,
    /// How many tasks each member is to lose.
    surplus: Vec<u64>,
}

impl<'v> Kind<'v> {
    fn new(view: &'v View<'v>, tasks: &'v [TaskNo], shares: &[u64]) -> Self {
        let held = held(view, tasks);
        let room = shares.iter().zip(&held).map(|(share, held)| share.saturating_sub(*held)).collect();
        let surplus = shares.iter().zip(&held).map(|(share, held)| held.saturating_sub(*share)).collect();
        Self { view, tasks, room, surplus }
    }

    fn share_out(mut self, owners: &mut [Option<MemberNo>]) {
        for (_, task, member) in self.offers() {
            if owners[task].is_none() && self.room[member] > 0 && self.is_free(task) {
                self.give(task, member, owners);
            }
        }
        let by_room = |room: &[u64], member: MemberNo| Load { tasks: room[member], threads: self.view.threads(member) };
        for &task in self.tasks.iter().rev() {
            if owners[task].is_none() && self.is_free(task) {
                let takers = self.view.takers.iter().copied();
                let roomiest = takers.rev().max_by_key(|&member| by_room(&self.room, member));
                roomiest.into_iter().for_each(|member| self.give(task, member, owners));
            }
        }
        for &task in self.tasks {
            owners[task] = owners[task].or(self.view.last_owner(task));
        }
    }

    /// Who could take which task because it has its state, the most suitable first.
    fn offers(&self) -> Vec<((bool, Suitability), TaskNo, MemberNo)> {
        let mut offers = Vec::new();
        for &task in self.tasks.iter().filter(|&&task| self.is_free(task)) {
            let has_owner = self.view.last_owner(task).is_some();
            let with_room = self.view.takers.iter().filter(|&&member| self.room[member] > 0);
            let with_state = with_room.filter_map(|&member| Some((suitability(self.view, task, member)?, member)));
            offers.extend(with_state.map(|(suitability, member)| ((has_owner, suitability), task, member)));
        }
        offers.sort_unstable();
        offers
    }

    /// Whether the task is nobody's, or that of a member with more than its share.
    fn is_free(&self, task: TaskNo) -> bool {
        self.view.last_owner(task).is_none_or(|owner| self.surplus[owner] > 0)
    }

    fn give(&mut self, task: TaskNo, member: MemberNo, owners: &mut [Option<MemberNo>]) {
        owners[task] = Some(member);
        self.room[member] -= 1;
        self.view.last_owner(task).into_iter().for_each(|owner| self.surplus[owner] -= 1);
    }
}

/// How well a member could take a task that moves: caught up or not, then its role, then its lag. Smaller is better.
pub(super) type Suitability = (bool, u8, u64);

/// Rule 3 after the last owner: a replica, the most caught-up first, then state on disk by its position. A warm-up that is under way
/// stands before other replicas, so that what was begun is brought to an end. None without a copy.
pub(super) fn suitability(view: &View<'_>, task: TaskNo, member: MemberNo) -> Option<Suitability> {
    view.copy(task, member)?;
    let is_caught_up = view.is_caught_up(task, member);
    let role = match &view.tasks[task] {
        task if task.last_warmups.contains(&member) => 0,
        task if task.last_standbys.contains(&member) => 1,
        _ => 2,
    };
    let lag = view.lag(task, member).map_or(u64::MAX, |lag| lag.records);
    // Lags of copies that have caught up tremble and must not decide.
    Some((!is_caught_up, role, if is_caught_up || role == 0 { 0 } else { lag }))
}
