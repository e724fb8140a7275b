//! What keeps one instance within its means: requests at once, bodies in memory, threads that block, time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use millstream::query::Cancellation;

use super::problem::{Problem, ProblemKind};
use super::{HttpOptions, IDEMPOTENCY_KEY, Service};

/// How many requests may be appending at once. They share the syncs of the log, so that many are good.
const APPENDS_AT_ONCE: usize = 128;

/// Which part of its time a request waits for its turn at most: with the rest the brokers can still answer for each click.
const WAIT_SHARE: u32 = 3;

/// How many requests may rank ads at once: each may hold many of them in memory, and read every row of the period.
const RANKINGS_AT_ONCE: usize = 2;

/// The permits that are left.
#[derive(Debug)]
pub(super) struct Limits {
    requests: Semaphore,
    /// In KiB.
    bodies: Arc<Semaphore>,
    most_kib: u32,
    appends: Arc<Semaphore>,
    queries: Arc<Semaphore>,
    rankings: Arc<Semaphore>,
    operations: Arc<Semaphore>,
}

const NEVER_CLOSED: &str = "nobody closes the semaphore";

impl Limits {
    pub(super) fn new(options: &HttpOptions) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let most_kib = kib(options.intake_bytes.max(options.max_body));
        Self {
            requests: Semaphore::new(options.max_concurrent_requests),
            bodies: Arc::new(Semaphore::new(most_kib as usize)),
            most_kib,
            appends: Arc::new(Semaphore::new(APPENDS_AT_ONCE)),
            queries: Arc::new(Semaphore::new(cores * 4)),
            rankings: Arc::new(Semaphore::new(RANKINGS_AT_ONCE)),
            operations: Arc::new(Semaphore::new(2)),
        }
    }

    /// Waits until a body of that many bytes, at most the largest there may be, fits into memory; none where it does not by then.
    pub(super) async fn room_for_body(&self, bytes: usize, until: Instant) -> Option<OwnedSemaphorePermit> {
        granted(self.bodies.clone().acquire_many_owned(kib(bytes)), until).await
    }

    /// Lets the room of a body grow to so many bytes, for what is made of it. False where there is not enough now: waiting for more with
    /// a body in hand, requests could wait for each other.
    pub(super) fn grow(&self, room: &mut OwnedSemaphorePermit, bytes: usize) -> bool {
        let held = u32::try_from(room.num_permits()).unwrap_or(u32::MAX);
        let missing = kib(bytes).min(self.most_kib).saturating_sub(held);
        match self.bodies.clone().try_acquire_many_owned(missing) {
            Ok(more) => {
                room.merge(more);
                true
            }
            Err(_) => false,
        }
    }

    /// Waits for the turn to append, which is taken until the permit is dropped; none where it does not come by then.
    pub(super) async fn turn_to_append(&self, until: Instant) -> Option<OwnedSemaphorePermit> {
        granted(self.appends.clone().acquire_owned(), until).await
    }

    /// Runs work that blocks on the state.
    pub(super) async fn query<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
        run_blocking(&self.queries, work).await
    }

    /// Runs work that blocks on the state and may read much of it. What is quick does not wait for it, and it is cancelled when nobody
    /// waits for its end: the client is gone, or the request has timed out.
    pub(super) async fn ranking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Cancellation) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let waiting = CancelOnDrop::default();
        let cancellation = waiting.cancellation();
        run_blocking(&self.rankings, move || work(&cancellation)).await
    }

    /// Runs work for whoever watches over the instance, which waits for no query.
    pub(super) async fn operation<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
        run_blocking(&self.operations, work).await
    }
}

/// Cancels a query when nobody waits for its answer any more.
#[derive(Default)]
pub(crate) struct CancelOnDrop(Cancellation);

impl CancelOnDrop {
    /// What the query has to look at.
    pub(crate) fn cancellation(&self) -> Cancellation {
        self.0.clone()
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX >> 3).max(1)
}

/// What is acquired, at once or by then.
async fn granted(
    permit: impl Future<Output = Result<OwnedSemaphorePermit, AcquireError>>,
    until: Instant,
) -> Option<OwnedSemaphorePermit> {
    tokio::time::timeout_at(until.into(), permit).await.ok().map(|permit| permit.expect(NEVER_CLOSED))
}

/// Runs work on a thread where it may block, once a permit is free, which it keeps to its end, even where nobody waits any more.
async fn run_blocking<T: Send + 'static>(
    permits: &Arc<Semaphore>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    let permit = permits.clone().acquire_owned().await.expect(NEVER_CLOSED);
    let work = move || {
        let _permit = permit;
        work()
    };
    on_blocking_thread(work).await
}

/// Runs work on a thread where it may block.
pub(super) async fn on_blocking_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Problem::new(ProblemKind::Internal, error.to_string()))
}

/// The time of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    /// Until when it waits for its turn, where it has to.
    pub(super) turn_by: Instant,
    /// When its answer must begin.
    pub(super) answer_by: Instant,
}

impl Deadline {
    fn after(request_timeout: Duration) -> Self {
        let now = Instant::now();
        Self { turn_by: now + request_timeout / WAIT_SHARE, answer_by: now + request_timeout }
    }
}

/// Refuses requests beyond the number that may run at once, and ends those that take too long.
pub(super) async fn bound(State(service): State<Service>, mut request: Request, next: Next) -> Response {
    let options = service.options();
    request.extensions_mut().insert(Deadline::after(options.request_timeout));
    let may_be_repeated = may_be_repeated(&request);
    let Ok(_permit) = service.limits().requests.try_acquire() else {
        let detail = format!("{} requests are being worked on", options.max_concurrent_requests);
        return Problem::new(ProblemKind::Overloaded, detail).into_response();
    };
    match tokio::time::timeout(options.request_timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let detail = format!("no answer after {:?}; clicks that were sent may still be stored", options.request_timeout);
            Problem::new(ProblemKind::TimedOut, detail).repeatable(may_be_repeated).into_response()
        }
    }
}

/// Whether the same request can be sent again, whatever has become of it, and nothing is counted twice.
fn may_be_repeated(request: &Request) -> bool {
    request.method() != Method::POST || request.headers().contains_key(IDEMPOTENCY_KEY)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn limits() -> Limits {
        let second = Duration::from_secs(1);
        Limits::new(&HttpOptions {
            intake_bytes: 100 << 10,
            max_body: 40 << 10,
            max_concurrent_requests: 1,
            request_timeout: second,
            max_query_period: second,
            failover_wait: second,
            ready_wait: second,
        })
    }

    #[tokio::test]
    async fn a_ranking_nobody_waits_for_is_cancelled() {
        let (begun, has_begun) = mpsc::channel();
        let (ended, has_ended) = mpsc::channel();
        let limits = limits();
        let ranking = limits.ranking(move |cancellation: &Cancellation| {
            begun.send(()).unwrap();
            while !cancellation.is_cancelled() {
                std::thread::yield_now();
            }
            ended.send(()).unwrap();
        });
        assert!(tokio::time::timeout(Duration::from_millis(20), ranking).await.is_err(), "it would never end by itself");
        has_begun.recv().unwrap();
        has_ended.recv_timeout(Duration::from_secs(10)).expect("it is cancelled");
    }

    #[tokio::test]
    async fn the_room_of_a_body_grows_as_far_as_there_is_room() {
        let limits = limits();
        let soon = || Instant::now() + Duration::from_millis(10);
        let mut first = limits.room_for_body(40 << 10, soon()).await.expect("there is room");
        let mut second = limits.room_for_body(40 << 10, soon()).await.expect("there is room");
        assert!(limits.room_for_body(40 << 10, soon()).await.is_none(), "for a third there is none");
        assert!(limits.grow(&mut first, 10 << 10), "it has that much");
        assert!(limits.grow(&mut first, 60 << 10));
        assert!(!limits.grow(&mut second, 60 << 10), "the other has the rest");
        drop(first);
        assert!(limits.grow(&mut second, 1 << 30), "as much as there is at all");
        assert_eq!(second.num_permits(), 100);
    }
}
