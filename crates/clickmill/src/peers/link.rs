//! The connection to one other instance: its status is followed over it, and questions go over it.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::proto::peers_client::PeersClient;
use super::proto::{FollowRequest, InstanceStatus};
use super::secret::Sign;
use super::table::{LinkChange, Table};
use super::{Identity, MAX_MESSAGE_BYTES, SILENT_AFTER, convert};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long is waited before an address that could not be reached is tried again.
const PAUSE: Duration = Duration::from_millis(50);

/// The same where somebody is there who refuses this instance.
const LONG_PAUSE: Duration = Duration::from_secs(1);

pub(super) type Client = PeersClient<InterceptedService<Channel, Sign>>;

/// A client that brings what every request needs.
pub(super) fn client(channel: Channel, identity: &Identity) -> Client {
    let client = PeersClient::with_interceptor(channel, Sign(identity.secret.clone()));
    client.max_decoding_message_size(MAX_MESSAGE_BYTES)
}

/// The life of the instance that answers at an address in this one's own name, if a process does so soon.
pub async fn living(identity: &Identity, address: &str) -> Option<u64> {
    let request = FollowRequest {
        application_id: identity.application_id.clone(),
        from_instance: identity.instance.to_string(),
        to_instance: identity.instance.to_string(),
    };
    let asked = async {
        let channel =
            Endpoint::from_shared(format!("http://{address}")).ok()?.connect_timeout(CONNECT_TIMEOUT).connect().await.ok()?;
        let mut words = client(channel, identity).follow(request).await.ok()?.into_inner();
        Some(words.message().await.ok()??.incarnation)
    };
    tokio::time::timeout(CONNECT_TIMEOUT, asked).await.ok()?
}

/// Follows an instance for ever, and tells the table what it says and what becomes of the connection.
pub(super) async fn follow(identity: Identity, instance: Arc<str>, address: Arc<str>, table: Arc<Table>) {
    loop {
        let change = follow_once(&identity, &instance, &address, &table).await;
        let pause = match &change {
            // A process that is gone is known to be at once: nobody listens any more.
            LinkChange::Closed | LinkChange::Reset => Duration::ZERO,
            LinkChange::Rejected(_) => LONG_PAUSE,
            _ => PAUSE,
        };
        table.changed(&instance, change);
        tokio::time::sleep(pause).await;
    }
}

/// Follows an instance until the connection has ended, and says how.
async fn follow_once(identity: &Identity, instance: &Arc<str>, address: &Arc<str>, table: &Table) -> LinkChange {
    let endpoint = match Endpoint::from_shared(format!("http://{address}")) {
        Ok(endpoint) => endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true),
        Err(error) => return LinkChange::Unreachable(error.to_string()),
    };
    let channel = match endpoint.connect().await {
        Ok(channel) => channel,
        Err(error) => return change_of_connect(&error),
    };
    let request = FollowRequest {
        application_id: identity.application_id.clone(),
        from_instance: identity.instance.to_string(),
        to_instance: instance.to_string(),
    };
    let mut client = client(channel.clone(), identity);
    let mut words = match tokio::time::timeout(CONNECT_TIMEOUT, client.follow(request)).await {
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(status)) => return change_of(&status),
        Err(_) => return LinkChange::Unreachable("it takes connections and does not answer".to_owned()),
    };
    let mut before = None;
    loop {
        match tokio::time::timeout(SILENT_AFTER, words.message()).await {
            Ok(Ok(Some(word))) => before = Some(hear(instance, word, before, &channel, table)),
            Ok(Ok(None)) => return LinkChange::Closed,
            Ok(Err(status)) => return change_of(&status),
            Err(_) => {
                table.changed(instance, LinkChange::Silent);
                before = None;
            }
        }
    }
}

/// A word has come; `before` is the incarnation that was heard before it on this connection, since it was last silent.
fn hear(instance: &Arc<str>, word: InstanceStatus, before: Option<u64>, channel: &Channel, table: &Table) -> u64 {
    let incarnation = word.incarnation;
    let said_at_ms = word.said_at_ms;
    table.said(instance, convert::status(word), said_at_ms, channel);
    if before != Some(incarnation) {
        table.changed(instance, LinkChange::Heard);
    }
    incarnation
}

fn change_of_connect(error: &tonic::transport::Error) -> LinkChange {
    match io_kind(error) {
        Some(io::ErrorKind::ConnectionRefused) => LinkChange::Refused,
        _ => LinkChange::Unreachable(with_sources(error)),
    }
}

fn change_of(status: &Status) -> LinkChange {
    match (status.code(), io_kind(status)) {
        (_, Some(io::ErrorKind::ConnectionReset)) => LinkChange::Reset,
        (_, Some(io::ErrorKind::ConnectionRefused)) => LinkChange::Refused,
        (Code::Unauthenticated | Code::FailedPrecondition | Code::Unimplemented | Code::PermissionDenied, _) => {
            LinkChange::Rejected(status.message().to_owned())
        }
        _ => LinkChange::Closed,
    }
}

/// The kind of the error of the system that it comes from, if it comes from one.
fn io_kind(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    let mut source = Some(error);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        source = error.source();
    }
    None
}

fn with_sources(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
