//! Instances that are expected back: their copies are not built elsewhere for a while, so that a rolling restart moves no state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Absence, Situation};

/// Those who went, until their time is over, and those who drain, as long as they are there.
pub(super) fn absences(situation: &Situation) -> BTreeMap<Arc<str>, Absence> {
    let (previous, now) = (&situation.previous, situation.now_ms);
    let until_ms = now.saturating_add(situation.options.standby_delay_ms);
    let mut absent = BTreeMap::new();
    for (id, absence) in &previous.absent {
        let is_new = previous.members.contains_key(id);
        let until_ms = if is_new { until_ms } else { absence.until_ms };
        absent.insert(id.clone(), Absence { until_ms, copies: absence.copies.clone() });
    }
    for (id, roles) in &previous.members {
        let absence = absent.entry(id.clone()).or_insert_with(|| Absence { until_ms, copies: BTreeSet::new() });
        // A warm-up is not waited for.
        absence.copies.extend(roles.active.iter().chain(&roles.standby).cloned());
    }
    let drains = |id: &Arc<str>| situation.members.get(id).is_some_and(|member| member.understood && member.draining);
    absent.retain(|id, absence| {
        absence.copies.retain(|task| situation.tasks.get(task).is_some_and(|info| info.stateful));
        let is_away = !situation.members.contains_key(id) && absence.until_ms > now;
        !absence.copies.is_empty() && (is_away || drains(id))
    });
    absent
}
