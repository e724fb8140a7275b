//! `clickmill load` and `clickmill generate` against a service that fails in every way a network has: nothing is lost, nothing is
//! added twice.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

/// The lines that the service took in, and its first answer to every key.
#[derive(Default)]
struct Intake {
    lines: Vec<String>,
    answers: HashMap<String, Value>,
    requests: u32,
    faulty: bool,
    refuse_after: Option<usize>,
    /// A file that somebody writes on when the first clicks arrive.
    written_on: Option<PathBuf>,
    /// As on Kafka: a request with a key is refused.
    keeps_no_keys: bool,
    /// What goes wrong with requests, by their number from 1, where no keys are kept.
    faults: HashMap<u32, Fault>,
}

#[derive(Clone, Copy)]
enum Fault {
    /// The clicks are taken in, and the answer is lost.
    AnswerLost,
    /// Nothing is taken in, and the service says when to try again.
    Refused,
    /// Every third click is taken in, and the service does not know of the others, which are not.
    PartlyUnknown,
}

type Shared = Arc<Mutex<Intake>>;

/// A service as far as clicks go in, on a thread of its own.
struct Service {
    address: SocketAddr,
    intake: Shared,
}

impl Service {
    fn start(intake: Intake) -> Self {
        Self::start_on(TcpListener::bind("127.0.0.1:0").expect("a free port"), intake)
    }

    fn start_on(listener: TcpListener, intake: Intake) -> Self {
        let (address, intake) = (listener.local_addr().expect("bound"), Arc::new(Mutex::new(intake)));
        listener.set_nonblocking(true).expect("set");
        let router =
            Router::new().route("/v1/clicks", post(take_clicks)).route("/v1/ads/top", get(refuse)).with_state(intake.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                axum::serve(listener, router).await.expect("served");
            });
        });
        Self { address, intake }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn lines(&self) -> Vec<String> {
        self.intake.lock().expect("lock").lines.clone()
    }
}

async fn refuse() -> Response {
    (StatusCode::BAD_REQUEST, axum::Json(json!({"title": "A parameter cannot be taken", "detail": "from: no"}))).into_response()
}

async fn take_clicks(State(intake): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let mut guard = intake.lock().expect("lock");
    guard.requests += 1;
    let (request, faulty) = (guard.requests, guard.faulty);
    if let Some(path) = guard.written_on.take() {
        let mut file = File::options().append(true).open(path).expect("opened");
        file.write_all(b"{\"ad_id\":\"later\"}\n").expect("written");
    }
    if guard.refuse_after.is_some_and(|keys| guard.answers.len() >= keys) {
        return (StatusCode::FORBIDDEN, axum::Json(json!({"title": "Forbidden", "detail": "enough"}))).into_response();
    }
    if guard.keeps_no_keys {
        return take_clicks_without_key(guard, &headers, &body);
    }
    match request % 7 {
        1 if faulty => drop_connection(guard),
        3 if faulty => return (StatusCode::SERVICE_UNAVAILABLE, [("Retry-After", "0")]).into_response(),
        5 if faulty => return StatusCode::TOO_MANY_REQUESTS.into_response(),
        _ => {}
    }
    let key = headers["idempotency-key"].to_str().expect("text").to_owned();
    assert_eq!(headers["content-type"], "application/x-ndjson");
    assert!(key.len() <= 128);
    if let Some(first) = guard.answers.get(&key) {
        return (StatusCode::ACCEPTED, [("Idempotent-Replayed", "true")], axum::Json(first.clone())).into_response();
    }
    let answer = guard.add(&body);
    guard.answers.insert(key, answer.clone());
    if faulty && request.is_multiple_of(4) {
        // Taken in, but the answer is lost.
        drop_connection(guard);
    }
    let status = if answer["accepted"] == 0 { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::ACCEPTED };
    (status, axum::Json(answer)).into_response()
}

fn take_clicks_without_key(mut guard: std::sync::MutexGuard<'_, Intake>, headers: &HeaderMap, body: &[u8]) -> Response {
    if headers.contains_key("idempotency-key") {
        let problem = json!({"type": "/problems/idempotency-unavailable", "title": "No keys", "detail": "send it without"});
        return (StatusCode::NOT_IMPLEMENTED, axum::Json(problem)).into_response();
    }
    match guard.faults.get(&guard.requests) {
        Some(Fault::Refused) => (StatusCode::SERVICE_UNAVAILABLE, [("Retry-After", "0")]).into_response(),
        Some(Fault::AnswerLost) => {
            guard.add(body);
            drop_connection(guard)
        }
        Some(Fault::PartlyUnknown) => {
            let text = std::str::from_utf8(body).expect("UTF-8");
            let (taken, unknown): (Vec<_>, Vec<_>) = text.lines().enumerate().partition(|(index, _)| index % 3 == 0);
            let taken = guard.add(taken.into_iter().map(|(_, line)| format!("{line}\n")).collect::<String>().as_bytes());
            let unknown: Vec<_> = unknown.iter().map(|(index, _)| json!({"index": index, "reason": "unknown"})).collect();
            let answer = json!({"type": "/problems/outcome-unknown", "title": "Unknown", "accepted": taken["accepted"], "rejected": unknown});
            (StatusCode::SERVICE_UNAVAILABLE, axum::Json(answer)).into_response()
        }
        None => (StatusCode::ACCEPTED, axum::Json(guard.add(body))).into_response(),
    }
}

impl Intake {
    fn without_keys(faults: &[(u32, Fault)]) -> Self {
        Self { keeps_no_keys: true, faults: faults.iter().copied().collect(), ..Self::default() }
    }

    fn add(&mut self, body: &[u8]) -> Value {
        let text = String::from_utf8(body.to_vec()).expect("UTF-8");
        let mut rejected = Vec::new();
        let before = self.lines.len();
        for (index, line) in text.lines().enumerate() {
            match serde_json::from_str::<Value>(line) {
                Ok(_) => self.lines.push(line.to_owned()),
                Err(_) => rejected.push(json!({"index": index, "reason": "not JSON"})),
            }
        }
        json!({"accepted": self.lines.len() - before, "rejected": rejected})
    }
}

/// Ends the connection without an answer, as a killed process does.
fn drop_connection(guard: std::sync::MutexGuard<'_, Intake>) -> ! {
    drop(guard);
    std::panic::resume_unwind(Box::new("connection dropped"))
}

fn clickmill(arguments: &[&str]) -> Output {
    command(arguments).output().expect("the program runs")
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clickmill"));
    command.args(arguments).env_remove("CLICKMILL_URL").stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// A file of so many clicks, every hundredth line of which is not JSON; and the good lines.
fn clicks_file(clicks: usize, suffix: &str) -> (tempfile::NamedTempFile, Vec<String>) {
    let lines: Vec<_> = (1..=clicks)
        .map(|n| if n % 100 == 0 { format!("{{broken {n}") } else { format!("{{\"ad_id\":\"ad-{n}\",\"timestamp\":{n}}}") })
        .collect();
    let bytes = (lines.join("\n") + "\n\n").into_bytes();
    let bytes = match suffix {
        ".zst" => zstd::encode_all(bytes.as_slice(), 1).expect("compressed"),
        _ => bytes,
    };
    let mut file = tempfile::Builder::new().suffix(suffix).tempfile().expect("a file");
    file.write_all(&bytes).expect("written");
    (file, lines.into_iter().filter(|line| !line.contains("broken")).collect())
}

#[test]
fn a_load_survives_every_fault_and_adds_every_click_once() {
    let (file, good) = clicks_file(2_000, ".zst");
    let service = Service::start(Intake { faulty: true, ..Intake::default() });
    let path = file.path().to_str().expect("UTF-8");
    let arguments = ["load", path, "--url", &service.url(), "--block-size", "8KiB"];

    let output = clickmill(&arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(service.lines(), good);
    let summary = text(&output.stdout);
    assert!(summary.contains(": 1980 accepted ("), "{summary}");
    assert!(summary.contains(" 20 rejected\n  line 100: not JSON\n  line 200: not JSON\n"), "{summary}");
    assert!(summary.ends_with("  line 1000: not JSON\n  and 10 more\n"), "{summary}");

    let again = clickmill(&arguments);
    assert!(again.status.success(), "{}", text(&again.stderr));
    assert!(
        text(&again.stdout).contains(": 1980 accepted (1980 of them were there already), 20 rejected"),
        "{}",
        text(&again.stdout)
    );
    assert_eq!(service.lines(), good);
}

#[test]
fn an_interrupted_load_is_run_again_and_adds_what_is_missing() {
    let (file, good) = clicks_file(1_000, ".ndjson");
    let service = Service::start(Intake { refuse_after: Some(3), ..Intake::default() });
    let path = file.path().to_str().expect("UTF-8");
    let arguments = ["load", path, "--url", &service.url(), "--block-size", "4KiB"];

    let output = clickmill(&arguments);
    assert_eq!(output.status.code(), Some(1));
    let reason = text(&output.stderr);
    assert!(reason.ends_with("answered 403: Forbidden: enough\n") && reason.lines().count() == 1, "{reason}");
    assert!(!service.lines().is_empty() && service.lines().len() < good.len());

    service.intake.lock().expect("lock").refuse_after = None;
    assert!(clickmill(&arguments).status.success());
    assert_eq!(service.lines(), good);
}

/// Under the same keys it would be sent once more by the next load of the file, which is another file by then.
#[test]
fn what_is_written_to_a_file_while_it_is_loaded_is_not_sent() {
    let (file, good) = clicks_file(5_000, ".ndjson");
    let service = Service::start(Intake { written_on: Some(file.path().to_owned()), ..Intake::default() });
    let arguments = ["load", file.path().to_str().expect("UTF-8"), "--url", &service.url(), "--block-size", "4KiB"];
    let output = clickmill(&arguments);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("has changed while it was loaded"), "{}", text(&output.stderr));
    assert_eq!(service.lines(), good);
}

#[test]
fn a_load_waits_for_a_service_that_is_away() {
    let (file, good) = clicks_file(300, ".ndjson");
    let reserved = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = reserved.local_addr().expect("bound");
    // Its connection is taken and dropped: the service went away in the middle of a request.
    let url = format!("http://{address}");
    let load =
        command(&["load", file.path().to_str().expect("UTF-8"), "--url", &url]).stdout(Stdio::piped()).spawn().expect("runs");
    drop(reserved.accept().expect("the first attempt"));
    drop(reserved);
    let again = TcpListener::bind(address).expect("the same port");
    let service = Service::start_on(again, Intake::default());
    assert!(load.wait_with_output().expect("ended").status.success());
    assert_eq!(service.lines(), good);
}

#[test]
fn a_question_that_the_service_does_not_take_is_wrong_usage() {
    let service = Service::start(Intake::default());
    let output = clickmill(&["top", "--from", "xx", "--url", &service.url()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).ends_with("/v1/ads/top answered 400: A parameter cannot be taken: from: no\n"));
}

#[test]
fn patience_ends() {
    let (file, _) = clicks_file(3, ".ndjson");
    // Port 1 is not one that a service listens on; a free one might be another test's in a moment.
    let url = "http://127.0.0.1:1";
    let output = clickmill(&["load", file.path().to_str().expect("UTF-8"), "--url", url, "--retry-for", "200ms"]);
    assert_eq!(output.status.code(), Some(1));
    let said: Vec<_> = text(&output.stderr).lines().collect();
    assert_eq!(said.len(), 2, "that it waits, and at last the reason: {said:?}");
    assert!(said[0].starts_with(&format!("clickmill: waiting: no answer from {url}/v1/clicks: ")), "{said:?}");
    assert!(said[1].starts_with(&format!("clickmill: no answer from {url}/v1/clicks: ")), "{said:?}");
}

/// The command that a load has printed to go on with, behind these words.
fn command_to_go_on(output: &Output, words: &str) -> Vec<String> {
    let line =
        text(&output.stdout).lines().find(|line| line.contains(words)).unwrap_or_else(|| panic!("{}", text(&output.stdout)));
    let (_, command) = line.split_once(": clickmill ").expect("a command");
    command.split(' ').map(str::to_owned).collect()
}

fn run_again(command: &[String]) -> Output {
    clickmill(&command.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Lines that are not rejected, from the first to the last.
fn good_lines(numbers: std::ops::RangeInclusive<u64>) -> Vec<String> {
    let good = numbers.filter(|n| n % 100 != 0);
    good.map(|n| format!("{{\"ad_id\":\"ad-{n}\",\"timestamp\":{n}}}")).collect()
}

#[test]
fn a_service_without_keys_gets_every_click_once_where_it_answers() {
    let (file, _) = clicks_file(2_500, ".zst");
    let service = Service::start(Intake::without_keys(&[(2, Fault::Refused), (4, Fault::Refused), (5, Fault::Refused)]));
    let output = clickmill(&["load", file.path().to_str().expect("UTF-8"), "--url", &service.url()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(service.lines(), good_lines(1..=2_500));
    assert!(text(&output.stdout).contains(": 2475 accepted, 25 rejected\n  line 100: not JSON\n"), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("a load that is run again adds everything again"), "{}", text(&output.stderr));
    let keyed_refused_and_three_parts = 1 + 3 + 3;
    assert_eq!(service.intake.lock().expect("lock").requests, keyed_refused_and_three_parts);
}

#[test]
fn without_keys_a_load_stops_where_an_answer_is_lost_and_says_how_to_go_on() {
    for (words, with_them) in [("send them again", true), ("go on without them", false)] {
        let (file, _) = clicks_file(3_500, ".ndjson");
        let service = Service::start(Intake::without_keys(&[(3, Fault::AnswerLost)]));
        let path = file.path().to_str().expect("UTF-8");
        let output = clickmill(&["load", path, "--url", &service.url()]);
        assert_eq!(output.status.code(), Some(1));
        let reason = text(&output.stderr).lines().last().expect("a reason");
        assert!(
            reason.starts_with(&format!("clickmill: {path}: lines 1001 to 2000 may be stored or not: no answer")),
            "{reason}"
        );
        assert_eq!(service.lines(), good_lines(1..=2_000), "the answer alone was lost");

        let command = command_to_go_on(&output, words);
        let lines = if with_them { "1001-" } else { "2001-" };
        let expected =
            [["load", path, "--lines", lines].as_slice(), if with_them { ["--may-repeat"].as_slice() } else { &[] }].concat();
        assert_eq!(command[..expected.len()], expected, "{command:?}");
        let again = run_again(&command);
        assert!(again.status.success(), "{}", text(&again.stderr));
        let rest = good_lines(if with_them { 1_001..=3_500 } else { 2_001..=3_500 });
        assert_eq!(service.lines(), [good_lines(1..=2_000), rest].concat());
    }
}

#[test]
fn of_lines_that_the_service_knows_those_alone_are_left_that_it_does_not_know() {
    let (file, _) = clicks_file(99, ".ndjson");
    let service = Service::start(Intake::without_keys(&[(2, Fault::PartlyUnknown)]));
    let path = file.path().to_str().expect("UTF-8");
    let output = clickmill(&["load", path, "--url", &service.url()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains(": 66 of the lines 2 to 99 may be stored or not: "), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains(": 33 accepted, 0 rejected\n"), "{}", text(&output.stdout));
    let command = command_to_go_on(&output, "send them again");
    assert!(command.iter().any(|word| word.starts_with("2-3,5-6,8-9,") && word.ends_with(",95-96,98-")), "{command:?}");
    assert!(run_again(&command).status.success());
    let mut lines = service.lines();
    lines.sort();
    let mut expected = good_lines(1..=99);
    expected.sort();
    assert_eq!(lines, expected, "each once");
}

#[test]
fn a_load_that_may_repeat_does_not_stop() {
    let (file, _) = clicks_file(1_500, ".ndjson");
    let service = Service::start(Intake::without_keys(&[(2, Fault::PartlyUnknown), (3, Fault::AnswerLost)]));
    let output = clickmill(&["load", file.path().to_str().expect("UTF-8"), "--url", &service.url(), "--may-repeat"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let summary = text(&output.stdout);
    // Two thirds of the first part twice, of which the first time was not stored.
    assert!(summary.contains("; 1332 were sent again though they may have been stored, and may count twice"), "{summary}");
    let lines = service.lines();
    let once: std::collections::BTreeSet<_> = lines.iter().collect();
    assert_eq!(once.into_iter().cloned().collect::<Vec<_>>(), {
        let mut expected = good_lines(1..=1_500);
        expected.sort();
        expected
    });
    assert!(lines.len() > good_lines(1..=1_500).len(), "the answer that was lost was to clicks that were stored");
}

#[test]
fn a_load_without_keys_that_fails_says_from_where_to_go_on() {
    let (file, _) = clicks_file(1_500, ".ndjson");
    let service = Service::start(Intake::without_keys(&[(3, Fault::Refused)]));
    let path = file.path().to_str().expect("UTF-8");
    let output = clickmill(&["load", path, path, "--url", &service.url(), "--retry-for", "0s"]);
    assert_eq!(output.status.code(), Some(1));
    let expected = format!(
        "  to go on: clickmill load {path} --lines 1001- --retry-for 0s --url {url} && clickmill load {path} --retry-for 0s --url {url}\n",
        url = service.url()
    );
    assert!(text(&output.stdout).ends_with(&expected), "{}", text(&output.stdout));
    assert_eq!(service.lines(), good_lines(1..=1_000));
}

#[test]
fn chosen_lines_alone_are_loaded_and_under_a_key_once() {
    let (file, _) = clicks_file(50, ".ndjson");
    let service = Service::start(Intake::default());
    let path = file.path().to_str().expect("UTF-8");
    for _ in 0..2 {
        assert!(clickmill(&["load", path, "--url", &service.url(), "--lines", "2-4,49-"]).status.success());
    }
    assert_eq!(service.lines(), [good_lines(2..=4), good_lines(49..=50)].concat());
    let output = clickmill(&["load", path, path, "--url", &service.url(), "--lines", "2-"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn generated_clicks_that_may_be_stored_are_counted_and_not_sent_again() {
    let faults = [(3, Fault::AnswerLost), (4, Fault::PartlyUnknown), (5, Fault::Refused)];
    let service = Service::start(Intake::without_keys(&faults));
    let fixed = ["--start", "2026-01-01T00:00:00Z", "--span", "1h", "--seed", "3", "--count", "12000"];
    let output = clickmill(&[&["generate", "--url", &service.url()], fixed.as_slice()].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stderr);
    assert_eq!(said.matches("clicks may be stored or not (").count(), 2, "{said}");
    let numbers: Vec<u64> = said.lines().last().expect("a summary").split(' ').filter_map(|word| word.parse().ok()).collect();
    let [generated, _late, _bad, accepted, unknown] = numbers[..] else { panic!("{said}") };
    assert_eq!((generated, accepted + unknown), (12_000, 12_000), "{said}");
    assert!(unknown > 0 && service.lines().len() as u64 > accepted && service.lines().len() < 12_000, "{said}");
    let once: std::collections::BTreeSet<_> = service.lines().into_iter().collect();
    assert!(once.len() as u64 > accepted, "what was stored is stored once");
}

#[test]
fn generated_clicks_arrive_once_whatever_fails() {
    let service = Service::start(Intake { faulty: true, ..Intake::default() });
    let fixed = ["--start", "2026-01-01T00:00:00Z", "--span", "1h", "--seed", "3", "--count", "12000"];
    let output = clickmill(&[&["generate", "--url", &service.url()], fixed.as_slice()].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("the service accepted 12000 and rejected 0"), "{}", text(&output.stderr));

    let written = clickmill(&[&["generate", "--out", "-"], fixed.as_slice()].concat());
    assert_eq!(service.lines(), text(&written.stdout).lines().collect::<Vec<_>>());
}
