//! Sending one file, under idempotency keys where the service keeps them.

use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::mpsc;

use indicatif::ProgressBar;

use crate::client::{ClicksAnswer, ClientError, Delivery, Outcome};
use crate::load::{self, Block, BlockError, Blocks, Fingerprint, LineSet, LoadError};

use super::interrupt::Interrupt;
use super::summary::{GoOn, Summary, in_words};
use super::{CommandError, LoadArgs};
use crate::cli::progress::{self, Waiting};

/// Blocks cut and decompressed while the one before is on its way.
const BLOCKS_AHEAD: usize = 2;

/// The most lines of a request without a key. So many may at most be stored or not where an answer is lost.
const MOST_LINES_WITHOUT_KEY: usize = 1_000;

/// One file on its way.
pub(super) struct Load<'a> {
    path: &'a Path,
    delivery: &'a mut Delivery,
    interrupt: &'a Interrupt,
    may_repeat: bool,
    /// What there was to load when it began.
    length: u64,
    fingerprint: Fingerprint,
    block_size: usize,
    bar: ProgressBar,
    summary: Summary,
    /// The lines of which it is not known that they are stored or rejected.
    left: LineSet,
    /// Where some of them were sent and may be stored: those that were not sent.
    unsent: Option<LineSet>,
}

impl<'a> Load<'a> {
    pub(super) fn of(
        path: &'a Path,
        args: &LoadArgs,
        delivery: &'a mut Delivery,
        interrupt: &'a Interrupt,
    ) -> Result<Self, CommandError> {
        let unreadable = |source| LoadError::Read { path: path.to_owned(), source };
        let length = path.metadata().map_err(unreadable)?.len();
        let bar = progress::bytes(length);
        bar.set_prefix(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
        bar.set_message("reading for the fingerprint");
        let fingerprint = load::fingerprint(path, length).map_err(unreadable)?;
        bar.set_message("");
        let &LoadArgs { block_size, may_repeat, .. } = args;
        let left = args.lines.clone().unwrap_or_else(LineSet::all);
        let summary = Summary::default();
        Ok(Self { path, delivery, interrupt, may_repeat, length, fingerprint, block_size, bar, summary, left, unsent: None })
    }

    /// Sends block after block, in order, while the next ones are being read.
    pub(super) fn send_all(&mut self) -> Result<(), CommandError> {
        let unreadable = |source| LoadError::Read { path: self.path.to_owned(), source };
        let file = File::open(self.path).map_err(unreadable)?;
        // What has been added since is not what the fingerprint stands for.
        let lines = load::open(self.bar.wrap_read(file.take(self.length))).map_err(unreadable)?;
        let blocks = Blocks::new(lines, self.block_size);
        let (sender, receiver) = mpsc::sync_channel(BLOCKS_AHEAD);
        std::thread::scope(|scope| {
            scope.spawn(move || read_ahead(blocks, &sender));
            // Owned here, so that an error drops it and the reader ends.
            let receiver = receiver;
            for block in &receiver {
                self.send(block.map_err(|error| LoadError::of_blocks(self.path, error))?)?;
            }
            Ok::<_, CommandError>(())
        })?;
        match self.path.metadata().map_err(unreadable)?.len() == self.length {
            true => Ok(()),
            false => Err(LoadError::Changed { path: self.path.to_owned(), length: self.length }.into()),
        }
    }

    fn send(&mut self, block: Block) -> Result<(), CommandError> {
        let lines_read = block.line_numbers.len();
        let block = block.only(&self.left);
        if block.line_numbers.is_empty() {
            return Ok(());
        }
        let is_whole = block.line_numbers.len() == lines_read;
        if self.delivery.is_without_keys() || !self.send_under_key(&block, is_whole)? {
            for part in block.split(MOST_LINES_WITHOUT_KEY) {
                self.send_without_key(&part)?;
            }
        }
        Ok(())
    }

    /// Sends a block under its key. False where the service keeps no keys.
    fn send_under_key(&mut self, block: &Block, is_whole: bool) -> Result<bool, CommandError> {
        let key = match is_whole {
            true => self.fingerprint.block_key(block.number, self.block_size),
            false => self.fingerprint.part_key(block.number, self.block_size, &block.bytes),
        };
        let mut waiting = Waiting::default();
        let mut wait = |error: &ClientError| {
            waiting.on(&self.bar, error);
            ControlFlow::Continue(())
        };
        let answer = self.delivery.send_under(&key, &block.bytes, &mut wait)?;
        waiting.end(&self.bar);
        let Some(answer) = answer else {
            self.interrupt.listen()?;
            self.bar.suspend(|| {
                eprintln!("clickmill: the service keeps no idempotency keys: a load that is run again adds everything again");
            });
            return Ok(false);
        };
        self.summary.add(block, &answer);
        self.is_done_with(block);
        Ok(true)
    }

    /// Sends lines without a key. Those that may be stored are sent again only where that is allowed.
    fn send_without_key(&mut self, part: &Block) -> Result<(), CommandError> {
        if self.interrupt.was_pressed() {
            return Err(LoadError::BrokenOff { path: self.path.to_owned() }.into());
        }
        let (mut rest, mut attempts, mut waiting) = (part.clone(), self.delivery.attempts(), Waiting::default());
        loop {
            let mut wait = |error: &ClientError| {
                waiting.on(&self.bar, error);
                if self.interrupt.was_pressed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            let error = match self.delivery.send_once(&rest.bytes, &mut wait) {
                Ok(Outcome::Known(answer)) => {
                    waiting.end(&self.bar);
                    self.summary.add(&rest, &answer);
                    self.is_done_with(part);
                    return Ok(());
                }
                Ok(Outcome::Unknown { told, error }) => {
                    if let Some(told) = told {
                        rest = self.settle(&rest, &told);
                    }
                    if rest.line_numbers.is_empty() {
                        self.is_done_with(part);
                        return Ok(());
                    }
                    self.unsent = part.line_numbers.last().map(|last| self.left.from_line(last + 1));
                    error
                }
                Err(error) => return Err(self.stopped(&rest, part, error)),
            };
            if !self.may_repeat || self.interrupt.was_pressed() || !attempts.may_go_on() {
                return Err(self.stopped(&rest, part, error));
            }
            waiting.say(&self.bar, &format!("sending {} again: {error}", in_words(&rest.line_numbers, part)));
            self.summary.repeat(rest.line_numbers.len());
            attempts.pause(error.retry_after());
        }
    }

    /// Takes note of the lines whose outcome is known, and gives the others.
    fn settle(&mut self, sent: &Block, told: &ClicksAnswer) -> Block {
        self.summary.add(sent, told);
        let unknown: Vec<_> = told.unknown().collect();
        let rest = sent.at(&unknown);
        let is_known = |line: &&u64| rest.line_numbers.binary_search(line).is_err();
        sent.line_numbers.iter().filter(is_known).for_each(|line| self.left.remove(*line));
        rest
    }

    fn is_done_with(&mut self, block: &Block) {
        if let Some(last) = block.line_numbers.last() {
            self.left = self.left.from_line(last + 1);
        }
        self.unsent = None;
    }

    /// The error of a load that stops at lines that may be stored, or certainly are not.
    fn stopped(&self, rest: &Block, part: &Block, error: ClientError) -> CommandError {
        if self.unsent.is_none() {
            return error.into();
        }
        let lines = in_words(&rest.line_numbers, part);
        LoadError::OutcomeUnknown { path: self.path.to_owned(), lines, reason: error.to_string() }.into()
    }

    /// Says what became of the clicks. A load that stopped and cannot be run again as it was is told how to go on.
    pub(super) fn tell(&self, outcome: &Result<(), CommandError>, go_on: &GoOn<'_>) -> io::Result<()> {
        self.bar.finish_and_clear();
        let has_keys = !self.delivery.is_without_keys();
        match outcome {
            Ok(()) => self.summary.print(self.path, has_keys),
            Err(_) if has_keys => Ok(()),
            Err(error) => {
                self.summary.print(self.path, has_keys)?;
                match &self.unsent {
                    Some(unsent) => go_on.print_choice(&self.left, unsent),
                    None if matches!(error, CommandError::Load(LoadError::Changed { .. })) => Ok(()),
                    None => go_on.print(&self.left),
                }
            }
        }
    }
}

fn read_ahead<R: io::BufRead>(blocks: Blocks<R>, sender: &mpsc::SyncSender<Result<Block, BlockError>>) {
    for block in blocks {
        let failed = block.is_err();
        if sender.send(block).is_err() || failed {
            return;
        }
    }
}
