//! Progress bars, on a terminal only.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::client::ClientError;

use super::table::printable;

const REDRAW: Duration = Duration::from_millis(200);

/// A bar for clicks; without a total it counts.
pub(super) fn clicks(total: Option<u64>) -> ProgressBar {
    let template = match total {
        Some(_) => "{bar:32} {human_pos} of {human_len} clicks, {per_sec}, {eta} to go {wide_msg}",
        None => "{spinner} {human_pos} clicks, {per_sec}, {elapsed} {wide_msg}",
    };
    styled(total.map_or_else(ProgressBar::no_length, ProgressBar::new), template)
}

/// A bar for the bytes of a file.
pub(super) fn bytes(total: u64) -> ProgressBar {
    styled(ProgressBar::new(total), "{prefix} {bar:32} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} to go {wide_msg}")
}

/// Whoever looks at the bar, or reads standard error, learns why nothing moves.
#[derive(Default)]
pub(super) struct Waiting {
    told: bool,
}

impl Waiting {
    pub(super) fn on(&mut self, bar: &ProgressBar, error: &ClientError) {
        self.say(bar, &format!("waiting: {error}"));
    }

    pub(super) fn say(&mut self, bar: &ProgressBar, message: &str) {
        let message = printable(message);
        if !bar.is_hidden() {
            bar.set_message(message);
        } else if !self.told {
            eprintln!("clickmill: {message}");
        }
        self.told = true;
    }

    pub(super) fn end(self, bar: &ProgressBar) {
        if self.told {
            bar.set_message("");
        }
    }
}

fn styled(bar: ProgressBar, template: &str) -> ProgressBar {
    bar.set_style(ProgressStyle::with_template(template).expect("the templates above are well formed"));
    if !bar.is_hidden() {
        bar.enable_steady_tick(REDRAW);
    }
    bar
}
