//! How much memory a buffer keeps that is filled and emptied with every commit.
//!
//! What commits usually need stays, so that nothing is allocated for the next one. What one needed that was larger than its neighbours
//! goes with it: a partition may have such a commit once a day, and the peaks of many partitions would add up beside the bound on
//! uncommitted work.

/// What every buffer may keep: the needs of a few thousand keys.
const LEAST: usize = 256 << 10;

/// How many times what it needs a buffer may hold: growth by doubling makes it more than two, and needs differ a little.
const SLACK: usize = 4;

/// What a buffer has kept when it was last emptied.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Kept {
    held: usize,
    needed: usize,
}

impl Kept {
    /// The buffer is emptied: `in_use` of the bytes that it holds were needed. Says whether it is to give its memory back, because at
    /// least one of the last two times needed much less.
    pub(crate) fn gives_back(&mut self, in_use: usize, held: usize) -> bool {
        let needed = in_use.min(std::mem::replace(&mut self.needed, in_use));
        let gives_back = held > LEAST.max(SLACK * needed);
        self.held = if gives_back { 0 } else { held };
        gives_back
    }

    /// What the buffer counts for in a bound that forces a commit: all that it holds but what it had kept, for no commit would set that
    /// free; and no less than what is in use. An empty one counts nothing.
    pub(crate) fn charge(&self, in_use: usize, held: usize) -> usize {
        in_use.max(held.saturating_sub(self.held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: usize = 10 << 20;

    #[test]
    fn what_two_in_a_row_needed_is_kept_and_a_peak_is_not() {
        let mut kept = Kept::default();
        assert!(!kept.gives_back(1_000, LEAST), "a little is always kept");
        assert!(kept.gives_back(LARGE, 2 * LARGE), "a peak");
        assert!(!kept.gives_back(LARGE, 2 * LARGE), "the usual by now");
        assert!(!kept.gives_back(LARGE * 3 / 4, 2 * LARGE), "a little less");
        assert!(kept.gives_back(0, 2 * LARGE), "nothing");
    }

    #[test]
    fn what_was_kept_counts_nothing_until_it_is_used() {
        let mut kept = Kept::default();
        assert_eq!(kept.charge(10, 100), 100);
        assert!(!kept.gives_back(10, 100));
        assert_eq!((kept.charge(0, 100), kept.charge(60, 100), kept.charge(60, 400)), (0, 60, 300));
    }
}
