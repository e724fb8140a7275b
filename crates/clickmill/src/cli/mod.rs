//! The command line: one module for each subcommand.

mod ad;
mod completions;
mod config;
mod drain;
mod error;
mod generate;
mod load;
mod progress;
mod reset;
mod serve;
mod server;
mod status;
mod table;
mod top;
mod topics;
mod watch;

use std::ffi::OsString;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use error::CommandError;

/// Wrong usage or configuration: nothing was started, or the service says that it was asked in a wrong way.
const EXIT_USAGE: u8 = 2;

/// Counts ad clicks as they happen, exactly once, and answers over HTTP how many there were.
#[derive(Debug, Parser)]
#[command(
    name = "clickmill",
    version,
    max_term_width = 120,
    after_help = "\
Examples:
  clickmill serve                                        start the service, keeping everything in ./data
  clickmill generate --rate 1000                         send it a thousand clicks a second
  clickmill top                                          the ten most clicked ads of the last hour
  clickmill ad ad-7 --from -15m                          the clicks of one ad in the last 15 minutes
  clickmill load clicks.ndjson.gz                        load a file of clicks"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::ServeArgs),
    Generate(generate::GenerateArgs),
    Load(load::LoadArgs),
    Top(top::TopArgs),
    Ad(ad::AdArgs),
    Status(status::StatusArgs),
    Topics(topics::TopicsArgs),
    Reset(reset::ResetArgs),
    Drain(drain::DrainArgs),
    Config(config::ConfigArgs),
    Completions(completions::CompletionsArgs),
}

/// Runs the command that the arguments name, the first of which is the program, and says how it ended: 0 done, 2 wrong usage
/// or configuration (nothing was done), 1 anything else, with the reason on standard error in one line.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough.
        Err(CommandError::Output(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.to_string());
            if error.is_usage() { ExitCode::from(EXIT_USAGE) } else { ExitCode::FAILURE }
        }
    }
}

fn run(command: Command) -> Result<(), CommandError> {
    match command {
        Command::Serve(args) => serve::run(args),
        Command::Generate(args) => generate::run(args),
        Command::Load(args) => load::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Ad(args) => ad::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Topics(args) => topics::run(args),
        Command::Reset(args) => reset::run(args),
        Command::Drain(args) => drain::run(args),
        Command::Config(args) => config::run(args),
        Command::Completions(args) => completions::run(&args),
    }
}

/// Shows help where it was asked for, else the reason of a usage error in one line.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        return if error.print().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        complain("no command given; see --help");
        return ExitCode::from(EXIT_USAGE);
    }
    let text = error.to_string();
    let end = ["\n\nUsage:", "\n\nFor more information"].iter().filter_map(|rest| text.find(rest)).min();
    let reason = text[..end.unwrap_or(text.len())].trim_start_matches("error: ");
    let reason: Vec<_> = reason.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    complain(&format!("{}; see --help", reason.join(" ")));
    ExitCode::from(EXIT_USAGE)
}

fn complain(reason: &str) {
    let one_line = reason.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    // Nobody is left to tell where standard error is closed.
    let _ = writeln!(io::stderr(), "clickmill: {one_line}");
}

#[cfg(test)]
mod tests;
