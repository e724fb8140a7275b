use std::sync::{Mutex, mpsc};

use serde_json::json;

use super::*;

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let api = Api::new();
    for path in ["/v1", "/v1/ads", "/v1/ads/a/b/clicks", "/v2/clicks", "/docs/nothing", "/%ff"] {
        api.get(path).await.problem(404, "not-found");
    }
    for (method, path, allow) in [
        ("DELETE", "/v1/clicks", "POST"),
        ("PUT", "/v1/clicks", "GET"),
        ("POST", "/v1/ads/top", "GET"),
        ("POST", "/healthz", "GET"),
        ("BREW", "/v1/cluster", "GET"),
    ] {
        let reply = api.send(Request::builder().method(method).uri(path).body(Body::empty()).unwrap()).await;
        reply.problem(405, "method-not-allowed");
        assert!(reply.header("allow").contains(allow), "{path}: {:?}", reply.headers);
    }
}

#[tokio::test]
async fn health_readiness_and_cluster() {
    let api = Api::new();
    assert_eq!(api.get("/healthz?from=probe").await.status, 200);
    assert_eq!(api.get("/readyz?from=probe").await.json(200)["ready"], true);
    let cluster = api.get("/v1/cluster").await.json(200);
    assert_eq!(cluster["instances"][0]["endpoint"], "127.0.0.1:8080");
    let task = json!({
        "task": "0_0", "state": "running", "topic": "clicks", "partition": 0, "position": 5, "lag": 2, "restore": null, "trouble": null
    });
    assert_eq!(cluster["instances"][0]["active_tasks"], json!([task]));
    assert_eq!((&cluster["instances"][0]["state"], &cluster["instances"][0]["version"]), (&json!("running"), &json!("1.2.3")));
    let unassigned = cluster["unassigned"].as_array().unwrap();
    let of_nobody: Vec<_> = unassigned.iter().map(|task| (&task["task"], &task["state"], &task["lag"])).collect();
    let expected = ["0_1", "1_0", "1_1"].map(|task| (json!(task), json!("unassigned"), json!(2)));
    assert_eq!(of_nobody, expected.iter().map(|(task, state, lag)| (task, state, lag)).collect::<Vec<_>>());

    assert_eq!(
        cluster["quarantined"],
        json!([{"task": "1_1", "reason": "a record is wrong", "since": "2026-01-01T00:00:00.000Z"}])
    );

    let waiting = Api::failing(Faults { not_ready: true, ..Faults::default() });
    let problem = waiting.get("/readyz").await.problem(503, "not-ready");
    assert_eq!(
        problem["tasks"][1]["restore"],
        json!({"start": 0, "position": 40, "end": 100, "records_per_second": 20, "seconds_left": 3})
    );
    assert_eq!(
        (&problem["tasks"][0]["lag"], &problem["tasks"][1]["lag"]),
        (&json!(2), &Value::Null),
        "what is not known is no zero"
    );
    assert_eq!(problem["detail"], "tasks not running: 1_0");
    assert_eq!(waiting.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn only_a_task_in_quarantine_can_be_let_try_again() {
    let api = Api::new();
    let retry = |task: &str| Request::post(format!("/v1/cluster/tasks/{task}/retry")).body(Body::empty()).unwrap();
    assert_eq!(api.send(retry("1_1")).await.status, 202);
    let detail = api.send(retry("0_0")).await.problem(404, "not-found")["detail"].to_string();
    assert!(detail.contains("0_0") && detail.contains("/v1/cluster"), "{detail}");
}

#[tokio::test]
async fn what_keeps_clicks_from_being_stored_is_told_and_makes_no_instance_unready() {
    assert_eq!(Api::new().get("/readyz").await.json(200)["intake_trouble"], Value::Null);
    let faults = |not_ready| Faults { not_ready, intake_trouble: Some("NOT_ENOUGH_REPLICAS".to_owned()), ..Faults::default() };
    let ready = Api::failing(faults(false)).get("/readyz").await.json(200);
    assert_eq!((&ready["ready"], &ready["intake_trouble"]), (&json!(true), &json!("NOT_ENOUGH_REPLICAS")));
    let waiting = Api::failing(faults(true)).get("/readyz").await.problem(503, "not-ready");
    assert_eq!(waiting["intake_trouble"], "NOT_ENOUGH_REPLICAS");
}

#[tokio::test]
async fn metrics_count_requests_by_route() {
    let api = Api::new();
    api.post("application/json", r#"[{"ad_id":"a"},{"ad_id":""}]"#).await.json(202);
    api.get("/v1/ads/secret/clicks").await.json(200);
    api.get("/nowhere").await;
    // Probes and scrapers may add parameters of their own.
    let reply = api.get("/metrics?instance=1").await;
    assert_eq!(reply.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let text = String::from_utf8(reply.body).unwrap();
    for line in [
        "clickmill_clicks_accepted_total 1",
        "clickmill_clicks_rejected_total{reason=\"ad_id_empty\"} 1",
        "clickmill_http_request_duration_seconds_count{route=\"/v1/ads/{ad_id}/clicks\",method=\"GET\",status=\"200\"} 1",
        "clickmill_http_request_duration_seconds_count{route=\"unknown\",method=\"GET\",status=\"404\"} 1",
        "clickmill_http_requests_in_flight 1",
    ] {
        assert!(text.lines().any(|written| written == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("secret") && !text.contains("# EOF"));
}

#[tokio::test]
async fn open_metrics_is_for_those_who_ask_for_it() {
    let api = Api::new();
    let prometheus = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    for (accept, starts_with) in
        [(prometheus, "application/openmetrics-text; version=1.0.0"), ("*/*", "text/plain; version=0.0.4")]
    {
        let reply = api.send(Request::get("/metrics").header("accept", accept).body(Body::empty()).unwrap()).await;
        assert!(reply.header("content-type").starts_with(starts_with), "{accept}: {:?}", reply.headers);
        assert_eq!(reply.body.ends_with(b"# EOF\n"), accept == prometheus);
    }
}

#[tokio::test]
async fn the_api_describes_itself() {
    let api = Api::new();
    let description = api.get("/openapi.json").await.json(200);
    assert!(description["openapi"].as_str().unwrap().starts_with("3.1"));
    let paths: Vec<&String> = description["paths"].as_object().unwrap().keys().collect();
    let expected = [
        "/healthz",
        "/metrics",
        "/readyz",
        "/v1/ads/top",
        "/v1/ads/{ad_id}/clicks",
        "/v1/clicks",
        "/v1/cluster",
        "/v1/cluster/tasks/{task}/retry",
    ];
    assert_eq!(paths.len(), expected.len(), "{paths:?}");
    assert!(expected.iter().all(|path| paths.iter().any(|known| known == path)), "{paths:?}");
    assert!(description["paths"]["/v1/clicks"]["post"]["responses"]["422"].is_object());
    let schemas: Vec<&str> = description["components"]["schemas"].as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "AdClicks",
        "Click",
        "Clicks",
        "ClicksIn",
        "Cluster",
        "Completeness",
        "EventTime",
        "Instance",
        "IntakeAnswer",
        "Problem",
        "Quarantined",
        "RankedAd",
        "Readiness",
        "Rejected",
        "RestoreProgress",
        "Stale",
        "TaskStatus",
        "Time",
        "TopAds",
        "Window",
    ];
    assert_eq!(schemas, expected);
    for (name, response) in responses(&description) {
        assert!(response["description"].as_str().is_some_and(|text| !text.is_empty()), "{name}: {response}");
        if name.ends_with(" 503") {
            assert!(response["headers"]["Retry-After"]["schema"].is_object(), "{name}: {response}");
        }
    }
    assert!(description["components"]["schemas"]["Problem"]["properties"]["earliest"].is_object());
    for reference in references(&description) {
        assert!(description.pointer(&reference[1..]).is_some(), "{reference} leads nowhere");
    }
}

/// Every response in a description, with its path, method and status.
fn responses(description: &Value) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    for (path, methods) in description["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let responses = operation["responses"].as_object().unwrap().iter();
            found.extend(responses.map(|(status, response)| (format!("{method} {path} {status}"), response)));
        }
    }
    assert!(found.len() > 15, "{found:?}");
    found
}

/// Every `$ref` in a description.
fn references(value: &Value) -> Vec<String> {
    match value {
        Value::Object(fields) => {
            let own = fields.get("$ref").and_then(Value::as_str).map(str::to_owned);
            own.into_iter().chain(fields.values().flat_map(references)).collect()
        }
        Value::Array(elements) => elements.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}

#[tokio::test]
async fn the_pages_are_there_and_need_no_other_host() {
    let api = Api::new();
    let page = api.get("/").await;
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").starts_with("text/html"));
    assert!(!String::from_utf8(page.body).unwrap().contains("http"));
    assert_eq!(api.get("/docs").await.header("location"), "/docs/");
    let docs = api.get("/docs/").await;
    assert_eq!(docs.status, 200);
    assert!(!String::from_utf8(docs.body).unwrap().contains("https://"));
    assert_eq!(api.get("/docs/swagger-ui-bundle.js").await.status, 200);
}

#[tokio::test]
async fn a_panic_is_a_problem_and_nothing_more() {
    let api = Api::failing(Faults { panics: true, ..Faults::default() });
    api.get("/v1/clicks").await.problem(500, "internal");
    assert_eq!(api.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn too_many_and_too_long_requests_are_turned_away() {
    let (release, blocked) = mpsc::channel();
    let faults = Faults { blocks: Some(Mutex::new(blocked)), ..Faults::default() };
    let limits = HttpOptions { max_concurrent_requests: 1, request_timeout: Duration::from_millis(300), ..options() };
    let api = Api::with(FakeMill::failing(faults), limits);
    // The first is polled first, so that it has the permit when the second asks for it.
    let (first, second) = tokio::join!(api.get("/v1/clicks"), async {
        let second = api.get("/v1/clicks").await;
        assert_eq!(api.get("/healthz").await.status, 200);
        second
    });
    second.problem(503, "overloaded");
    assert_eq!(second.header("retry-after"), "1");
    first.problem(503, "timed-out");
    drop(release);
    api.get("/v1/clicks").await.json(200);
}
