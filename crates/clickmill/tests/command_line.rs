//! The program as a shell sees it: exit status, one line of reason, output.

use std::io::Read;
use std::process::{Command, Output, Stdio};

fn clickmill(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clickmill"));
    command.args(arguments).env_clear().envs(environment.iter().copied()).stdin(Stdio::null());
    command.output().expect("the program runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// The reason on standard error, which is one line.
fn refused(arguments: &[&str], environment: &[(&str, &str)], status: i32) -> String {
    let output = clickmill(arguments, environment);
    let reason = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {reason}");
    assert_eq!(reason.lines().count(), 1, "{arguments:?}: {reason}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    reason.strip_prefix("clickmill: ").expect("names the program").trim_end().to_owned()
}

#[test]
fn wrong_usage_and_configuration_end_with_2_and_one_line() {
    assert_eq!(refused(&[], &[], 2), "no command given; see --help");
    assert_eq!(refused(&["serve", "--port", "1"], &[], 2), "unexpected argument '--port' found; see --help");
    assert!(refused(&["load"], &[], 2).starts_with("the following required arguments were not provided: <FILE>"));
    assert!(refused(&["generate", "--ads", "0"], &[], 2).starts_with("ads must be"));
    assert!(refused(&["generate", "--out", "/dev/null"], &[], 2).starts_with("--out needs --count"));
    assert!(refused(&["generate", "--start", "now", "--count", "1"], &[], 2).starts_with("--start needs --span or --rate"));
    assert!(refused(&["generate", "--start", "soon", "--rate", "1"], &[], 2).starts_with("--start soon: accepted is RFC 3339"));
    assert_eq!(refused(&["ad", ""], &[], 2), "a value is required for '<ID>' but none was supplied; see --help");
    assert_eq!(
        refused(&["top", "--limit", "x"], &[], 2),
        "invalid value 'x' for '--limit <N>': invalid digit found in string; see --help"
    );
    assert!(refused(&["top", "--url", "https://x"], &[], 2).contains("accepted is http://HOST:PORT"));
    for command in ["serve", "config"] {
        let reason = refused(&[command], &[("CLICKMILL_WINDOW__SIZE", "0s")], 2);
        assert!(reason.starts_with("environment CLICKMILL_WINDOW__SIZE: window.size = \"0s\": accepted is "), "{reason}");
        assert!(refused(&[command, "--kafka", ""], &[], 2).contains("kafka.bootstrap.servers does not name a broker"));
        let reason = refused(&[command, "--kafka", "x:9092"], &[("CLICKMILL_KAFKA__ISOLATION_LEVEL", "read_uncommitted")], 2);
        assert!(reason.starts_with("kafka.isolation.level = read_uncommitted (environment "), "{reason}");
        assert!(refused(&[command, "--config", "/nowhere.toml"], &[], 2).contains("/nowhere.toml"));
    }
}

#[test]
fn what_cannot_be_loaded_is_refused_before_anything_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let (file, pipe) = (dir.path().join("clicks.ndjson"), dir.path().join("pipe"));
    std::fs::write(&file, "{}\n").expect("written");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
    let file = file.to_str().expect("UTF-8");
    // Port 1 is not one that a service listens on: a load that began would end with 1.
    let reason = |path: &str| refused(&["load", file, path, "--url", "http://127.0.0.1:1", "--retry-for", "0s"], &[], 2);
    assert!(reason("/nowhere.ndjson").starts_with("cannot read /nowhere.ndjson: "));
    assert!(reason(dir.path().to_str().expect("UTF-8")).ends_with(" is a directory: name the files in it"));
    assert!(reason(pipe.to_str().expect("UTF-8")).contains(" is not a regular file, "));
}

#[test]
fn what_fails_later_ends_with_1() {
    // Port 1 is not one that a service listens on.
    for command in [["top"].as_slice(), &["ad", "ad-1"], &["status"]] {
        let reason = refused(command, &[("CLICKMILL_URL", "http://127.0.0.1:1")], 1);
        assert!(reason.starts_with("no answer from http://127.0.0.1:1/v1/"), "{reason}");
    }
}

#[test]
fn config_prints_what_is_in_effect() {
    let output = clickmill(&["config", "--listen", "127.0.0.1:9"], &[("CLICKMILL_WINDOW__GRACE", "1h")]);
    assert!(output.status.success());
    let printed = text(&output.stdout);
    assert!(printed.contains("# flag --listen\n"), "{printed}");
    assert!(printed.contains("grace = \"1h\"      # environment CLICKMILL_WINDOW__GRACE\n"), "{printed}");

    let output = clickmill(&["config", "--json"], &[]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json["window"]["size"], serde_json::json!({"value": "5m", "origin": "default"}));
}

#[test]
fn help_and_completions_go_to_standard_output() {
    for arguments in [["--help"].as_slice(), &["--version"], &["serve", "--help"], &["completions", "bash"]] {
        let output = clickmill(arguments, &[]);
        assert!(output.status.success() && !output.stdout.is_empty() && output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_file_whatever_its_compression() {
    let dir = tempfile::tempdir().expect("a directory");
    let generate = |name: &str| {
        let path = dir.path().join(name);
        let out = path.to_str().expect("UTF-8");
        let fixed = ["--count", "1000", "--start", "0", "--span", "1h", "--late", "0.1", "--bad", "0.1", "--seed", "5"];
        assert!(clickmill(&[&["generate", "--out", out], fixed.as_slice()].concat(), &[]).status.success());
        let mut lines = Vec::new();
        let file = std::fs::File::open(path).expect("written");
        clickmill::load::open(file).expect("opened").read_to_end(&mut lines).expect("read");
        lines
    };
    let plain = generate("clicks.ndjson");
    assert_eq!(plain.iter().filter(|byte| **byte == b'\n').count(), 1000);
    assert!(plain == generate("clicks.ndjson.gz"));
    assert!(plain == generate("clicks.ndjson.zst"));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let mut generate = Command::new(env!("CARGO_BIN_EXE_clickmill"))
        .args(["generate", "--out", "-"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut first = [0; 12];
    generate.stdout.take().expect("piped").read_exact(&mut first).expect("clicks without end");
    assert_eq!(&first, b"{\"click_id\":");
    assert!(generate.wait().expect("ended").success());
}
