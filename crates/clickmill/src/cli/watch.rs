//! A picture that is drawn again and again.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use crate::client::ClientError;

use super::error::CommandError;
use super::table::printable;

const REFRESH: Duration = Duration::from_secs(1);

/// Clears from the cursor to the end of the screen.
const CLEAR_BELOW: &str = "\x1b[J";

/// Draws every second over the picture before, until the program is stopped.
pub(super) fn redraw(picture: impl Fn() -> Result<String, CommandError>) -> Result<(), CommandError> {
    let terminal = io::stdout().is_terminal();
    let mut lines_drawn = 0;
    loop {
        let shown = picture()?;
        let mut out = io::stdout().lock();
        if terminal && lines_drawn > 0 {
            write!(out, "\x1b[{lines_drawn}F{CLEAR_BELOW}")?;
        }
        writeln!(out, "{shown}")?;
        out.flush()?;
        drop(out);
        lines_drawn = shown.lines().count();
        pause();
    }
}

/// What stands in place of a picture while the service is away.
pub(super) fn waiting(error: &ClientError) -> String {
    format!("waiting: {}", printable(&error.to_string()))
}

#[allow(clippy::disallowed_methods, reason = "a picture for people, drawn once a second")]
fn pause() {
    std::thread::sleep(REFRESH);
}
