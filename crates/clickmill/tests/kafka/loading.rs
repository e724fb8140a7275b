//! `clickmill load` and `clickmill generate` through an instance, which keeps no idempotency keys.

use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use crate::clicks::{Clicks, MINUTE_MS};
use crate::cluster;
use crate::scenario::Scenario;
use crate::service::{self, Service, pause};

/// The most lines that one lost answer can be about.
const MOST_UNKNOWN: u64 = 1_000;

#[test]
fn files_and_generated_clicks_are_counted_once_and_a_kill_leaves_at_most_one_request_unknown() {
    let scenario = Scenario::new("loading", cluster::shared().bootstrap_servers(), Clicks::mixed(0, 0));
    let mut instance = scenario.instance(0);
    instance.start_and_wait();
    let start_ms = scenario.clicks.start_ms;

    let loaded = load(&instance, &file(scenario.dir.path(), "small.ndjson", 2_500, start_ms), &[]);
    assert!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
    assert!(text(&loaded.stdout).contains(": 2500 accepted, 0 rejected"), "{}", text(&loaded.stdout));
    let start = start_ms.to_string();
    let generated = ["generate", "--count", "1500", "--span", "1m", "--start", &start, "--url", &instance.url()];
    let generated = service::clickmill(&generated).output().unwrap();
    assert!(text(&generated.stderr).contains("the service accepted 1500 and rejected 0\n"), "{}", text(&generated.stderr));
    assert_eq!(clicks_counted(&mut instance, start_ms), 4_000);

    let large = file(scenario.dir.path(), "large.ndjson", 60_000, start_ms);
    let mut load_command = service::clickmill(&["load", &large, "--url", &instance.url()]);
    let under_way = load_command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    pause(Duration::from_millis(300));
    instance.kill();
    instance.start_and_wait();
    let stopped = under_way.wait_with_output().unwrap();
    let mut most_twice = 0;
    if !stopped.status.success() {
        let (reason, said) = (text(&stopped.stderr), text(&stopped.stdout));
        assert!(reason.contains("may be stored or not: no answer from"), "{reason}");
        let choice = said.lines().find(|line| line.contains("send them again")).expect(said);
        let lines = choice.split(' ').find(|word| word.ends_with('-') && word.len() > 1).expect(said);
        let rest = load(&instance, &large, &["--lines", lines, "--may-repeat"]);
        assert!(rest.status.success(), "{}", text(&rest.stderr));
        most_twice = MOST_UNKNOWN;
    }
    let counted = clicks_counted(&mut instance, start_ms);
    assert!((64_000..=64_000 + most_twice).contains(&counted), "{counted} of 64000");
    instance.stop();
}

fn file(dir: &Path, name: &str, clicks: u64, start_ms: i64) -> String {
    let path = dir.join(name);
    let line = |n: u64| format!("{{\"ad_id\":\"ad-{}\",\"timestamp\":{}}}\n", n % 97, start_ms + (n % 60_000) as i64);
    fs::write(&path, (0..clicks).map(line).collect::<String>()).unwrap();
    path.to_str().unwrap().to_owned()
}

fn load(instance: &Service, path: &str, options: &[&str]) -> Output {
    service::clickmill(&["load", path, "--url", &instance.url()]).args(options).output().unwrap()
}

fn clicks_counted(instance: &mut Service, start_ms: i64) -> u64 {
    instance.wait_until_counted();
    let path = format!("/v1/clicks?from={}&to={}", start_ms - 60 * MINUTE_MS, start_ms + 60 * MINUTE_MS);
    instance.query(&path)["clicks"].as_u64().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}
