//! Progress bars, on a terminal only.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

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

fn styled(bar: ProgressBar, template: &str) -> ProgressBar {
    bar.set_style(ProgressStyle::with_template(template).expect("the templates above are well formed"));
    if !bar.is_hidden() {
        bar.enable_steady_tick(REDRAW);
    }
    bar
}
