//! Who holds each task now (rules 4, 5, 9 and 12): its ideal owner as soon as that can go on without a restore.

use super::view::{Load, Loads, MemberNo, Progress, TaskNo, View};

/// The member that each task is given to. It may have to wait until others have given it up.
pub(super) fn now(view: &View<'_>, ideal: &[Option<MemberNo>]) -> Vec<Option<MemberNo>> {
    let mut loads = Loads::new(view);
    let mut holders = vec![None; view.tasks.len()];
    // Those whose holder is certain come first: what has no owner goes to where there is least.
    for task in 0..view.tasks.len() {
        holders[task] = certain(view, task, ideal[task]);
        holders[task].into_iter().for_each(|holder| loads.add(holder));
    }
    for task in 0..view.tasks.len() {
        if holders[task].is_none() {
            holders[task] = best(view, task, ideal[task], &loads);
            holders[task].into_iter().for_each(|holder| loads.add(holder));
        }
    }
    holders
}

/// The holder, but for a task with state that has no owner that could keep it.
fn certain(view: &View<'_>, task: TaskNo, ideal: Option<MemberNo>) -> Option<MemberNo> {
    let owner = view.owner(task);
    if view.frozen && owner.is_some() {
        return owner;
    }
    if !view.tasks[task].stateful {
        return ideal.or(owner);
    }
    let owner = owner?;
    let ideal_can = ideal.filter(|&ideal| view.is_caught_up(task, ideal));
    if view.members[owner].state.draining || view.is_restoring(task, owner) {
        return ideal_can.or_else(|| instead(view, task, owner)).or(Some(owner));
    }
    if ideal == Some(owner) { ideal } else { ideal_can.or(Some(owner)) }
}

/// Who takes over from an owner that is about to go, or has still to restore.
fn instead(view: &View<'_>, task: TaskNo, owner: MemberNo) -> Option<MemberNo> {
    let others = view.takers.iter().copied().filter(|&member| member != owner);
    let best = others.min_by_key(|&member| (view.progress(task, member), member))?;
    match view.progress(task, best) {
        (Progress::CaughtUp, _) => Some(best).filter(|_| !view.is_caught_up(task, owner) || view.members[owner].state.draining),
        // Two that restore side by side are not to take turns: only who has half of the way less to go takes over.
        (Progress::Behind, lag) if !view.members[owner].state.draining => {
            Some(best).filter(|_| view.lag(task, owner).is_some_and(|own| lag < own.records / 2))
        }
        _ => None,
    }
}

/// The best copy for a task without an owner: among equals the ideal owner, who was to get it, the least loaded.
fn best(view: &View<'_>, task: TaskNo, ideal: Option<MemberNo>, loads: &Loads<'_>) -> Option<MemberNo> {
    let heir = view.tasks[task].heir;
    let rank = |member: MemberNo| -> (_, _, _, Load, _) {
        (view.progress(task, member), Some(member) != ideal, Some(member) != heir, loads.of(member), member)
    };
    view.takers.iter().copied().min_by_key(|&member| rank(member))
}
