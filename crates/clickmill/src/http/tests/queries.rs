use millstream::partitioner::partition_for_key;
use millstream::record::Timestamp;
use millstream::store::StoreErrorKind;
use serde_json::json;

use super::*;
use fake::{NOW, WINDOW_MS};

/// Three clicks on `ad-1` in two windows, three on `ad-2` in one, one on each of two ads with awkward names.
async fn filled() -> Api {
    let api = Api::new();
    let open = NOW.0 - NOW.0 % WINDOW_MS;
    let clicks = json!([
        {"ad_id": "ad-1", "timestamp": open}, {"ad_id": "ad-1", "timestamp": open + 1}, {"ad_id": "ad-1", "timestamp": open - 2 * WINDOW_MS},
        {"ad_id": "ad-2", "timestamp": open}, {"ad_id": "ad-2", "timestamp": open}, {"ad_id": "ad-2", "timestamp": open},
        {"ad_id": "a/b ü?", "timestamp": open}, {"ad_id": "top", "timestamp": open},
    ]);
    api.post("application/json", clicks.to_string()).await.json(202);
    api
}

#[tokio::test]
async fn one_ad() {
    let api = filled().await;
    let expected = json!({
        "ad_id": "ad-1", "from": "2025-12-31T23:05:00.000Z", "to": "2026-01-01T00:10:00.000Z", "clicks": 3,
        "windows": [
            {"start": "2025-12-31T23:55:00.000Z", "end": "2026-01-01T00:00:00.000Z", "clicks": 1, "final": true},
            {"start": "2026-01-01T00:05:00.000Z", "end": "2026-01-01T00:10:00.000Z", "clicks": 2, "final": false},
        ],
        "completeness": {
            "complete": true, "partitions": 1, "answered": 1, "missing": [], "stale": [], "max_lag": 3, "lag_age_ms": 12,
            "stream_time": "2026-01-01T00:06:40.000Z", "final_until": "2026-01-01T00:00:00.000Z",
        },
    });
    assert_eq!(api.get("/v1/ads/ad-1/clicks").await.json(200), expected);
    assert_eq!(api.get("/v1/ads/a%2Fb%20%C3%BC%3F/clicks").await.json(200)["clicks"], 1);
    assert_eq!(api.get("/v1/ads/top/clicks").await.json(200)["clicks"], 1);
    let never_seen = api.get("/v1/ads/nobody/clicks").await.json(200);
    assert_eq!((&never_seen["clicks"], &never_seen["windows"]), (&json!(0), &json!([])));
    api.get("/v1/ads//clicks").await.problem(400, "invalid-parameter");
    api.get("/v1/ads/%ff/clicks").await.problem(400, "invalid-parameter");
    api.get(&format!("/v1/ads/{}/clicks", "x".repeat(257))).await.problem(400, "invalid-parameter");
}

#[tokio::test]
async fn the_top_and_the_total() {
    let api = filled().await;
    let top = api.get("/v1/ads/top?limit=3").await.json(200);
    let expected = json!([
        {"rank": 1, "ad_id": "ad-1", "clicks": 3}, {"rank": 2, "ad_id": "ad-2", "clicks": 3}, {"rank": 3, "ad_id": "a/b ü?", "clicks": 1},
    ]);
    assert_eq!(top["ads"], expected);
    assert_eq!(top["completeness"]["complete"], true);
    assert_eq!(api.get("/v1/ads/top").await.json(200)["ads"].as_array().unwrap().len(), 4);
    let total = api.get("/v1/clicks").await.json(200);
    assert_eq!((&total["clicks"], total["windows"].as_array().unwrap().len()), (&json!(8), 2));
    assert!(total.get("ad_id").is_none());
}

#[tokio::test]
async fn a_period_is_asked_for_in_many_ways_and_widened() {
    let api = Api::new();
    let widened = async |query: &str| {
        let answer = api.get(&format!("/v1/clicks?{query}")).await.json(200);
        (answer["from"].as_str().unwrap().to_owned(), answer["to"].as_str().unwrap().to_owned())
    };
    let period = |from: &str, to: &str| (format!("{from}:00.000Z"), format!("{to}:00.000Z"));
    // It is 00:06:40 on the first day of 2026.
    assert_eq!(widened("").await, period("2025-12-31T23:05", "2026-01-01T00:10"));
    assert_eq!(widened("from=-15m").await, period("2025-12-31T23:50", "2026-01-01T00:10"));
    assert_eq!(widened("from=-7d&to=-1h").await, period("2025-12-25T00:05", "2025-12-31T23:10"));
    assert_eq!(widened("to=2026-01-01T00:05:00Z").await, period("2025-12-31T23:05", "2026-01-01T00:05"));
    assert_eq!(widened("from=2026-01-01T00:02:00.5%2B00:00&to=now").await, period("2026-01-01T00:00", "2026-01-01T00:10"));
    assert_eq!(widened("from=2026-01-01T02:02:00+02:00&to=now").await, period("2026-01-01T00:00", "2026-01-01T00:10"));
    assert_eq!(widened("from=1767225600000&to=1767225600001").await, period("2026-01-01T00:00", "2026-01-01T00:05"));
    assert_eq!(widened("from=-20d&to=2026-01-02T00:00:00Z").await.1, "2026-01-02T00:00:00.000Z");
}

#[tokio::test]
async fn wrong_parameters_are_named() {
    let api = Api::new();
    let cases = [
        ("/v1/clicks?form=-1h", "form"),
        ("/v1/ads/top?from=-1h&limits=3", "limits"),
        ("/v1/ads/a/clicks?limit=3", "limit"),
        ("/v1/clicks?from=-1h&from=-2h", "from"),
        ("/v1/clicks?from=yesterday", "from"),
        ("/v1/clicks?to=", "to"),
        ("/v1/clicks?from=-1", "from"),
        ("/v1/clicks?to=99999999999999999", "to"),
        ("/v1/clicks?from=2026-01-01T00:00:00", "from"),
        ("/v1/clicks?from=now&to=now", "from"),
        ("/v1/clicks?from=now&to=-1h", "from"),
        ("/v1/ads/top?limit=0", "limit"),
        ("/v1/ads/top?limit=1001", "limit"),
        ("/v1/ads/top?limit=-1", "limit"),
        ("/v1/ads/top?limit=ten", "limit"),
        ("/v1/clicks?allow_partial=yes", "allow_partial"),
        ("/v1/clicks?max_stale_records=-1", "max_stale_records"),
        ("/v1/cluster?verbose=true", "verbose"),
    ];
    for (uri, name) in cases {
        let problem = api.get(uri).await.problem(400, "invalid-parameter");
        assert!(problem["detail"].as_str().unwrap().starts_with(&format!("{name}: ")), "{uri}: {problem}");
    }
    for (uri, detail) in [
        ("/v1/ads/top?limit=ten", "limit: \"ten\" is not a whole number"),
        ("/v1/ads/top?allow_stale=1", "allow_stale: \"1\" is not true or false"),
        ("/v1/clicks?to=now&to=now", "to: it comes more than once"),
        ("/v1/cluster?x=1", "x: there is no such parameter here; there are: none"),
        (
            "/v1/ads/a/clicks?x=1",
            "x: there is no such parameter here; there are: from, to, allow_partial, allow_stale, max_stale_records",
        ),
    ] {
        assert_eq!(api.get(uri).await.problem(400, "invalid-parameter")["detail"], detail);
    }
    let post = Request::post("/v1/clicks?key=1").header("content-type", "application/json").body("{}".into()).unwrap();
    api.send(post).await.problem(400, "invalid-parameter");
    api.get("/v1/ads/top?limit=1000").await.json(200);
    api.get("/v1/ads/top?limit=1").await.json(200);
}

#[tokio::test]
async fn a_period_that_is_too_early_says_what_is_not() {
    let earliest = Timestamp(NOW.0 - 1_800_000);
    let api = Api::failing(Faults { earliest: Some(earliest), ..Faults::default() });
    let problem = api.get("/v1/clicks").await.problem(400, "period-too-early");
    assert_eq!(problem["earliest"], "2025-12-31T23:36:40.000Z");
    api.get(&format!("/v1/clicks?from={}", earliest.0 - 1)).await.problem(400, "period-too-early");
    // Widening reaches before the earliest; what was asked for does not.
    assert_eq!(api.get(&format!("/v1/clicks?from={}", earliest.0)).await.json(200)["from"], "2025-12-31T23:35:00.000Z");
}

#[tokio::test]
async fn a_period_that_is_too_long_is_refused() {
    let api = Api::new();
    api.get("/v1/clicks?from=-31d").await.json(200);
    api.get("/v1/clicks?from=-32d").await.problem(400, "period-too-long");
}

#[tokio::test]
async fn an_incomplete_number_is_given_only_to_who_allows_it() {
    let api = Api::failing(Faults { missing: vec![1, 3], ..Faults::default() });
    let is_missing = |ad: &String| partition_for_key(ad.as_bytes(), fake::PARTITIONS).0 == 3;
    let ad = (0..).map(|number| format!("ad-{number}")).find(is_missing).unwrap();
    let (all, one) = (("/v1/clicks".to_owned(), "/v1/ads/top".to_owned()), format!("/v1/ads/{ad}/clicks"));
    for (uri, missing, answered) in [(all.0, json!([1, 3]), 2), (all.1, json!([1, 3]), 2), (one, json!([3]), 0)] {
        let reply = api.get(&uri).await;
        assert_eq!(reply.problem(503, "incomplete")["missing"], missing);
        assert_eq!(reply.header("retry-after"), "1");
        let answer = api.get(&format!("{uri}?allow_partial=true")).await.json(200);
        assert_eq!((&answer["completeness"]["complete"], &answer["completeness"]["answered"]), (&json!(false), &json!(answered)));
        assert_eq!(answer["completeness"]["missing"], missing);
        api.get(&format!("{uri}?allow_partial=false&allow_stale=true&max_stale_records=5")).await.problem(503, "incomplete");
    }
}

#[tokio::test]
async fn a_store_that_cannot_be_read_is_a_problem() {
    for (kind, status, name) in [
        (StoreErrorKind::Retry, 503, "store-unavailable"),
        (StoreErrorKind::Corrupt, 503, "store-unavailable"),
        (StoreErrorKind::Stop, 500, "internal"),
    ] {
        Api::failing(Faults { store: Some(kind), ..Faults::default() }).get("/v1/clicks").await.problem(status, name);
    }
}
