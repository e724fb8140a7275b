//! Where generated clicks go.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use indicatif::ProgressBar;

use crate::client::{Client, Patience};

use super::{CommandError, Waiting};

const BUFFER_BYTES: usize = 1 << 20;
const ZSTD_LEVEL: i32 = 3;

pub(super) enum Sink {
    Service(Service),
    Plain(BufWriter<Box<dyn Write>>),
    Gzip(GzEncoder<File>),
    Zstd(zstd::Encoder<'static, File>),
}

/// A service that gets each batch once.
pub(super) struct Service {
    client: Client,
    patience: Patience,
    /// Tells this run from all others, so that its keys are its own.
    run: u128,
    batches: u64,
    accepted: u64,
    rejected: u64,
}

impl Sink {
    pub(super) fn service(client: Client, patience: Patience) -> Self {
        Sink::Service(Service { client, patience, run: rand::random(), batches: 0, accepted: 0, rejected: 0 })
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
            Sink::Service(Service { accepted, rejected, .. }) => {
                return Ok(format!("; the service accepted {accepted} and rejected {rejected}"));
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
        let key = format!("generate-{:032x}-{}", self.run, self.batches);
        let mut waiting = Waiting::default();
        let answer = self.client.post_clicks_patiently(lines, &key, self.patience, &mut |error| waiting.on(bar, error))?;
        waiting.end(bar);
        self.batches += 1;
        self.accepted += answer.accepted;
        self.rejected += answer.rejected.len() as u64;
        Ok(())
    }
}
