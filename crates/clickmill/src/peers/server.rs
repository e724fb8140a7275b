//! What this instance tells others, and answers them.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use millstream::query::{Ask, Question};
use millstream_kafka::boot_time;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::Stream;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::proto::peers_server::{Peers, PeersServer};
use super::proto::{AskRequest, AskResponse, FollowRequest, InstanceStatus};
use super::secret::Check;
use super::{Identity, MAX_MESSAGE_BYTES, STATUS_INTERVAL, convert};
use crate::http::{CancelOnDrop, Mill};

/// The largest request: a key, and the numbers of many partitions.
const MAX_REQUEST_BYTES: usize = 1 << 20;

/// How many requests of one connection are worked on at once.
const REQUESTS_AT_ONCE: usize = 256;

/// How many questions for the top keys are worked on at once for others. (As many as for this instance's own clients.)
const RANKINGS_AT_ONCE: usize = 2;

/// How often is looked whether this instance has come to another generation.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Serves others until it is dropped.
pub(super) async fn serve(identity: Identity, listener: TcpListener, mill: Arc<dyn Mill>) {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let secret = identity.secret.clone();
    let (queries, rankings) = (Arc::new(Semaphore::new(cores * 4)), Arc::new(Semaphore::new(RANKINGS_AT_ONCE)));
    let service = PeersServer::new(Service { identity, mill, queries, rankings })
        .max_decoding_message_size(MAX_REQUEST_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let server = Server::builder()
        .concurrency_limit_per_connection(REQUESTS_AT_ONCE)
        .tcp_nodelay(true)
        .add_service(InterceptedService::new(service, Check(secret)));
    if let Err(error) = server.serve_with_incoming(TcpListenerStream::new(listener)).await {
        tracing::error!(%error, "other instances cannot reach this one any more");
    }
}

struct Service {
    identity: Identity,
    mill: Arc<dyn Mill>,
    queries: Arc<Semaphore>,
    rankings: Arc<Semaphore>,
}

impl Service {
    /// Whether the request is for this instance. An address may have been another's before.
    fn check(&self, application_id: &str, to_instance: &str) -> Result<(), Status> {
        let Identity { application_id: ours, instance, .. } = &self.identity;
        if application_id != ours || to_instance != &**instance {
            return Err(Status::permission_denied(format!(
                "this is instance {instance} of application {ours}, not {to_instance} of {application_id}"
            )));
        }
        Ok(())
    }

    async fn parts(&self, ask: Ask) -> Result<AskResponse, Status> {
        let permits = if matches!(ask.question, Question::Top { .. }) { &self.rankings } else { &self.queries };
        let permit = permits.clone().acquire_owned().await.map_err(|closed| Status::unavailable(closed.to_string()))?;
        // Ends the work where nobody waits for it any more.
        let waiting = CancelOnDrop::default();
        let (mill, cancellation) = (self.mill.clone(), waiting.cancellation());
        let work = move || {
            let _permit = permit;
            mill.queries().parts(&ask, &cancellation)
        };
        let parts = tokio::task::spawn_blocking(work).await.map_err(|error| Status::internal(error.to_string()))?;
        parts.map(convert::ask_response).map_err(|error| Status::unavailable(error.to_string()))
    }
}

type Words = Pin<Box<dyn Stream<Item = Result<InstanceStatus, Status>> + Send>>;

#[tonic::async_trait]
impl Peers for Service {
    type FollowStream = Words;

    async fn follow(&self, request: Request<FollowRequest>) -> Result<Response<Words>, Status> {
        let FollowRequest { application_id, from_instance, to_instance } = request.into_inner();
        self.check(&application_id, &to_instance)?;
        tracing::debug!(from_instance, "another instance follows this one");
        let (words, stream) = mpsc::channel(1);
        tokio::spawn(tell(self.mill.clone(), words));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn ask(&self, request: Request<AskRequest>) -> Result<Response<AskResponse>, Status> {
        let request = request.into_inner();
        self.check(&request.application_id, &request.to_instance)?;
        let ask = convert::ask(request).ok_or_else(|| Status::invalid_argument("the question cannot be understood"))?;
        Ok(Response::new(self.parts(ask).await?))
    }
}

/// Tells the status again and again, until nobody listens. Who is slow gets the newest when there is room.
async fn tell(mill: Arc<dyn Mill>, words: mpsc::Sender<Result<InstanceStatus, Status>>) {
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    let (mut told_at, mut generation) = (None::<tokio::time::Instant>, 0);
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            () = words.closed() => return,
        }
        let is_due = told_at.is_none_or(|at| at.elapsed() >= STATUS_INTERVAL);
        if !is_due && mill.directory().generation == generation {
            continue;
        }
        let Ok(room) = words.reserve().await else { return };
        let status = mill.status();
        (told_at, generation) = (Some(tokio::time::Instant::now()), status.generation);
        room.send(Ok(convert::status_message(status, boot_time())));
    }
}
