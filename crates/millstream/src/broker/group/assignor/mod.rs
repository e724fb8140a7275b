//! Who holds which task in which role: a pure function from what is known of a group to an assignment.
//!
//! The ideal is found by balance alone (`ideal`); then, for each task, who may hold it now (`holders`), where its standbys are (`standbys`),
//! and who builds its state because it is to move (`warmups`). A leader that calls [`assign`] again whenever a member joins, goes, gives up
//! a task or has caught up brings the group to its ideal step by step, and then nothing moves any more.
//!
//! Rules that hold for every outcome:
//! - A task is active at one member at most, and only where no other member lists it as owned.
//! - A task with state leaves an owner that runs it only for a copy that has caught up.
//! - A task without an owner goes at once to the best copy that there is.
//! - The copies of an instance that went are not built elsewhere before its time is over ([`Options::standby_delay_ms`]).
//!
//! The ideas are those of Kafka Streams' high-availability assignor (KIP-441) and its rack-aware standbys (KIP-708).

mod absences;
mod holders;
mod ideal;
mod outcome;
mod situation;
mod standbys;
#[cfg(test)]
mod tests;
mod view;
mod warmups;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::record::TopicPartition;

pub use outcome::{Absence, Assignment, Outcome, Roles, Warning};
pub use situation::{Lag, MemberState, Options, Situation, Stage, StateCopy, TaskInfo};

use standbys::Standbys;
use view::{MemberNo, View};
use warmups::Warmups;

/// Assigns all tasks. The same situation gives the same outcome.
pub fn assign(situation: &Situation) -> Outcome {
    let view = View::new(situation);
    let absent = absences::absences(situation);
    let ideal = ideal::owners(&view);
    let holders = holders::now(&view, &ideal);
    let standbys = standbys::place(&view, &ideal, &holders, &expected_copies(&view, &absent, &holders));
    let warmups = warmups::grant(&view, &ideal, &holders, &standbys, !absent.is_empty());

    let (members, moving) = roles(&view, &holders, &standbys, &warmups);
    let is_under_way = !moving.is_empty() || warmups.are_wanted;
    let last_probe = situation.previous.probe_at_ms.filter(|&at| at > situation.now_ms);
    let next_probe = situation.now_ms.saturating_add(situation.options.probing_interval_ms);
    let probe_at_ms = is_under_way.then(|| last_probe.unwrap_or(next_probe));
    let warnings = warnings(&view, &absent, &holders);
    let assignment = Assignment { members, moving, absent, probe_at_ms };
    Outcome { next_look_ms: next_look(situation, &assignment), assignment, warnings }
}

/// How many copies of each task are on instances that are expected back, or are about to go and do not hold it any more.
fn expected_copies(view: &View<'_>, absent: &BTreeMap<Arc<str>, Absence>, holders: &[Option<MemberNo>]) -> Vec<usize> {
    let expected = |(task, holder): (&view::Task<'_>, &Option<MemberNo>)| {
        let holder = holder.map(|holder| view.members[holder].id);
        absent.iter().filter(|(id, absence)| absence.copies.contains(task.name) && holder != Some(*id)).count()
    };
    view.tasks.iter().zip(holders).map(expected).collect()
}

/// What each member is assigned, and what is assigned to nobody yet.
fn roles(
    view: &View<'_>,
    holders: &[Option<MemberNo>],
    standbys: &Standbys,
    warmups: &Warmups,
) -> (BTreeMap<Arc<str>, Roles>, BTreeMap<TopicPartition, Arc<str>>) {
    let mut roles = vec![Roles::default(); view.members.len()];
    let mut moving = BTreeMap::new();
    for (number, task) in view.tasks.iter().enumerate() {
        for &member in &standbys.now[number] {
            roles[member].standby.insert(task.name.clone());
        }
        for &member in &warmups.now[number] {
            roles[member].warmup.insert(task.name.clone());
        }
        let Some(holder) = holders[number] else { continue };
        if task.claimants.iter().all(|&owner| owner == holder) {
            roles[holder].active.insert(task.name.clone());
            continue;
        }
        moving.insert(task.name.clone(), view.members[holder].id.clone());
        // Its copy is kept up to date until it may be the active one.
        if task.last_standbys.contains(&holder) {
            roles[holder].standby.insert(task.name.clone());
        }
    }
    let members = view.members.iter().zip(roles).map(|(member, roles)| (member.id.clone(), roles)).collect();
    (members, moving)
}

/// The earliest moment at which the passing of time changes something.
fn next_look(situation: &Situation, assignment: &Assignment) -> Option<i64> {
    let away = assignment.absent.iter().filter(|(id, _)| !situation.members.contains_key(*id));
    let retry = situation.now_ms.saturating_add(situation.options.retry_ms);
    let deadlines = away.map(|(_, absence)| absence.until_ms);
    deadlines.chain(assignment.probe_at_ms).chain((!situation.ends_known).then_some(retry)).min()
}

fn warnings(view: &View<'_>, absent: &BTreeMap<Arc<str>, Absence>, holders: &[Option<MemberNo>]) -> Vec<Warning> {
    let situation = view.situation;
    let mut warnings = Vec::new();
    for (id, _) in situation.members.iter().filter(|(_, state)| !state.understood) {
        warnings.push(Warning::NotUnderstood { member: id.clone() });
    }
    if !situation.ends_known {
        warnings.push(Warning::EndsUnknown);
    }
    let num_standbys = situation.options.num_standbys;
    let away = absent.keys().filter(|id| !situation.members.contains_key(*id)).count();
    let instances = situation.members.values().filter(|state| state.understood).count() + away;
    if instances <= num_standbys && num_standbys > 0 && view.tasks.iter().any(|task| task.stateful) {
        warnings.push(Warning::TooFewInstances { num_standbys, instances });
    }
    for task in view.tasks.iter().filter(|task| task.claimants.len() > 1) {
        let members = task.claimants.iter().map(|&member| view.members[member].id.clone()).collect();
        warnings.push(Warning::OwnedTwice { task: task.name.clone(), members });
    }
    let tasks = holders.iter().filter(|holder| holder.is_none()).count();
    if tasks > 0 {
        warnings.push(Warning::NoMember { tasks });
    }
    warnings
}
