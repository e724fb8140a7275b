//! Clicks are loaded while the service is killed with kill -9 again and again, and the load too. In the end every count is exact.
//!
//! What is expected comes from the file of clicks and from the order of the records in the clicks topic, by models of this test alone:
//! it reads JSON with serde_json, decides what is late by the definition, and keeps every count in a map. What is found is read from
//! the stores, the changelog, the topic of closed windows, the late and dead-letter topics, and over HTTP.
//!
//! `cargo test` runs a short form. The whole one, in some minutes and 10 GB of disk:
//!
//! ```sh
//! KILLED_SERVICE_CLICKS=10000000 KILLED_SERVICE_ADS=1000000 KILLED_SERVICE_KILLS=12 \
//!     cargo test --workspace --test killed_service -- --nocapture
//! ```

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod expected;
mod file;
mod found;
mod kills;
#[path = "../service/mod.rs"]
mod service;

use std::collections::HashMap;
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, Instant};

use expected::Expected;
use file::ClicksFile;
use found::Kept;
use service::Service;

/// Event time lies in the past, so that nothing is too far ahead; the partitions wait for each other, so that nothing depends on when
/// the test runs. Little memory makes for many flushes and compactions.
fn configuration() -> String {
    let memory: String = setting("KILLED_SERVICE_MEMORY", "256MiB".to_owned());
    format!("[engine]\nmemory = \"{memory}\"\nidle_timeout = \"off\"\n")
}

/// An ad and the start of a window, in milliseconds.
type AdWindow = (Box<str>, i64);
type Counts = HashMap<AdWindow, i64>;

#[test]
fn every_count_is_exact_after_many_kills() {
    let (clicks, ads, kills) =
        (setting("KILLED_SERVICE_CLICKS", 200_000), setting("KILLED_SERVICE_ADS", 20_000), setting("KILLED_SERVICE_KILLS", 6));
    let seed = setting("KILLED_SERVICE_SEED", 7);
    let dir = tempfile::tempdir().unwrap();
    let file = ClicksFile::generate(dir.path(), clicks, ads, seed);
    let mut service = Service::new(dir.path(), &configuration());
    let unreadable = expected::put_unreadable_records(&service.data_dir());

    let began = Instant::now();
    let story = kills::load_under_kills(&mut service, &file, unreadable, kills, seed);
    println!(
        "{clicks} clicks, {ads} ads, {kills} kills of the service, {} of the load: loaded in {:?}",
        story.loads_killed,
        began.elapsed()
    );
    service.wait_until_counted();
    println!("all is counted after {:?}", began.elapsed());
    story.print(&service);
    assert_no_store_was_rebuilt(&service);
    // Windows are closed in pieces, one with each commit.
    service::pause(Duration::from_secs(2) + Duration::from_micros(clicks / 2));
    service.kill();
    service.start_and_wait();
    service.wait_until_counted();
    service.stop();

    let expected = check_topics(&service.data_dir(), &file, unreadable);
    service.start_and_wait();
    found::check_http(&service, &expected);
    service.stop();
    print_sizes(&service.data_dir(), &file);
}

/// Compares all that is kept with what is expected of the records in the clicks topic, and those with the file.
fn check_topics(data_dir: &Path, file: &ClicksFile, unreadable: u64) -> Expected {
    let kept = Kept::open(data_dir);
    let expected = Expected::of(&kept.broker, file);
    let Expected { records, accepted, late, dead_lettered, counts, .. } = &expected;
    let counted: i64 = counts.values().sum();
    println!(
        "{records} records in the clicks topic: {counted} counted, {} late, {} dead-lettered",
        late.len(),
        dead_lettered.len()
    );
    assert_eq!(*records, accepted + unreadable, "each accepted line of the file is there, and nothing else");
    assert_eq!(*records, counted as u64 + late.len() as u64 + dead_lettered.len() as u64);
    assert!(!late.is_empty() && dead_lettered.len() as u64 == unreadable, "the file has late clicks");
    assert_eq!(kept.diverted("clickmill-late"), *late);
    assert_eq!(kept.diverted("clickmill-dead-letter"), *dead_lettered);
    found::assert_same("the stores", &kept.stores(), counts);
    found::assert_same("the changelog", &kept.changelog(), counts);
    let closed: Counts =
        counts.iter().filter(|((_, start), _)| expected.is_final(*start)).map(|(row, n)| (row.clone(), *n)).collect();
    assert!(!closed.is_empty() && closed.len() < counts.len(), "some windows are final, some are not");
    found::assert_same("the closed windows", &kept.closed(), &closed);
    println!(
        "{} counts of an ad in a window are exact in stores and changelog, {} of them final and sent on once",
        counts.len(),
        closed.len()
    );
    expected
}

/// A crash never wipes a store.
fn assert_no_store_was_rebuilt(service: &Service) {
    for start in 1..=service.starts() {
        let log = service.log_of(start);
        assert!(!log.contains("rebuil") && !log.contains("ERROR"), "start {start}:\n{log}");
    }
}

fn print_sizes(data_dir: &Path, file: &ClicksFile) {
    let mib = |bytes: u64| bytes >> 20;
    let of = |name: &str| mib(service::bytes_under(&data_dir.join(name)));
    println!("file {} MiB, log {} MiB, state {} MiB", mib(file.bytes()), of("log"), of("state"));
}

/// What the environment says, or the default.
fn setting<T: FromStr>(name: &str, default: T) -> T {
    let set = std::env::var(name).ok();
    set.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} cannot be read")))
}
