//! The largest counts among many.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The largest counts offered so far: largest first, equal ones by key ascending.
#[derive(Debug)]
pub(crate) struct Best {
    limit: usize,
    heap: BinaryHeap<Reverse<Ranked>>,
}

/// Greater is better: a larger count, then a smaller key.
type Ranked = (i64, Reverse<Box<[u8]>>);

impl Best {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, heap: BinaryHeap::new() }
    }

    /// Takes a count in, unless it is zero or too small.
    pub(crate) fn offer(&mut self, count: i64, key: &[u8]) {
        if count == 0 || self.limit == 0 {
            return;
        }
        if self.heap.len() == self.limit {
            let is_worse =
                |Reverse((worst, Reverse(its_key))): &Reverse<Ranked>| (count, Reverse(key)) <= (*worst, Reverse(&**its_key));
            if self.heap.peek().is_some_and(is_worse) {
                return;
            }
            self.heap.pop();
        }
        self.heap.push(Reverse((count, Reverse(key.into()))));
    }

    /// The counts with their keys, best first.
    pub(crate) fn into_sorted(self) -> impl ExactSizeIterator<Item = (Box<[u8]>, i64)> {
        self.heap.into_sorted_vec().into_iter().map(|Reverse((count, Reverse(key)))| (key, count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_best_are_those_of_a_full_sort(counts in prop::collection::btree_map("[a-c]{0,3}", -1i64..5, 0..30), limit in 0usize..8) {
            let mut best = Best::new(limit);
            for (key, count) in &counts {
                best.offer(*count, key.as_bytes());
            }
            let mut sorted: Vec<_> = counts.into_iter().filter(|(_, count)| *count != 0).collect();
            sorted.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            let expected: Vec<_> = sorted.into_iter().take(limit).map(|(key, count)| (key.into_bytes().into(), count)).collect();
            prop_assert_eq!(best.into_sorted().collect::<Vec<_>>(), expected);
        }
    }
}
