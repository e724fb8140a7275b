//! The figures as Markdown, and their place in the documentation.

use std::fmt::{self, Write};
use std::path::Path;
use std::time::Duration;

use crate::contender::{Contender, Measured};
use crate::load::Load;

const BEGIN: &str = "<!-- side by side: begin -->";
const END: &str = "<!-- side by side: end -->";

/// Grows line by line.
#[derive(Debug, Default)]
pub(crate) struct Table {
    readings: String,
    rows: String,
}

impl Table {
    pub(crate) fn add_reading(&mut self, load: &Load, readings: &[Duration]) {
        let micros = median(readings.iter().map(|time| time.as_secs_f64() * 1e6 / load.clicks as f64));
        writeln!(self.readings, "| {} | {micros:.2} |", load.name).unwrap();
    }

    /// Adds a row for each of the two, and one with how they compare.
    pub(crate) fn add_pair(&mut self, load: &Load, interval: Duration, runs: &[Vec<Measured>; 2]) {
        let figures = runs.each_ref().map(|runs| FIGURES.map(|(figure, _)| median(runs.iter().map(figure))));
        for (contender, figures) in Contender::ALL.into_iter().zip(&figures) {
            let cells = figures.iter().zip(FIGURES).map(|(figure, (_, digits))| format!("{figure:.digits$}"));
            self.add_row(load, interval, contender.name(), cells);
        }
        let ratios = figures[1].iter().zip(&figures[0]).map(|(java, ours)| format!("{:.2}", java / ours));
        self.add_row(load, interval, "Kafka Streams / Clickmill", ratios);
    }

    fn add_row(&mut self, load: &Load, interval: Duration, who: &str, cells: impl Iterator<Item = String>) {
        let cells = cells.collect::<Vec<_>>().join(" | ");
        writeln!(self.rows, "| {} | {interval:?} | {who} | {cells} |", load.name).unwrap();
    }

    /// Puts the table between its marks in docs/performance.md.
    pub(crate) fn write_into_documentation(&self) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/performance.md");
        let page = std::fs::read_to_string(&path).unwrap();
        let (before, rest) = page.split_once(BEGIN).expect("the page has a place for the table");
        let (_, after) = rest.split_once(END).expect("the place has an end");
        std::fs::write(path, format!("{before}{BEGIN}\n{self}{END}{after}")).unwrap();
    }
}

/// A figure of a run, and how many digits behind the point it is given with.
type Figure = (fn(&Measured) -> f64, usize);

/// What is compared.
const FIGURES: [Figure; 6] = [
    (|run| run.clicks as f64 / run.passed.as_secs_f64(), 0),
    (|run| run.process.as_secs_f64() * 1e6 / run.clicks as f64, 2),
    (|run| run.broker.as_secs_f64() * 1e6 / run.clicks as f64, 2),
    (|run| run.peak_memory as f64 / f64::from(1 << 20), 0),
    (|run| run.repartition_bytes as f64 / run.clicks as f64, 1),
    (|run| run.changelog_bytes as f64 / run.clicks as f64, 1),
];

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<_> = figures.collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| clicks | commits every | | clicks/s | process, us of CPU a click | broker, us of CPU a click | peak memory, MiB | \
             repartition, bytes a click | changelog, bytes a click |"
        )?;
        writeln!(f, "|---|---|---|---:|---:|---:|---:|---:|---:|")?;
        writeln!(f, "{}", self.rows)?;
        writeln!(f, "| clicks | a plain rdkafka consumer that reads them, us of CPU a click |\n|---|---:|")?;
        write!(f, "{}", self.readings)
    }
}
