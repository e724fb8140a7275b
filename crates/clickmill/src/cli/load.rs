//! `clickmill load`: clicks from files.

mod interrupt;
mod sending;
mod summary;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use crate::client::{Delivery, Patience};
use crate::config::{format_duration, format_size, parse_size};
use crate::load::LineSet;

use super::error::CommandError;
use super::generate::duration;
use super::server::ServerArgs;
use interrupt::Interrupt;
use sending::Load;
use summary::GoOn;

const DEFAULT_BLOCK_SIZE: &str = "1MiB";
const DEFAULT_RETRY_FOR: &str = "5m";

/// Load files of clicks, one JSON object a line; gzip and zstd are recognised.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clickmill load clicks.ndjson
  clickmill load 2026-01-*.ndjson.gz --url http://clicks.example:8080

A load that was interrupted is run again: what the service has already is not added twice. It knows
a block by the file's contents, the block's number and the block size, so keep the block size; it
remembers for at least 24 hours.

On Kafka the service keeps no such memory, and a load that is run again adds everything again. There
a load stops where an answer is lost, so that clicks may be stored or not: it names their lines and
prints the command to go on, with --lines to leave out what is stored already. Those lines are sent
again only with --may-repeat, and may then count twice; a load that has it from the start does not stop.
Ctrl-C stops it after the request under way, with the command to go on.")]
pub(super) struct LoadArgs {
    /// The files
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Only these lines of the file, such as 5,8-10,2001- (from 2001 to the end) [default: all]
    #[arg(long, value_name = "LINES")]
    lines: Option<LineSet>,
    /// Send clicks again that may be stored already, where the service keeps no idempotency keys: they may count twice
    #[arg(long)]
    may_repeat: bool,
    /// How many bytes of lines go out together
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = DEFAULT_BLOCK_SIZE)]
    block_size: usize,
    /// How long to wait for a service that is away or cannot keep up
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = DEFAULT_RETRY_FOR)]
    retry_for: Duration,
    #[command(flatten)]
    server: ServerArgs,
}

impl LoadArgs {
    /// The options that a command to go on with needs, each with a blank before it.
    fn options_given(&self, may_repeat: bool) -> String {
        let mut options = String::new();
        if may_repeat {
            options += " --may-repeat";
        }
        if Ok(self.block_size) != size(DEFAULT_BLOCK_SIZE) {
            options += &format!(" --block-size {}", format_size(self.block_size as u64));
        }
        if Ok(self.retry_for) != duration(DEFAULT_RETRY_FOR) {
            options += &format!(" --retry-for {}", format_duration(self.retry_for));
        }
        if let Some(url) = self.server.url_given() {
            options += &format!(" --url {url}");
        }
        options
    }
}

pub(super) fn run(args: &LoadArgs) -> Result<(), CommandError> {
    if args.lines.is_some() && args.files.len() > 1 {
        return Err(CommandError::Usage("--lines speaks of one file: name that one only".to_owned()));
    }
    let mut delivery = Delivery::new(args.server.client()?, Patience(args.retry_for));
    args.files.iter().try_for_each(|path| check(path))?;
    let interrupt = Interrupt::default();
    for (number, path) in args.files.iter().enumerate() {
        let mut load = Load::of(path, args, &mut delivery, &interrupt)?;
        let outcome = load.send_all();
        load.tell(&outcome, &GoOn { args, path, later: &args.files[number + 1..] })?;
        outcome?;
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

fn size(text: &str) -> Result<usize, String> {
    let bytes = parse_size(text).and_then(|bytes| usize::try_from(bytes).ok()).filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| format!("accepted is a number with B, KiB or MiB, such as {}", format_size(1 << 20)))
}
