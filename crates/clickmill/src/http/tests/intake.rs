use std::sync::{Mutex, mpsc};

use axum::body::Bytes;
use serde_json::json;

use super::*;
use millstream::partitioner::partition_for_key;

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

#[tokio::test]
async fn one_object_an_array_and_lines_are_taken() {
    let api = Api::new();
    let none: [Value; 0] = [];
    let taken = |accepted: usize| json!({"accepted": accepted, "rejected": none});
    assert_eq!(api.post(JSON, r#" {"ad_id": "a",  "x": 1} "#).await.json(202), taken(1));
    assert_eq!(api.post("Application/JSON; charset=utf-8", r#"[{"ad_id":"b"}, {"ad_id":"c"}]"#).await.json(202), taken(2));
    assert_eq!(api.post(NDJSON, "{\"ad_id\":\"d\"}\r\n\n  {\"ad_id\":\"\\u00e4\"}").await.json(202), taken(2));
    let record =
        |ad: &str, value: &str| (partition_for_key(ad.as_bytes(), fake::PARTITIONS), ad.to_owned(), value.as_bytes().to_vec());
    let expected = [
        record("a", r#"{"ad_id": "a",  "x": 1}"#),
        record("b", r#"{"ad_id":"b"}"#),
        record("c", r#"{"ad_id":"c"}"#),
        record("d", r#"{"ad_id":"d"}"#),
        record("ä", r#"{"ad_id":"\u00e4"}"#),
    ];
    assert_eq!(api.mill.records(), expected);
}

#[tokio::test]
async fn each_click_is_judged_by_itself() {
    let api = Api::new();
    let lines = "{\"ad_id\":\"a\"}\n\n{\"ad\":\"a\"}\nnonsense\n{\"ad_id\":\"b\",\"timestamp\":-1}\n{\"ad_id\":\"c\"}";
    let answer = json!({"accepted": 2, "rejected": [
        {"index": 1, "reason": "ad_id is missing"}, {"index": 2, "reason": "not a JSON object"}, {"index": 3, "reason": "timestamp is negative"},
    ]});
    assert_eq!(api.post(NDJSON, lines).await.json(202), answer);
    assert_eq!(api.mill.records().len(), 2);
    let answer = api.post(JSON, "[1, {\"ad_id\": 5}, {}]").await.json(422);
    assert_eq!(answer["accepted"], 0);
    assert_eq!(answer["rejected"][1], json!({"index": 1, "reason": "ad_id is not a string"}));
    for nothing in ["[]", "null", "\"text\"", "{}"] {
        assert_eq!(api.post(JSON, nothing).await.json(422)["accepted"], 0, "{nothing}");
    }
    assert_eq!(api.post(NDJSON, "").await.json(422), json!({"accepted": 0, "rejected": []}));
    let ahead = format!(r#"{{"ad_id":"a","timestamp":{}}}"#, fake::NOW.0 + 600_001);
    assert_eq!(api.post(JSON, ahead).await.json(422)["rejected"][0]["reason"], "timestamp is too far ahead of the record's own");
    let just_fits = format!(r#"{{"ad_id":"abc","x":"{}"}}"#, "y".repeat(fake::MAX_RECORD_BYTES - 25));
    assert_eq!(just_fits.len() + "abc".len(), fake::MAX_RECORD_BYTES);
    let answer = json!({"accepted": 1, "rejected": [{"index": 0, "reason": "larger than the clicks topic takes"}]});
    assert_eq!(api.post(JSON, format!("[{just_fits} ,{just_fits}]").replacen("abc", "abcd", 1)).await.json(202), answer);
}

#[tokio::test]
async fn a_body_that_is_not_taken_says_why() {
    let api = Api::new();
    for malformed in ["", "{", "[{\"ad_id\":\"a\"},]", "{\"ad_id\":\"a\"} {\"ad_id\":\"b\"}", "\u{feff}{}"] {
        api.post(JSON, malformed).await.problem(400, "malformed-body");
    }
    api.post(JSON, vec![b'"', 0xff, b'"']).await.problem(400, "malformed-body");
    api.post("text/plain", "{}").await.problem(415, "unsupported-media-type");
    api.send(Request::post("/v1/clicks").body("{}".into()).unwrap()).await.problem(415, "unsupported-media-type");
    let compressed = Request::post("/v1/clicks").header("content-type", JSON).header("content-encoding", "gzip");
    api.send(compressed.body("{}".into()).unwrap()).await.problem(415, "unsupported-media-type");
    assert!(api.mill.records().is_empty());
}

#[tokio::test]
async fn a_large_body_is_refused_announced_or_not() {
    let api = Api::new();
    let body = || vec![b' '; options().max_body + 1];
    api.post(JSON, body()).await.problem(413, "body-too-large");
    let unannounced = Body::new(http_body_util::Full::<Bytes>::from(body()));
    api.post(JSON, unannounced).await.problem(413, "body-too-large");
    let announced = Request::post("/v1/clicks").header("content-type", JSON).header("content-length", "99999999999");
    api.send(announced.body(Body::empty()).unwrap()).await.problem(413, "body-too-large");
    let mut fits = br#"{"ad_id":"a"}"#.to_vec();
    fits.resize(options().max_body, b' ');
    api.post(JSON, fits).await.json(202);
}

#[tokio::test]
async fn too_many_clicks_are_refused() {
    let api = Api::with(FakeMill::default(), HttpOptions { max_body: 1 << 20, intake_bytes: 1 << 20, ..options() });
    api.post(NDJSON, "1\n".repeat(MAX_CLICKS_PER_REQUEST + 1)).await.problem(413, "body-too-large");
    api.post(JSON, format!("[1{}]", ",1".repeat(MAX_CLICKS_PER_REQUEST))).await.problem(413, "body-too-large");
    let most = api.post(NDJSON, "1\n".repeat(MAX_CLICKS_PER_REQUEST)).await.json(422);
    assert_eq!(most["rejected"].as_array().unwrap().len(), MAX_CLICKS_PER_REQUEST);
}

#[tokio::test]
async fn a_key_makes_it_safe_to_send_again() {
    let api = Api::new();
    let reply = api.post_with_key(b"k1", r#"[{"ad_id":"a"},{}]"#).await;
    let first = reply.json(202);
    assert_eq!(reply.header("idempotent-replayed"), "");
    assert_eq!(first["accepted"], 1);
    let again = api.post_with_key(b"k1", r#"[{"ad_id":"a"},{}]"#).await;
    assert_eq!((again.json(202), again.header("idempotent-replayed")), (first.clone(), "true"));
    assert_eq!(api.post_with_key(b"k1", r#"[{"ad_id":"b"},{"ad_id":"c"}]"#).await.json(202), first);
    assert_eq!(api.post_with_key(b"k1", "{}").await.json(202), first);
    assert_eq!(api.mill.records().len(), 1);
    api.post_with_key(b"k2", "{}").await.json(422);
    api.post_with_key(b"k2", r#"{"ad_id":"a"}"#).await.json(202);
    api.post_with_key(&[b'k'; 128], r#"{"ad_id":"a"}"#).await.json(202);
    assert_eq!(api.mill.records().len(), 3);
    api.post_with_key(&[b'k'; 129], r#"{"ad_id":"a"}"#).await.problem(400, "invalid-idempotency-key");
    api.post_with_key(b"", r#"{"ad_id":"a"}"#).await.problem(400, "invalid-idempotency-key");
    let twice =
        Request::post("/v1/clicks").header("content-type", JSON).header("idempotency-key", "a").header("idempotency-key", "b");
    api.send(twice.body(r#"{"ad_id":"a"}"#.into()).unwrap()).await.problem(400, "invalid-idempotency-key");
    assert_eq!(api.mill.records().len(), 3);
}

#[tokio::test]
async fn what_cannot_be_written_says_when_to_come_back() {
    let cases = [
        (AppendError::Unavailable("disk".into()), 503, "log-unavailable", "10"),
        (AppendError::ShuttingDown, 503, "shutting-down", "10"),
        // Sent again, it could count twice.
        (AppendError::OutcomeUnknown("sync".into()), 503, "outcome-unknown", ""),
        (AppendError::Partly { durable: vec![false], reason: "no answer".into() }, 503, "outcome-unknown", ""),
        (AppendError::Failed("broken".into()), 500, "internal", ""),
    ];
    for (error, status, kind, retry_after) in cases {
        let reply = Api::failing(Faults { append: Some(error), ..Faults::default() }).post(JSON, r#"{"ad_id":"a"}"#).await;
        reply.problem(status, kind);
        assert_eq!(reply.header("retry-after"), retry_after);
    }
    let unknown = Faults { append: Some(AppendError::OutcomeUnknown("sync".into())), ..Faults::default() };
    let reply = Api::failing(unknown).post_with_key(b"k1", r#"{"ad_id":"a"}"#).await;
    reply.problem(503, "outcome-unknown");
    assert_eq!(reply.header("retry-after"), "1", "the key makes it safe");
}

#[tokio::test]
async fn where_nothing_could_be_written_each_click_is_told() {
    let faults = Faults { append: Some(AppendError::Unavailable("full".into())), ..Faults::default() };
    let problem = Api::failing(faults).post(JSON, r#"[{"ad_id":"a"},{}]"#).await.problem(503, "log-unavailable");
    assert_eq!((&problem["accepted"], &problem["rejected"]), (&json!(0), &not_stored()));
}

/// Of a click and something that is none.
fn not_stored() -> Value {
    json!([{"index": 0, "reason": "not stored"}, {"index": 1, "reason": "ad_id is missing"}])
}

/// More at once than may append, with a log that answers nobody: the others are told in time, with the cause, and can send again.
#[tokio::test]
async fn requests_whose_turn_does_not_come_are_told_of_each_click() {
    const CLIENTS: usize = 300;
    const AT_ONCE: usize = 128;
    let (release, blocked) = mpsc::channel::<()>();
    let faults = Faults {
        append_blocks: Some(Mutex::new(blocked)),
        intake_trouble: Some("NOT_ENOUGH_REPLICAS".to_owned()),
        ..Faults::default()
    };
    let limits = HttpOptions {
        max_concurrent_requests: CLIENTS,
        intake_bytes: 64 << 20,
        request_timeout: Duration::from_secs(9),
        ..options()
    };
    let api = Arc::new(Api::with(FakeMill::failing(faults), limits));
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let api = api.clone();
        requests.spawn(async move { api.post(JSON, r#"[{"ad_id":"a"},{}]"#).await });
    }
    for _ in AT_ONCE..CLIENTS {
        let reply = requests.join_next().await.unwrap().unwrap();
        let problem = reply.problem(503, "log-unavailable");
        assert_eq!((&problem["accepted"], &problem["rejected"]), (&json!(0), &not_stored()));
        assert!(problem["detail"].as_str().unwrap().contains("NOT_ENOUGH_REPLICAS"), "{problem}");
        assert_eq!(reply.header("retry-after"), "10");
    }
    drop(release);
    while let Some(reply) = requests.join_next().await {
        reply.unwrap().json(202);
    }
    assert_eq!(api.mill.records().len(), AT_ONCE);
}

#[tokio::test]
async fn a_request_that_has_timed_out_says_when_to_come_back_only_where_that_cannot_count_twice() {
    let (_release, blocked) = mpsc::channel::<()>();
    let faults = Faults { append_blocks: Some(Mutex::new(blocked)), ..Faults::default() };
    let api = Api::with(FakeMill::failing(faults), HttpOptions { request_timeout: Duration::from_millis(300), ..options() });
    let reply = api.post(JSON, r#"{"ad_id":"a"}"#).await;
    reply.problem(503, "timed-out");
    assert_eq!(reply.header("retry-after"), "");
    let reply = api.post_with_key(b"k1", r#"{"ad_id":"a"}"#).await;
    reply.problem(503, "timed-out");
    assert_eq!(reply.header("retry-after"), "1");
}
