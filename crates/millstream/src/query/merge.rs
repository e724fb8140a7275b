//! Answers of several instances made one. Keys are disjoint across partitions, so that the exact top keys of each merge exactly, and totals add.

use std::collections::BTreeMap;

use super::part::{PartialCounts, Parts, Question, Standing};
use super::{Completeness, StalePartition};
use crate::record::{Partition, Timestamp};

/// The counts of several answers, no partition of which is in two.
pub(super) fn counts(question: &Question, answers: Vec<Parts>) -> PartialCounts {
    let all = answers.into_iter().map(|answer| answer.counts);
    let merge = |first, second| merge_two(question, first, second);
    all.reduce(merge).unwrap_or_else(|| PartialCounts::none(question))
}

fn merge_two(question: &Question, first: PartialCounts, second: PartialCounts) -> PartialCounts {
    match (first, second) {
        (PartialCounts::Windows(first), PartialCounts::Windows(second)) => {
            let mut sums: BTreeMap<Timestamp, i64> = first.into_iter().collect();
            second.into_iter().for_each(|(start, count)| *sums.entry(start).or_default() += count);
            PartialCounts::Windows(sums.into_iter().collect())
        }
        (PartialCounts::Keys(mut best), PartialCounts::Keys(more)) => {
            best.extend(more);
            best.sort_unstable_by(|a, b| b.count.cmp(&a.count).then_with(|| a.key.cmp(&b.key)));
            if let Question::Top { limit, .. } = question {
                best.truncate(*limit);
            }
            PartialCounts::Keys(best)
        }
        // The router takes no answer in that is none to its question.
        (first, _) => first,
    }
}

/// What these answers to a question for some partitions rest on, but for what only the broker knows.
pub(super) fn completeness(asked: &[Partition], answers: &[Parts]) -> Completeness {
    let mut of_partition = BTreeMap::new();
    for part in answers.iter().flat_map(|answer| &answer.parts) {
        let before = of_partition.insert(part.partition, part);
        debug_assert!(before.is_none(), "partition {} is in two answers", part.partition);
    }
    let mut completeness = Completeness { partitions: asked.len() as u32, ..Completeness::default() };
    let mut closed_through = i64::MAX;
    for partition in asked {
        let Some(part) = of_partition.get(partition) else {
            completeness.missing.push(*partition);
            continue;
        };
        if let Standing::Stale { lag } = part.standing {
            completeness.stale.push(StalePartition { partition: *partition, lag });
        }
        completeness.positions.extend(part.position.map(|position| (*partition, position)));
        closed_through = closed_through.min(part.closed_through);
        completeness.answered += 1;
    }
    let all_answered = completeness.missing.is_empty();
    completeness.final_until = (all_answered && (1..i64::MAX).contains(&closed_through)).then_some(Timestamp(closed_through));
    completeness
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{KeyCount, Period};
    use super::*;
    use crate::query::part::Part;
    use crate::record::Offset;

    const EVER: Period = Period { from: Timestamp(0), to: Timestamp(i64::MAX) };

    fn part(partition: u32, standing: Standing, closed_through: i64) -> Part {
        Part { partition: Partition(partition), standing, position: Some(Offset(7)), closed_through }
    }

    fn answer(parts: Vec<Part>, counts: PartialCounts) -> Parts {
        Parts { generation: 1, parts, counts }
    }

    #[test]
    fn a_window_is_final_where_all_partitions_have_closed_it() {
        let none = || PartialCounts::Windows(Vec::new());
        let both = [
            answer(vec![part(0, Standing::Active, 300)], none()),
            answer(vec![part(1, Standing::Active, 200), part(2, Standing::Active, 400)], none()),
        ];
        let asked = [0, 1, 2].map(Partition);
        let whole = completeness(&asked, &both);
        assert!(whole.is_complete());
        assert_eq!((whole.answered, whole.final_until), (3, Some(Timestamp(200))));
        let in_part = completeness(&asked, &both[1..]);
        assert_eq!((in_part.answered, in_part.final_until), (2, None));
        assert_eq!(in_part.missing, [Partition(0)]);
        let stale = completeness(&asked[..1], &[answer(vec![part(0, Standing::Stale { lag: Some(3) }, 0)], none())]);
        assert_eq!(stale.stale, [StalePartition { partition: Partition(0), lag: Some(3) }]);
        assert!(!stale.is_complete() && stale.final_until.is_none());
    }

    proptest! {
        #[test]
        fn the_best_of_each_make_the_best_of_all(
            counts in prop::collection::btree_map("[a-e][a-e]?", (1i64..6, 0usize..4), 0..20),
            limit in 1usize..8,
        ) {
            let best = |of: &dyn Fn(usize) -> bool| {
                let mut keys: Vec<_> = counts
                    .iter()
                    .filter(|(_, (_, instance))| of(*instance))
                    .map(|(key, (count, _))| KeyCount { key: key.clone().into_bytes(), count: *count })
                    .collect();
                keys.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.key.cmp(&b.key)));
                keys.truncate(limit);
                PartialCounts::Keys(keys)
            };
            let question = Question::Top { period: EVER, limit };
            let answers = (0..4).map(|instance| answer(Vec::new(), best(&|of| of == instance))).collect();
            prop_assert_eq!(super::counts(&question, answers), best(&|_| true));
        }

        #[test]
        fn totals_add(windows in prop::collection::vec(prop::collection::btree_map(0i64..6, 1i64..9, 0..6), 1..5)) {
            let mut sums = BTreeMap::new();
            windows.iter().flatten().for_each(|(start, count)| *sums.entry(Timestamp(*start)).or_insert(0) += count);
            let of = |counts: &BTreeMap<i64, i64>| counts.iter().map(|(start, count)| (Timestamp(*start), *count)).collect();
            let answers = windows.iter().map(|counts| answer(Vec::new(), PartialCounts::Windows(of(counts)))).collect();
            let merged = super::counts(&Question::Totals { period: EVER }, answers);
            prop_assert_eq!(merged, PartialCounts::Windows(sums.into_iter().collect()));
        }
    }
}
