//! `clickmill completions`: completion scripts for shells.

use std::io::{self, Write};

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;
use super::error::CommandError;

/// Print a script that completes commands and flags in a shell.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clickmill completions bash > ~/.local/share/bash-completion/completions/clickmill
  clickmill completions fish > ~/.config/fish/completions/clickmill.fish")]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> Result<(), CommandError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "clickmill", &mut script);
    Ok(io::stdout().write_all(&script)?)
}
