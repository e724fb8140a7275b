//! `clickmill load`: clicks from files.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;

use crate::client::{ClicksAnswer, Client, Patience};
use crate::config::{format_size, parse_size};
use crate::load::{self, Block, BlockError, Blocks, Fingerprint, LoadError};

use super::error::CommandError;
use super::generate::duration;
use super::progress::{self, Waiting};
use super::server::ServerArgs;
use super::table::printable;

/// Blocks cut and decompressed while the one before is on its way.
const BLOCKS_AHEAD: usize = 2;

/// Rejected clicks that the summary shows.
const REASONS_SHOWN: usize = 10;

/// Load files of clicks, one JSON object a line; gzip and zstd are recognised.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clickmill load clicks.ndjson
  clickmill load 2026-01-*.ndjson.gz --url http://clicks.example:8080

A load that was interrupted is run again: what the service has already is not added twice. It knows
a block by the file's contents, the block's number and the block size, so keep the block size; it
remembers for at least 24 hours.")]
pub(super) struct LoadArgs {
    /// The files
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// How many bytes of lines go out together
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "1MiB")]
    block_size: usize,
    /// How long to wait for a service that is away or cannot keep up
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "5m")]
    retry_for: Duration,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) fn run(args: &LoadArgs) -> Result<(), CommandError> {
    let client = args.server.client()?;
    args.files.iter().try_for_each(|path| check(path))?;
    for path in &args.files {
        let mut load = Load::of(path, args, &client)?;
        let outcome = load.send_all();
        load.bar.finish_and_clear();
        outcome?;
        load.summary.print(path)?;
    }
    Ok(())
}

/// Refuses what cannot be loaded, before anything is. A load reads a file twice, which a pipe does not let it.
fn check(path: &Path) -> Result<(), CommandError> {
    let name = path.display();
    let unreadable = |error: io::Error| CommandError::Usage(format!("cannot read {name}: {error}"));
    let found = path.metadata().map_err(unreadable)?;
    if found.is_dir() {
        return Err(CommandError::Usage(format!("{name} is a directory: name the files in it")));
    }
    if !found.is_file() {
        let reason = "is not a regular file, and a load reads a file twice: write what comes through a pipe to a file first";
        return Err(CommandError::Usage(format!("{name} {reason}")));
    }
    File::open(path).map(drop).map_err(unreadable)
}

/// One file on its way.
struct Load<'a> {
    path: &'a Path,
    client: &'a Client,
    patience: Patience,
    /// What there was to load when it began.
    length: u64,
    fingerprint: Fingerprint,
    block_size: usize,
    bar: ProgressBar,
    summary: Summary,
}

impl<'a> Load<'a> {
    fn of(path: &'a Path, args: &LoadArgs, client: &'a Client) -> Result<Self, CommandError> {
        let unreadable = |source| LoadError::Read { path: path.to_owned(), source };
        let length = path.metadata().map_err(unreadable)?.len();
        let bar = progress::bytes(length);
        bar.set_prefix(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
        bar.set_message("reading for the fingerprint");
        let fingerprint = load::fingerprint(path, length).map_err(unreadable)?;
        bar.set_message("");
        let (patience, block_size) = (Patience(args.retry_for), args.block_size);
        Ok(Self { path, client, patience, length, fingerprint, block_size, bar, summary: Summary::default() })
    }

    /// Sends block after block, in order, while the next ones are being read.
    fn send_all(&mut self) -> Result<(), CommandError> {
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
                self.send(&block.map_err(|error| LoadError::of_blocks(self.path, error))?)?;
            }
            Ok::<_, CommandError>(())
        })?;
        match self.path.metadata().map_err(unreadable)?.len() == self.length {
            true => Ok(()),
            false => Err(LoadError::Changed { path: self.path.to_owned(), length: self.length }.into()),
        }
    }

    fn send(&mut self, block: &Block) -> Result<(), CommandError> {
        let key = self.fingerprint.block_key(block.number, self.block_size);
        let mut waiting = Waiting::default();
        let mut wait = |error: &_| waiting.on(&self.bar, error);
        let answer = self.client.post_clicks_patiently(&block.bytes, &key, self.patience, &mut wait)?;
        waiting.end(&self.bar);
        self.summary.add(block, &answer);
        Ok(())
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

/// What became of a file's clicks.
#[derive(Default)]
struct Summary {
    accepted: u64,
    already_there: u64,
    rejected: u64,
    reasons: Vec<(u64, String)>,
}

impl Summary {
    fn add(&mut self, block: &Block, answer: &ClicksAnswer) {
        self.accepted += answer.accepted;
        if answer.replayed {
            self.already_there += answer.accepted;
        }
        self.rejected += answer.rejected.len() as u64;
        for rejected in answer.rejected.iter().take(REASONS_SHOWN.saturating_sub(self.reasons.len())) {
            let line = block.line_numbers.get(rejected.index).copied().unwrap_or_default();
            self.reasons.push((line, rejected.reason.clone()));
        }
    }

    fn print(&self, path: &Path) -> io::Result<()> {
        let Self { accepted, already_there, rejected, reasons } = self;
        let mut out = io::stdout().lock();
        writeln!(
            out,
            "{}: {accepted} accepted ({already_there} of them were there already), {rejected} rejected",
            path.display()
        )?;
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

fn size(text: &str) -> Result<usize, String> {
    let bytes = parse_size(text).and_then(|bytes| usize::try_from(bytes).ok()).filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| format!("accepted is a number with B, KiB or MiB, such as {}", format_size(1 << 20)))
}
