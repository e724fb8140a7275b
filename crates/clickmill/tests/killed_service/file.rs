//! The file of clicks, and which of its lines are clicks: by the documented rules, with serde_json.

use std::borrow::Cow;
use std::fs::File;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::service::clickmill;

const MAX_AHEAD_MS: i64 = 10 * 60 * 1000;

/// Generated clicks in a file: line n has the click id `c-SEED-n`.
pub(crate) struct ClicksFile {
    path: PathBuf,
    clicks: u64,
    seed: u64,
}

/// A line that is a click.
pub(crate) struct Click<'a> {
    pub(crate) ad_id: Cow<'a, str>,
    pub(crate) timestamp: i64,
}

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    ad_id: Cow<'a, str>,
    timestamp: Value,
    #[serde(borrow)]
    click_id: Option<Cow<'a, str>>,
}

impl ClicksFile {
    pub(crate) fn generate(dir: &Path, clicks: u64, ads: u64, seed: u64) -> Self {
        let path = dir.join("clicks.ndjson");
        let (count, ads, seed_text) = (clicks.to_string(), ads.to_string(), seed.to_string());
        let of_clicks = ["--count", &count, "--ads", &ads, "--zipf", "1.0", "--seed", &seed_text];
        let of_time = ["--start", "2024-06-01T00:00:00Z", "--span", "2h", "--disorder", "30s"];
        let of_faults = ["--late", "0.01", "--bad", "0.01"];
        let mut command = clickmill(&[["generate"].as_slice(), &of_clicks, &of_time, &of_faults].concat());
        assert!(command.arg("--out").arg(&path).status().unwrap().success());
        Self { path, clicks, seed }
    }

    pub(crate) fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }

    pub(crate) fn clicks(&self) -> u64 {
        self.clicks
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.path.metadata().unwrap().len()
    }

    /// A fingerprint of each line that is a click, by the line's number from 1; 0 where the line is none.
    pub(crate) fn fingerprints(&self) -> Vec<u64> {
        let mut fingerprints = vec![0; self.clicks as usize + 1];
        let lines = BufReader::with_capacity(1 << 20, File::open(&self.path).unwrap()).split(b'\n');
        let mut number = 0;
        for line in lines {
            let line = line.unwrap();
            number += 1;
            // Event time lies far back: only what is beyond all reason is ahead of any arrival.
            if click(&line, 1_900_000_000_000).is_some() {
                fingerprints[number] = fingerprint(&line);
            }
        }
        assert_eq!(number as u64, self.clicks);
        fingerprints
    }

    /// The number of the line that a record has come from.
    pub(crate) fn line_number(&self, value: &[u8]) -> usize {
        let fields: Fields<'_> = serde_json::from_slice(value).unwrap();
        let id = fields.click_id.unwrap();
        id.strip_prefix(&format!("c-{}-", self.seed)).unwrap().parse().unwrap()
    }
}

/// Never 0.
pub(crate) fn fingerprint(line: &[u8]) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(line) | 1
}

/// The click in a line or record, given when it arrived.
pub(crate) fn click(value: &[u8], arrived: i64) -> Option<Click<'_>> {
    let fields: Fields<'_> = serde_json::from_slice(value).ok()?;
    let timestamp = match &fields.timestamp {
        Value::Number(number) => number.as_i64()?,
        Value::String(text) => text.parse::<jiff::Timestamp>().ok()?.as_millisecond(),
        _ => return None,
    };
    let is_click = (1..=256).contains(&fields.ad_id.len()) && (0..=arrived + MAX_AHEAD_MS).contains(&timestamp);
    is_click.then_some(Click { ad_id: fields.ad_id, timestamp })
}
