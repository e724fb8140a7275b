//! Which of an instance's threads runs which task.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::task::TaskId;

/// A thread for each task. Tasks of one subtopology do the same work, so each subtopology is shared evenly (no thread has two
/// more of its tasks than another), and so is their sum. As few tasks as possible leave the thread that they were at `before`.
/// The same input gives the same result.
pub(super) fn share(tasks: &BTreeSet<TaskId>, threads: usize, before: &BTreeMap<TaskId, usize>) -> BTreeMap<TaskId, usize> {
    let mut shared = BTreeMap::new();
    let mut totals = vec![0; threads];
    let mut by_kind: BTreeMap<u32, Vec<TaskId>> = BTreeMap::new();
    for task in tasks {
        by_kind.entry(task.subtopology).or_default().push(*task);
    }
    for kind in by_kind.values() {
        let at = |task: &TaskId| before.get(task).copied().filter(|thread| *thread < threads);
        let had = |thread: usize| kind.iter().filter(|task| at(task) == Some(thread)).count();
        let mut quotas = vec![kind.len() / threads; threads];
        let mut order: Vec<usize> = (0..threads).collect();
        order.sort_by_key(|&thread| (totals[thread], Reverse(had(thread)), thread));
        order.iter().take(kind.len() % threads).for_each(|&thread| quotas[thread] += 1);
        (0..threads).for_each(|thread| totals[thread] += quotas[thread]);
        let mut moving = Vec::new();
        for task in kind {
            match at(task).filter(|&thread| quotas[thread] > 0) {
                Some(thread) => {
                    quotas[thread] -= 1;
                    shared.insert(*task, thread);
                }
                None => moving.push(*task),
            }
        }
        let free = quotas.iter().enumerate().flat_map(|(thread, &left)| std::iter::repeat_n(thread, left));
        shared.extend(moving.into_iter().zip(free));
    }
    shared
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Partition;
    use proptest::prelude::*;

    fn task(subtopology: u32, partition: u32) -> TaskId {
        TaskId { subtopology, partition: Partition(partition) }
    }

    fn tasks() -> impl Strategy<Value = BTreeSet<TaskId>> {
        prop::collection::btree_set((0u32..3, 0u32..12).prop_map(|(kind, partition)| task(kind, partition)), 0..30)
    }

    fn spread(counts: impl Iterator<Item = usize> + Clone) -> usize {
        counts.clone().max().unwrap_or(0) - counts.min().unwrap_or(0)
    }

    proptest! {
        #[test]
        fn every_task_has_a_thread_and_every_kind_is_balanced(
            (tasks, before_tasks) in (tasks(), tasks()), threads in 1usize..6, before_threads in 1usize..6,
        ) {
            let before = share(&before_tasks, before_threads, &BTreeMap::new());
            let shared = share(&tasks, threads, &before);
            prop_assert_eq!(shared.keys().copied().collect::<BTreeSet<_>>(), tasks);
            let count = |of: &dyn Fn(&TaskId) -> bool| -> Vec<usize> {
                (0..threads).map(|thread| shared.iter().filter(|(id, at)| **at == thread && of(id)).count()).collect()
            };
            for kind in 0..3 {
                prop_assert!(spread(count(&|id| id.subtopology == kind).into_iter()) <= 1);
            }
            prop_assert!(spread(count(&|_| true).into_iter()) <= 1);
            prop_assert_eq!(share(&shared.keys().copied().collect(), threads, &shared), shared, "what is balanced stays");
        }
    }

    #[test]
    fn what_comes_back_takes_as_little_as_balance_asks_for() {
        let all: BTreeSet<_> = (0..4).flat_map(|partition| [task(0, partition), task(1, partition)]).collect();
        let before = share(&all, 2, &BTreeMap::new());
        let fewer: BTreeSet<_> = all.iter().copied().filter(|id| *id != task(0, 0)).collect();
        let after = share(&fewer, 2, &before);
        let moved = fewer.iter().filter(|id| before[id] != after[id]).count();
        assert!(moved <= 1, "{before:?} to {after:?}");
    }
}
