//! Tables for people.

use std::io::{self, IsTerminal};

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};

/// An empty table under these headings: with lines on a terminal, else plain columns.
pub(super) fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    let terminal = io::stdout().is_terminal();
    table.load_style(if terminal { presets::UTF8_FULL_CONDENSED } else { presets::NOTHING });
    // Some terminals say that they have no columns at all.
    if terminal && table.width().is_some_and(|columns| columns > 0) {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table.set_header(headings.iter().map(Cell::new));
    table
}

/// A number, flush right; nothing where it is not known.
pub(super) fn number(number: impl Into<Option<u64>>) -> Cell {
    let number = number.into().map_or_else(String::new, |number| number.to_string());
    Cell::new(number).set_alignment(CellAlignment::Right)
}

/// Text that may come from anywhere: control characters, which could steer a terminal, are shown escaped.
pub(super) fn text(text: &str) -> Cell {
    Cell::new(printable(text))
}

/// The text with its control characters escaped.
pub(super) fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
}
