//! Which members build a task's state because the task, or a standby of it, is to move there (rule 6).

use super::standbys::Standbys;
use super::view::{Loads, MemberNo, TaskNo, View};

/// The warm-ups of each task.
pub(super) struct Warmups {
    pub(super) now: Vec<Vec<MemberNo>>,
    /// Whether a move waits for a warm-up: one of these, or one that there is no room for yet.
    pub(super) are_wanted: bool,
}

/// A member that should build a task's state. In the order in which they are granted: what was begun is brought to an end, and active tasks come
/// before standbys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Wish {
    is_new: bool,
    for_standby: bool,
    task: TaskNo,
    member: MemberNo,
}

/// Grants warm-ups up to the group's limit, to the least loaded members first. While instances are `expected` back nothing is built from scratch:
/// when they are here again it may not be needed.
pub(super) fn grant(
    view: &View<'_>,
    ideal: &[Option<MemberNo>],
    holders: &[Option<MemberNo>],
    standbys: &Standbys,
    expected: bool,
) -> Warmups {
    let mut wishes = if view.frozen { kept(view, holders, standbys) } else { wishes(view, ideal, holders, standbys) };
    let are_wanted = !wishes.is_empty();
    if expected {
        wishes.retain(|wish| !wish.is_new || view.copy(wish.task, wish.member).is_some());
    }
    let mut loads = Loads::new(view);
    holders.iter().flatten().for_each(|holder| loads.add(*holder));
    let mut now = vec![Vec::new(); view.tasks.len()];
    for _ in 0..view.situation.options.max_warmups {
        let order = |wish: &Wish| (wish.is_new, wish.for_standby, loads.of(wish.member), wish.task, wish.member);
        let Some(wish) = wishes.iter().copied().min_by_key(order) else { break };
        wishes.retain(|other| *other != wish);
        loads.add(wish.member);
        now[wish.task].push(wish.member);
    }
    Warmups { now, are_wanted }
}

fn wishes(view: &View<'_>, ideal: &[Option<MemberNo>], holders: &[Option<MemberNo>], standbys: &Standbys) -> Vec<Wish> {
    let mut wishes = Vec::new();
    for (task, info) in view.tasks.iter().enumerate().filter(|(_, info)| info.stateful) {
        let (Some(ideal), Some(holder)) = (ideal[task], holders[task]) else { continue };
        let is_new = |member: MemberNo| !info.last_warmups.contains(&member);
        if ideal != holder && !standbys.now[task].contains(&ideal) {
            wishes.push(Wish { is_new: is_new(ideal), for_standby: false, task, member: ideal });
        }
        // Who is to get the task keeps its copy up to date until it is given up.
        if info.claimants.iter().any(|&owner| owner != holder) && !is_new(holder) {
            wishes.push(Wish { is_new: false, for_standby: false, task, member: holder });
        }
    }
    for &(task, member) in &standbys.moves {
        let is_new = !view.tasks[task].last_warmups.contains(&member);
        wishes.push(Wish { is_new, for_standby: ideal[task] != Some(member), task, member });
    }
    wishes.sort_unstable();
    wishes.dedup_by_key(|wish| (wish.task, wish.member));
    wishes
}

/// The warm-ups of before, which go on while nothing moves.
fn kept(view: &View<'_>, holders: &[Option<MemberNo>], standbys: &Standbys) -> Vec<Wish> {
    let mut kept = Vec::new();
    for (task, info) in view.tasks.iter().enumerate().filter(|(_, info)| info.stateful) {
        let possible = |member: &MemberNo| {
            view.members[*member].taker && holders[task] != Some(*member) && !standbys.now[task].contains(member)
        };
        let last = info.last_warmups.iter().copied().filter(possible);
        kept.extend(last.map(|member| Wish { is_new: false, for_standby: false, task, member }));
    }
    kept
}
