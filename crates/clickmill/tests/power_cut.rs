//! What is there after a power cut directly behind the first answer. A test cannot cut the power: it looks what the real program has synced
//! by then.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod service;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use service::clickmill;

/// The directories that a start has synced before it takes clicks in, in order. Behind those of the log come those of the state, which can be
/// made again from the log, as far as threads have got by then.
fn synced_by_a_start(data_dir: &Path) -> Vec<PathBuf> {
    let mut command = clickmill(&["serve", "--log-format", "json", "--log-level", "info,millstream_rocksdb=debug"]);
    command.args(["--listen", "127.0.0.1:0", "--data-dir"]).arg(data_dir);
    let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut synced = Vec::new();
    for line in BufReader::new(process.stderr.take().unwrap()).lines() {
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        match line["message"].as_str() {
            Some("a directory is synced") => synced.push(line["dir"].as_str().unwrap().into()),
            Some("Clickmill is up") => break,
            _ => {}
        }
    }
    process.kill().unwrap();
    process.wait().unwrap();
    synced
}

#[test]
fn every_directory_that_got_a_name_is_synced_before_clicks_are_taken_in() {
    let root = tempfile::tempdir().unwrap();
    let dirs = |names: &[&str]| names.iter().map(|name| root.path().join(name)).collect::<Vec<_>>();
    let data_dir = root.path().join("a/b/data");
    let first = synced_by_a_start(&data_dir);
    let outside = root.path().parent().unwrap();
    // a, a/b and the data directory; in that the log, and then the instance's id.
    let mut expected = vec![outside.to_owned()];
    expected.extend(dirs(&["", "a", "a/b", "a/b", "a/b/data", "a/b/data"]));
    assert_eq!(first[..expected.len()], expected);
    assert!(data_dir.join("log").is_dir() && data_dir.join("instance-id").is_file());
    // The one before was killed, perhaps before it had synced what it made last.
    assert_eq!(synced_by_a_start(&data_dir)[..3], dirs(&["a/b", "a/b/data", "a/b/data"]));
}
