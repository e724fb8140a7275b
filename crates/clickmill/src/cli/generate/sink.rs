//! Where generated clicks go.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use indicatif::ProgressBar;

use crate::client::{ClicksAnswer, Client, ClientError, Delivery, Outcome, Patience};

use super::{CommandError, Waiting};
use crate::cli::table::printable;

const BUFFER_BYTES: usize = 1 << 20;
const ZSTD_LEVEL: i32 = 3;

pub(super) enum Sink {
    Service(Service),
    Plain(BufWriter<Box<dyn Write>>),
    Gzip(GzEncoder<File>),
    Zstd(zstd::Encoder<'static, File>),
}

/// A service that gets each batch once. One that keeps no idempotency keys gets none twice, and may have some or none of a batch whose
/// answer was lost.
pub(super) struct Service {
    delivery: Delivery,
    /// Tells this run from all others, so that its keys are its own.
    run: u128,
    batches: u64,
    accepted: u64,
    rejected: u64,
    /// Clicks that may be stored or not.
    unknown: u64,
}

impl Sink {
    pub(super) fn service(client: Client, patience: Patience) -> Self {
        let delivery = Delivery::new(client, patience);
        Sink::Service(Service { delivery, run: rand::random(), batches: 0, accepted: 0, rejected: 0, unknown: 0 })
    }

    pub(super) fn stdout() -> Self {
        Sink::Plain(BufWriter::with_capacity(BUFFER_BYTES, Box::new(io::stdout())))
    }

    /// A new file, compressed by the end of its name.
    pub(super) fn file(path: &Path) -> io::Result<Self> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let file = File::create(path).map_err(named)?;
        Ok(match path.extension().and_then(|extension| extension.to_str()) {
            Some("gz") => Sink::Gzip(GzEncoder::new(file, Compression::fast())),
            Some("zst") => Sink::Zstd(zstd::Encoder::new(file, ZSTD_LEVEL)?),
            _ => Sink::Plain(BufWriter::with_capacity(BUFFER_BYTES, Box::new(file))),
        })
    }

    pub(super) fn send(&mut self, lines: &[u8], bar: &ProgressBar) -> Result<(), CommandError> {
        match self {
            Sink::Service(service) => return service.send(lines, bar),
            Sink::Plain(writer) => writer.write_all(lines)?,
            Sink::Gzip(writer) => writer.write_all(lines)?,
            Sink::Zstd(writer) => writer.write_all(lines)?,
        }
        Ok(())
    }

    /// Ends the output, and says what the service made of it.
    pub(super) fn finish(self) -> Result<String, CommandError> {
        match self {
            Sink::Service(Service { accepted, rejected, unknown, .. }) => {
                let unknown = if unknown > 0 { format!("; {unknown} may be stored or not") } else { String::new() };
                return Ok(format!("; the service accepted {accepted} and rejected {rejected}{unknown}"));
            }
            Sink::Plain(mut writer) => writer.flush()?,
            Sink::Gzip(writer) => drop(writer.finish()?),
            Sink::Zstd(writer) => drop(writer.finish()?),
        }
        Ok(String::new())
    }
}

impl Service {
    fn send(&mut self, lines: &[u8], bar: &ProgressBar) -> Result<(), CommandError> {
        let mut waiting = Waiting::default();
        let mut wait = |error: &ClientError| {
            waiting.on(bar, error);
            ControlFlow::Continue(())
        };
        let key = format!("generate-{:032x}-{}", self.run, self.batches);
        let answer = match self.delivery.is_without_keys() {
            true => None,
            false => self.delivery.send_under(&key, lines, &mut wait)?,
        };
        let outcome = match answer {
            Some(answer) => Outcome::Known(answer),
            None => self.delivery.send_once(lines, &mut wait)?,
        };
        waiting.end(bar);
        self.batches += 1;
        match outcome {
            Outcome::Known(answer) => self.add(&answer),
            Outcome::Unknown { told, error } => {
                let before = self.unknown;
                match told {
                    Some(told) => self.add(&told),
                    None => self.unknown += lines.iter().filter(|byte| **byte == b'\n').count() as u64,
                }
                let (now, all) = (self.unknown - before, self.unknown);
                let text = format!("clickmill: {now} clicks may be stored or not ({all} so far) and are not sent again: {error}");
                bar.suspend(|| eprintln!("{}", printable(&text)));
            }
        }
        Ok(())
    }

    fn add(&mut self, answer: &ClicksAnswer) {
        let unknown = answer.unknown().count() as u64;
        self.accepted += answer.accepted;
        self.rejected += answer.rejected.len() as u64 - unknown;
        self.unknown += unknown;
    }
}
