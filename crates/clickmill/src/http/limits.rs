//! What keeps one instance within its means: requests at once, bodies in memory, threads that block, time.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::{Problem, ProblemKind};
use super::{HttpOptions, Service};

/// How many requests may be appending at once. They share the syncs of the log, so that many are good.
const APPENDS_AT_ONCE: usize = 128;

/// The permits that are left.
#[derive(Debug)]
pub(super) struct Limits {
    requests: Semaphore,
    /// In KiB.
    bodies: Arc<Semaphore>,
    appends: Arc<Semaphore>,
    queries: Arc<Semaphore>,
    operations: Arc<Semaphore>,
}

const NEVER_CLOSED: &str = "nobody closes the semaphore";

impl Limits {
    pub(super) fn new(options: &HttpOptions) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            requests: Semaphore::new(options.max_concurrent_requests),
            bodies: Arc::new(Semaphore::new(kib(options.intake_bytes.max(options.max_body)) as usize)),
            appends: Arc::new(Semaphore::new(APPENDS_AT_ONCE)),
            queries: Arc::new(Semaphore::new(cores * 4)),
            operations: Arc::new(Semaphore::new(2)),
        }
    }

    /// Waits until a body of that many bytes, at most the largest there may be, fits into memory.
    pub(super) async fn room_for_body(&self, bytes: usize) -> OwnedSemaphorePermit {
        self.bodies.clone().acquire_many_owned(kib(bytes)).await.expect(NEVER_CLOSED)
    }

    /// Runs work that blocks on the log.
    pub(super) async fn intake<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
        run_blocking(&self.appends, work).await
    }

    /// Runs work that blocks on the state.
    pub(super) async fn query<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
        run_blocking(&self.queries, work).await
    }

    /// Runs work for whoever watches over the instance, which waits for no query.
    pub(super) async fn operation<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
        run_blocking(&self.operations, work).await
    }
}

fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX >> 3).max(1)
}

/// Runs work on a thread where it may block, once a permit is free. Work that has begun ends, even where nobody waits any more, and
/// keeps its permit so long.
async fn run_blocking<T: Send + 'static>(
    permits: &Arc<Semaphore>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    let permit = permits.clone().acquire_owned().await.expect(NEVER_CLOSED);
    let work = move || {
        let _permit = permit;
        work()
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| Problem::new(ProblemKind::Internal, error.to_string()))
}

/// Refuses requests beyond the number that may run at once, and ends those that take too long.
pub(super) async fn bound(State(service): State<Service>, request: Request, next: Next) -> Response {
    let options = service.options();
    let Ok(_permit) = service.limits().requests.try_acquire() else {
        let detail = format!("{} requests are being worked on", options.max_concurrent_requests);
        return Problem::new(ProblemKind::Overloaded, detail).into_response();
    };
    match tokio::time::timeout(options.request_timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let detail = format!("no answer after {:?}; clicks that were sent may still be stored", options.request_timeout);
            Problem::new(ProblemKind::TimedOut, detail).into_response()
        }
    }
}
