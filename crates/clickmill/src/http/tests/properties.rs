//! Whatever is sent, no endpoint panics or fails: random paths, queries, headers and bodies.

use proptest::prelude::*;

use super::*;

const PATHS: [&str; 10] = [
    "/",
    "/v1/clicks",
    "/v1/ads/top",
    "/v1/ads/ad-1/clicks",
    "/healthz",
    "/readyz",
    "/v1/cluster",
    "/metrics",
    "/openapi.json",
    "/docs/",
];

fn query() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        prop::sample::select(&["from", "to", "limit", "allow_partial", "allow_stale", "max_stale_records"][..])
            .prop_map(str::to_owned),
        "[a-z_%+]{0,8}",
    ];
    let value = prop_oneof![
        "-[0-9]{1,20}[smhd]",
        "-?[0-9]{1,20}",
        Just("now".to_owned()),
        Just("true".to_owned()),
        "20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](Z|\\+0[0-9]:00)",
        "[!-~&&[^#\"<>`{}]]{0,20}",
    ];
    prop::collection::vec((name, value), 0..4)
        .prop_map(|pairs| pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&"))
}

fn path() -> impl Strategy<Value = String> {
    let encoded =
        prop::collection::vec(any::<u8>(), 0..24).prop_map(|b| b.iter().map(|b| format!("%{b:02x}")).collect::<String>());
    prop_oneof![
        prop::sample::select(&PATHS[..]).prop_map(str::to_owned),
        encoded.prop_map(|ad| format!("/v1/ads/{ad}/clicks")),
        "(/[!-~&&[^#?\"<>`{}]]{0,12}){1,4}",
        "/v1/ads/[!-~&&[^#?\"<>`{}]]{0,12}/clicks",
    ]
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        "[\\[\\]{}\",:a-z0-9\\\\ \n-]{0,100}".prop_map(String::into_bytes),
        "(\\{\"ad_id\":\"[a-z]{0,3}\"(,\"timestamp\":-?[0-9]{0,15})?\\}\n?){0,5}".prop_map(String::into_bytes),
    ]
}

/// The answer is no failure, and an error is a problem.
fn check(reply: &Reply, described: &str) -> Result<(), TestCaseError> {
    prop_assert!(reply.status.as_u16() < 500, "{described}: {} {}", reply.status, String::from_utf8_lossy(&reply.body));
    if reply.status.is_client_error() && reply.status != StatusCode::UNPROCESSABLE_ENTITY {
        prop_assert_eq!(reply.header("content-type"), "application/problem+json", "{}", described);
        // The answer to HEAD has no body.
        prop_assert!(reply.body.is_empty() || serde_json::from_slice::<Value>(&reply.body).is_ok());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_path_and_query_is_answered(method in "GET|POST|PUT|HEAD|OPTIONS|[A-Z]{1,6}", path in path(), query in query(), body in body()) {
        let uri = format!("{path}?{query}");
        let Ok(request) = Request::builder().method(method.as_str()).uri(&uri).body(Body::from(body)) else { return Ok(()) };
        check(&block_on(Api::new().send(request)), &format!("{method} {uri}"))?;
    }

    #[test]
    fn any_body_is_answered(body in body(), content_type in "application/json|application/x-ndjson|[ -~]{0,20}", key in prop::option::of(prop::collection::vec(any::<u8>(), 0..140))) {
        let described = format!("{content_type}: {}", String::from_utf8_lossy(&body));
        let mut request = Request::post("/v1/clicks").header("content-type", content_type);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let Ok(request) = request.body(Body::from(body)) else { return Ok(()) };
        let api = Api::new();
        let reply = block_on(api.send(request));
        check(&reply, &described)?;
        let accepted = if reply.status.as_u16() == 202 { reply.json(202)["accepted"].as_u64().unwrap() } else { 0 };
        prop_assert_eq!(api.mill.records().len() as u64, accepted);
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}
