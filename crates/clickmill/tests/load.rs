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

impl Intake {
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
