//! Calling the roll: nobody can tell an instance that has stopped from one behind a broken line, but the group can. When all are to join again, whoever
//! does not is a member no more, after the rebalance timeout, which is much shorter than a session; the living go on counting meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Directory;
use crate::record::Timestamp;

/// For so long nobody is suspected again who has answered without having been heard.
const BELIEVED_MS: i64 = 30_000;

/// The roll is not called more often.
const INTERVAL_MS: i64 = 5_000;

/// The instances that a member suspects to have stopped.
#[derive(Debug, Default)]
pub(super) struct Roll {
    suspects: BTreeMap<(Arc<str>, u64), Suspicion>,
    called_at: Option<Timestamp>,
}

#[derive(Debug)]
struct Suspicion {
    /// The generation in which it arose.
    generation: i32,
    /// When the roll was last called for it, or answered by it.
    believed_from: Option<Timestamp>,
}

impl Roll {
    /// These are silent, and no others, as this member sees it.
    pub(super) fn suspect(&mut self, silent: &BTreeMap<Arc<str>, u64>, generation: i32) {
        self.suspects.retain(|(instance, incarnation), _| silent.get(instance) == Some(incarnation));
        for (instance, incarnation) in silent {
            let suspicion = Suspicion { generation, believed_from: None };
            self.suspects.entry((instance.clone(), *incarnation)).or_insert(suspicion);
        }
    }

    /// Whether the roll is to be called now. Then it counts as called.
    pub(super) fn is_to_be_called(&mut self, directory: &Directory, now: Timestamp) -> bool {
        if self.suspects.is_empty() || self.called_at.is_some_and(|at| is_within(at, now, INTERVAL_MS)) {
            return false;
        }
        let is_due = |((instance, incarnation), suspicion): (&(Arc<str>, u64), &Suspicion)| {
            let is_member = directory.instances.get(instance).is_some_and(|info| info.incarnation == *incarnation);
            is_member && suspicion.believed_from.is_none_or(|from| !is_within(from, now, BELIEVED_MS))
        };
        let is_called = self.suspects.iter().any(is_due);
        if is_called {
            self.called_at = Some(now);
            self.suspects.values_mut().for_each(|suspicion| suspicion.believed_from = Some(now));
        }
        is_called
    }

    /// A generation has begun. Whoever of the suspects is in it has joined it.
    pub(super) fn answered(&mut self, directory: &Directory, now: Timestamp) {
        for ((instance, incarnation), suspicion) in &mut self.suspects {
            let is_in_it = directory.instances.get(instance).is_some_and(|info| info.incarnation == *incarnation);
            if is_in_it && directory.generation > suspicion.generation {
                suspicion.generation = directory.generation;
                suspicion.believed_from = Some(now);
            }
        }
    }
}

/// Whether no more than that has passed since. A clock that was set back says nothing.
fn is_within(since: Timestamp, now: Timestamp, ms: i64) -> bool {
    (since.0..since.0.saturating_add(ms)).contains(&now.0)
}

#[cfg(test)]
mod tests {
    use super::super::InstanceInfo;
    use super::*;

    fn directory(generation: i32, instances: &[(&str, u64)]) -> Directory {
        let info = |incarnation| InstanceInfo { incarnation, ..InstanceInfo::default() };
        let instances = instances.iter().map(|(name, incarnation)| ((*name).into(), info(*incarnation))).collect();
        Directory { generation, instances, ..Directory::default() }
    }

    fn silent(instances: &[(&str, u64)]) -> BTreeMap<Arc<str>, u64> {
        instances.iter().map(|(name, incarnation)| ((*name).into(), *incarnation)).collect()
    }

    #[test]
    fn the_roll_is_called_once_for_a_member_that_is_silent() {
        let (mut roll, members) = (Roll::default(), directory(3, &[("a", 1), ("b", 2)]));
        assert!(!roll.is_to_be_called(&members, Timestamp(0)));
        for not_a_member in [("a", 7), ("c", 1)] {
            roll.suspect(&silent(&[not_a_member]), 3);
            assert!(!roll.is_to_be_called(&members, Timestamp(0)), "{not_a_member:?}");
        }
        roll.suspect(&silent(&[("a", 1)]), 3);
        assert!(roll.is_to_be_called(&members, Timestamp(0)));
        assert!(!roll.is_to_be_called(&members, Timestamp(20_000)), "it may be the line to it");
        assert!(roll.is_to_be_called(&members, Timestamp(30_000)));
    }

    #[test]
    fn who_was_heard_meanwhile_is_suspected_anew_and_the_roll_is_not_called_all_the_time() {
        let (mut roll, members) = (Roll::default(), directory(3, &[("a", 1), ("b", 2)]));
        roll.suspect(&silent(&[("a", 1)]), 3);
        assert!(roll.is_to_be_called(&members, Timestamp(0)));
        roll.suspect(&silent(&[]), 3);
        roll.suspect(&silent(&[("a", 1), ("b", 2)]), 3);
        assert!(!roll.is_to_be_called(&members, Timestamp(4_999)));
        assert!(roll.is_to_be_called(&members, Timestamp(5_000)));
    }

    #[test]
    fn who_has_answered_a_roll_that_another_called_is_believed_for_a_while() {
        let mut roll = Roll::default();
        roll.suspect(&silent(&[("a", 1)]), 3);
        let members = directory(4, &[("a", 1)]);
        roll.answered(&members, Timestamp(100));
        assert!(!roll.is_to_be_called(&members, Timestamp(20_000)));
        assert!(roll.is_to_be_called(&members, Timestamp(30_100)));
    }
}
