//! The page at `/`: the top ten, the total, and the instances where there are several, live.

use axum::http::{HeaderName, header};
use axum::response::{Html, IntoResponse};

/// The page has its style and script within itself and talks to its own host only.
const SECURITY_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; frame-ancestors 'none'";

pub(super) async fn get_page() -> impl IntoResponse {
    const HEADERS: [(HeaderName, &str); 2] =
        [(header::CONTENT_SECURITY_POLICY, SECURITY_POLICY), (header::CACHE_CONTROL, "no-cache")];
    (HEADERS, Html(include_str!("page.html")))
}
