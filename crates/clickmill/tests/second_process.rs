//! What is taken already is refused: a data directory in use, a port in use, a log of another version.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod service;

use std::path::Path;
use std::process::Output;
use std::sync::Arc;

use millstream::broker::local::{LogChange, LogStorage, LogWrite};
use millstream::clock::ManualClock;
use millstream::record::Timestamp;
use millstream_rocksdb::broker::RocksLog;
use millstream_rocksdb::memory::MemoryBudget;
use service::{Service, clickmill};

fn serve(listen: &str, data_dir: &Path) -> Output {
    let arguments = ["serve", "--log-level", "warn", "--listen", listen, "--data-dir", data_dir.to_str().unwrap()];
    clickmill(&arguments).output().unwrap()
}

/// The one line that says why nothing was started.
fn reason(output: &Output) -> &str {
    assert_eq!(output.status.code(), Some(1));
    let said = std::str::from_utf8(&output.stderr).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    said.strip_prefix("clickmill: ").unwrap()
}

#[test]
fn a_second_process_on_the_same_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = Service::new(dir.path(), "");
    first.start_and_wait();
    for _ in 0..2 {
        let second = serve("127.0.0.1:0", &first.data_dir());
        let reason = reason(&second);
        assert!(reason.contains(first.data_dir().to_str().unwrap()), "{reason}");
        assert!(reason.contains("another process has this directory open"), "{reason}");
    }
    assert_eq!(first.post("{\"ad_id\": \"ad-1\"}\n", None).unwrap().status, 202);
    first.wait_until_counted();
    assert_eq!(first.query("/v1/ads/ad-1/clicks")["clicks"], 1, "the first was not disturbed");
    first.stop();
    first.start_and_wait();
    assert_eq!(first.query("/v1/ads/ad-1/clicks")["clicks"], 1);
}

#[test]
fn a_port_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = Service::new(&dir.path().join("first"), "");
    first.start_and_wait();
    let listen = first.url().replace("http://", "");
    let second = dir.path().join("second");
    let output = serve(&listen, &second);
    let reason = reason(&output);
    assert!(reason.contains(&format!("cannot listen on {listen}: ")), "{reason}");
    assert!(!second.exists(), "nothing was started");
}

#[test]
fn a_log_of_another_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let open = || RocksLog::open(&data_dir.join("log"), &MemoryBudget::new(64 << 20)).unwrap();
    drop(
        millstream_rocksdb::broker::open(
            &data_dir.join("log"),
            Arc::new(ManualClock::new(Timestamp(0))),
            &MemoryBudget::new(64 << 20),
        )
        .unwrap(),
    );
    let set_identity = |value: &[u8]| {
        let change = LogChange::PutEntry { key: b"v".to_vec(), value: value.to_vec() };
        open().write(&LogWrite { changes: vec![change] }).unwrap();
    };
    let ours = open().entry(b"v").unwrap().unwrap();
    set_identity(&[&[ours[0] + 1], &ours[1..]].concat());
    let output = serve("127.0.0.1:0", &data_dir);
    let reason = reason(&output);
    assert!(reason.contains("format version 2, and this program reads version 1"), "{reason}");
    assert!(reason.contains(data_dir.to_str().unwrap()), "{reason}");

    set_identity(&ours);
    let mut service = Service::new(dir.path(), "");
    service.start_and_wait();
    service.stop();
}
