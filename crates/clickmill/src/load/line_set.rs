//! Which lines of a file are to be sent.

use std::fmt;
use std::str::FromStr;

/// Numbers of lines, from 1: `5,8-10,2001-` are the lines 5 and 8 to 10, and all from 2001 on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineSet {
    /// First and last, ascending, with a gap between any two. The last line of a file is not known: its range ends at `u64::MAX`.
    ranges: Vec<(u64, u64)>,
}

impl LineSet {
    /// Every line.
    pub fn all() -> Self {
        Self { ranges: vec![(1, u64::MAX)] }
    }

    /// Whether the line is one of them.
    pub fn contains(&self, line: u64) -> bool {
        let next = self.ranges.partition_point(|(first, _)| *first <= line);
        next.checked_sub(1).is_some_and(|at| line <= self.ranges[at].1)
    }

    /// Those of the lines that are not before that one.
    pub fn from_line(&self, line: u64) -> Self {
        let left = self.ranges.iter().filter(|(_, last)| *last >= line);
        Self { ranges: left.map(|(first, last)| (line.max(*first), *last)).collect() }
    }

    /// Takes a line out.
    pub fn remove(&mut self, line: u64) {
        let Some(at) = self.ranges.iter().position(|(first, last)| (*first..=*last).contains(&line)) else { return };
        let (first, last) = self.ranges[at];
        let before = (first < line).then(|| (first, line - 1));
        let after = (line < last).then(|| (line + 1, last));
        self.ranges.splice(at..=at, before.into_iter().chain(after));
    }
}

impl fmt::Display for LineSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (first, last)) in self.ranges.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            match *last {
                u64::MAX => write!(f, "{comma}{first}-")?,
                last if last == *first => write!(f, "{comma}{first}")?,
                last => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

impl FromStr for LineSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "accepted are lines and ranges of lines from 1, ascending, such as 5,8-10,2001-".to_owned();
        let line = |text: &str| text.parse().ok().filter(|line| (1..u64::MAX).contains(line)).ok_or_else(wrong);
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for part in text.split(',') {
            let (first, last) = match part.split_once('-') {
                None => (line(part)?, line(part)?),
                Some((first, "")) => (line(first)?, u64::MAX),
                Some((first, last)) => (line(first)?, line(last)?),
            };
            match ranges.last_mut() {
                Some((_, before)) if first <= *before => return Err(wrong()),
                Some((_, before)) if first == *before + 1 && first <= last => *before = last,
                _ if first > last => return Err(wrong()),
                _ => ranges.push((first, last)),
            }
        }
        Ok(Self { ranges })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(text: &str) -> LineSet {
        text.parse().expect(text)
    }

    #[test]
    fn a_set_is_written_as_it_is_read() {
        for text in ["1-", "7", "5,8-10,2001-", "1-3,5"] {
            assert_eq!(set(text).to_string(), text);
        }
        assert_eq!(set("1-3,4,5-").to_string(), "1-", "what adjoins is one range");
        for text in ["", "0", "3-1", "3,2", "1-5,5", "1-,7", "x", "-3", "1--2", "1, 2", "18446744073709551615"] {
            assert!(text.parse::<LineSet>().is_err(), "{text}");
        }
    }

    #[test]
    fn lines_are_taken_out() {
        let mut lines = LineSet::all();
        for line in [1, 3, 5, 4] {
            lines.remove(line);
        }
        assert_eq!(lines.to_string(), "2,6-");
        lines.remove(3);
        assert_eq!(lines.from_line(2).to_string(), "2,6-");
        assert_eq!(lines.from_line(3).to_string(), "6-");
        assert_eq!(lines.from_line(9).to_string(), "9-");
    }

    proptest! {
        #[test]
        fn a_set_has_the_lines_that_were_not_taken_out(out in prop::collection::btree_set(1..50u64, 0..40), from in 1..50u64) {
            let mut lines = LineSet::all();
            out.iter().for_each(|line| lines.remove(*line));
            let lines = lines.from_line(from);
            for line in 1..60 {
                prop_assert_eq!(lines.contains(line), line >= from && !out.contains(&line));
            }
            prop_assert_eq!(set(&lines.to_string()), lines);
        }
    }
}
