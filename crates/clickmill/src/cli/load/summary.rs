//! What became of the clicks of a file, and how to go on where a load has stopped.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::client::ClicksAnswer;
use crate::load::{Block, LineSet};

use super::LoadArgs;
use crate::cli::table::printable;

/// Rejected clicks that the summary shows.
const REASONS_SHOWN: usize = 10;

/// What became of a file's clicks.
#[derive(Default)]
pub(super) struct Summary {
    accepted: u64,
    already_there: u64,
    rejected: u64,
    /// Clicks that were sent once more though they may have been stored.
    repeated: u64,
    reasons: Vec<(u64, String)>,
}

impl Summary {
    /// Adds what is known of a block's clicks.
    pub(super) fn add(&mut self, block: &Block, answer: &ClicksAnswer) {
        self.accepted += answer.accepted;
        if answer.replayed {
            self.already_there += answer.accepted;
        }
        for rejected in answer.rejected.iter().filter(|rejected| !rejected.is_unknown()) {
            self.rejected += 1;
            if self.reasons.len() < REASONS_SHOWN {
                let line = block.line_numbers.get(rejected.index).copied().unwrap_or_default();
                self.reasons.push((line, rejected.reason.clone()));
            }
        }
    }

    pub(super) fn repeat(&mut self, clicks: usize) {
        self.repeated += clicks as u64;
    }

    pub(super) fn print(&self, path: &Path, has_keys: bool) -> io::Result<()> {
        let Self { accepted, already_there, rejected, repeated, reasons } = self;
        let mut out = io::stdout().lock();
        let there = if has_keys { format!(" ({already_there} of them were there already)") } else { String::new() };
        let repeats = match repeated {
            0 => String::new(),
            clicks => format!("; {clicks} were sent again though they may have been stored, and may count twice"),
        };
        writeln!(out, "{}: {accepted} accepted{there}, {rejected} rejected{repeats}", path.display())?;
        for (line, reason) in reasons {
            writeln!(out, "  line {line}: {}", printable(reason))?;
        }
        let more = rejected - reasons.len() as u64;
        if more > 0 {
            writeln!(out, "  and {more} more")?;
        }
        Ok(())
    }
}

/// How to go on with a file, and with those after it.
pub(super) struct GoOn<'a> {
    pub(super) args: &'a LoadArgs,
    pub(super) path: &'a Path,
    pub(super) later: &'a [PathBuf],
}

impl GoOn<'_> {
    /// Where nothing is unknown: with the lines that were not sent.
    pub(super) fn print(&self, left: &LineSet) -> io::Result<()> {
        writeln!(io::stdout(), "  to go on: {}", self.command(left, self.args.may_repeat))
    }

    /// Where lines may be stored: with them and the lines that were not sent, or with the latter alone.
    pub(super) fn print_choice(&self, left: &LineSet, unsent: &LineSet) -> io::Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "  to go on and send them again (some may count twice): {}", self.command(left, true))?;
        writeln!(out, "  to go on without them (some may be missing): {}", self.command(unsent, self.args.may_repeat))
    }

    fn command(&self, lines: &LineSet, may_repeat: bool) -> String {
        let options = self.args.options_given(may_repeat);
        let first = format!("clickmill load {} --lines {lines}{options}", quoted(self.path));
        if self.later.is_empty() {
            return first;
        }
        let later: Vec<_> = self.later.iter().map(|path| quoted(path)).collect();
        format!("{first} && clickmill load {}{options}", later.join(" "))
    }
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "_-./+,:@%=".contains(c);
    match !text.is_empty() && !text.starts_with('-') && text.chars().all(is_plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// Some of the lines of a block, in words.
pub(super) fn in_words(lines: &[u64], block: &Block) -> String {
    match (lines, block.line_numbers.as_slice()) {
        ([line], _) => format!("line {line}"),
        ([first, .., last], all) if lines == all => format!("lines {first} to {last}"),
        ([first, .., last], _) => format!("{} of the lines {first} to {last}", lines.len()),
        ([], _) => "no line".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_quoted_where_a_shell_would_read_it_otherwise() {
        for (path, expected) in [("a/b-1.ndjson.gz", "a/b-1.ndjson.gz"), ("two words", "'two words'"), ("it's", r"'it'\''s'")] {
            assert_eq!(quoted(Path::new(path)), expected);
        }
    }

    #[test]
    fn lines_are_told_in_words() {
        let block = Block { number: 0, bytes: Vec::new(), line_numbers: vec![3, 5, 6] };
        assert_eq!(in_words(&[5], &block), "line 5");
        assert_eq!(in_words(&[3, 5, 6], &block), "lines 3 to 6");
        assert_eq!(in_words(&[3, 6], &block), "2 of the lines 3 to 6");
    }
}
