mod fake;
mod intake;
mod properties;
mod queries;
mod reference;
mod service;

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

use super::*;
use fake::{FakeMill, Faults, Idle, decoder};

/// An API and the mill behind it.
struct Api {
    mill: Arc<FakeMill>,
    router: Router,
}

/// An answer, read to its end.
struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

fn options() -> HttpOptions {
    HttpOptions {
        max_body: 64 << 10,
        intake_bytes: 256 << 10,
        max_concurrent_requests: 64,
        request_timeout: Duration::from_secs(60),
        max_query_period: Duration::from_secs(31 * 86_400),
        failover_wait: Duration::from_millis(300),
        ready_wait: Duration::from_secs(60),
    }
}

impl Api {
    fn new() -> Self {
        Self::with(FakeMill::default(), options())
    }

    fn failing(faults: Faults) -> Self {
        Self::with(FakeMill::failing(faults), options())
    }

    fn with(mill: FakeMill, options: HttpOptions) -> Self {
        let mill = Arc::new(mill);
        let router = router(mill.clone(), None, decoder(), Arc::new(Metrics::new(Arc::new(Idle))), options);
        Self { mill, router }
    }

    async fn send(&self, request: Request<Body>) -> Reply {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        Reply { status: parts.status, headers: parts.headers, body: body.collect().await.unwrap().to_bytes().to_vec() }
    }

    async fn get(&self, uri: &str) -> Reply {
        self.send(Request::get(uri).body(Body::empty()).unwrap()).await
    }

    async fn post(&self, content_type: &str, body: impl Into<Body>) -> Reply {
        self.send(Request::post("/v1/clicks").header("content-type", content_type).body(body.into()).unwrap()).await
    }

    async fn post_with_key(&self, key: &[u8], body: &'static str) -> Reply {
        let request = Request::post("/v1/clicks").header("content-type", "application/json").header("idempotency-key", key);
        self.send(request.body(body.into()).unwrap()).await
    }
}

impl Reply {
    #[track_caller]
    fn json(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", String::from_utf8_lossy(&self.body));
        assert_eq!(self.header("content-type"), "application/json");
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The problem that this is. It must agree with the status.
    #[track_caller]
    fn problem(&self, status: u16, kind: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", String::from_utf8_lossy(&self.body));
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem: Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem["type"], format!("/problems/{kind}"), "{problem}");
        assert_eq!(problem["status"], status);
        assert!(problem["title"].is_string() && problem["detail"].is_string());
        problem
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}
