//! The broker that coordinates a group or a transactional id: found, connected to, and found again.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use kafka_protocol::messages::{FindCoordinatorRequest, MetadataRequest};
use kafka_protocol::protocol::{Request, StrBytes};
use rdkafka::error::RDKafkaErrorCode as Code;

use super::WireSettings;
use super::address::Address;
use super::connection::{Connection, Dial};
use super::stream::Abort;
use super::tls::Tls;
use crate::config::{ConfigError, KafkaConfig};
use crate::connection::Connection as Contact;
use crate::context::lock;
use crate::error::is_handshake;
use crate::ffi::Failure;

/// How long a broker may take to be connected to, and to say who the coordinator is. One that hangs takes connections and says nothing, and the others
/// take a few seconds to choose another coordinator.
pub(super) const FIRST_PATIENCE: Duration = Duration::from_millis(1500);

/// Where all are slow, so many attempts have twice the time of as many before, up to `socket.connection.setup.timeout.ms`.
const ATTEMPTS: u32 = 3;

/// What connecting to any broker of the cluster needs, and which brokers there are.
pub(crate) struct Cluster {
    pub(crate) settings: WireSettings,
    tls: Option<Tls>,
    pub(crate) client_id: String,
    contact: Arc<Contact>,
    /// Whom to ask for a coordinator, in this order. Those of the configuration are always among them.
    brokers: Mutex<Vec<Address>>,
}

/// What a broker coordinates.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CoordinatorOf {
    Group(String),
    Transactions(String),
}

impl Cluster {
    /// # Errors
    /// In words that name the property: a file cannot be read, or used.
    pub(crate) fn new(config: &KafkaConfig, client_id: &str) -> Result<Self, ConfigError> {
        let settings = config.wire_settings()?;
        let tls = settings.tls.as_ref().map(|tls| tls.load()).transpose();
        let tls = tls.map_err(|reason| ConfigError::Unsupported { key: "security.protocol".to_owned(), reason })?;
        let brokers = Mutex::new(settings.servers.clone());
        Ok(Self { settings, tls, client_id: client_id.to_owned(), contact: config.connection(), brokers })
    }

    /// A failure as it is told: whether it is one before any broker has answered decides what is to be done.
    pub(crate) fn told(&self, failure: Failure) -> Failure {
        Failure { before_contact: !self.contact.was_reached(), ..failure }
    }

    /// A broker has answered.
    pub(super) fn answered(&self) {
        self.contact.answered();
    }

    pub(super) fn connect(&self, address: &Address, abort: &Abort, within: Duration) -> Result<Connection, Failure> {
        let dial = Dial { settings: &self.settings, tls: self.tls.as_ref(), client_id: &self.client_id, abort };
        let connected = Connection::open(&dial, address, within);
        if let Err(failure) = &connected
            && is_handshake(failure.code)
        {
            self.contact.handshake_failed(failure.clone());
        }
        connected
    }

    /// Asks one broker after the other. The connection is to the one that has answered.
    pub(super) fn find(&self, what: &CoordinatorOf, abort: &Abort, patience: Duration) -> Result<(Address, Connection), Failure> {
        let brokers = lock(&self.brokers).clone();
        let mut failure = Failure::new(Code::AllBrokersDown, "no broker is known");
        for broker in brokers {
            match self.ask(&broker, what, abort, patience) {
                Ok(found) => return Ok(found),
                Err(reason) => failure = reason,
            }
            self.ask_last(&broker);
        }
        Err(failure)
    }

    /// A broker that did not answer is the last to be asked the next time.
    pub(super) fn ask_last(&self, broker: &Address) {
        lock(&self.brokers).sort_by_key(|known| known == broker);
    }

    fn ask(
        &self,
        broker: &Address,
        what: &CoordinatorOf,
        abort: &Abort,
        patience: Duration,
    ) -> Result<(Address, Connection), Failure> {
        let mut connection = self.connect(broker, abort, patience)?;
        let answer = coordinator_of(&mut connection, what, patience)?;
        self.answered();
        self.learn_brokers(&mut connection, patience);
        Ok((answer?, connection))
    }

    /// The brokers there are now. What is known stays where that cannot be told.
    fn learn_brokers(&self, connection: &mut Connection, patience: Duration) {
        // No topic, and nothing created.
        let request = MetadataRequest::default().with_topics(Some(Vec::new())).with_allow_auto_topic_creation(false);
        let Ok(answer) = connection.call(&request, patience) else { return };
        let address = |host: &StrBytes, port: i32| Some(Address { host: host.to_string(), port: u16::try_from(port).ok()? });
        let found: Vec<_> = answer.brokers.iter().filter_map(|broker| address(&broker.host, broker.port)).collect();
        let mut known = lock(&self.brokers);
        let is_configured = |broker: &Address| self.settings.servers.contains(broker);
        known.retain(|broker| is_configured(broker) || found.contains(broker));
        let new: Vec<_> = found.into_iter().filter(|broker| !known.contains(broker)).collect();
        known.extend(new);
    }
}

/// What a broker says of who coordinates it. The outer error is that of the connection, which is of no use any more.
pub(super) fn coordinator_of(
    connection: &mut Connection,
    what: &CoordinatorOf,
    patience: Duration,
) -> Result<Result<Address, Failure>, Failure> {
    let answer = connection.call(&what.request(), patience)?;
    let said = answer.error_message.filter(|said| !said.is_empty() && **said != *"NONE");
    let checked = Failure::check_with(answer.error_code.into(), || said.map_or_else(String::new, |said| said.to_string()));
    Ok(checked.map(|()| Address { host: answer.host.to_string(), port: u16::try_from(answer.port).unwrap_or_default() }))
}

impl CoordinatorOf {
    fn request(&self) -> FindCoordinatorRequest {
        let (key, key_type) = match self {
            Self::Group(group) => (group, 0),
            Self::Transactions(id) => (id, 1),
        };
        FindCoordinatorRequest::default().with_key(StrBytes::from_string(key.clone())).with_key_type(key_type)
    }
}

/// A line to a coordinator. One request at a time; whoever needs more has more lines.
pub(crate) struct CoordinatorLine {
    cluster: Arc<Cluster>,
    what: CoordinatorOf,
    abort: Arc<Abort>,
    connection: Option<Connection>,
    /// Attempts to connect that were not answered in time, since one was.
    timeouts: u32,
}

impl CoordinatorLine {
    pub(crate) fn new(cluster: Arc<Cluster>, what: CoordinatorOf, abort: Arc<Abort>) -> Self {
        Self { cluster, what, abort, connection: None, timeouts: 0 }
    }

    /// Sends a request to the coordinator and waits for its answer, for at most so long once it is found and connected to. After a failure the
    /// coordinator is looked for again; the request may have been received.
    pub(crate) fn call<R: Request>(&mut self, request: &R, within: Duration) -> Result<R::Response, Failure> {
        let answer = self.connected()?.call(request, within);
        match &answer {
            Ok(_) => self.cluster.answered(),
            Err(_) => {
                if let Some(connection) = &self.connection {
                    self.cluster.ask_last(connection.address());
                }
                self.forget();
            }
        }
        answer
    }

    /// Connects, if there is no connection. What the next request waits for is then its answer alone.
    pub(crate) fn connect(&mut self) -> Result<(), Failure> {
        self.connected().map(drop)
    }

    fn connected(&mut self) -> Result<&mut Connection, Failure> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.find().inspect_err(|failure| {
                if failure.code == Code::OperationTimedOut {
                    self.timeouts += 1;
                }
            })?,
        };
        self.timeouts = 0;
        Ok(self.connection.insert(connection))
    }

    fn find(&mut self) -> Result<Connection, Failure> {
        let doublings = (self.timeouts / ATTEMPTS).min(10);
        let patience = (FIRST_PATIENCE * (1 << doublings)).min(self.cluster.settings.setup_timeout);
        let (coordinator, connection) = self.cluster.find(&self.what, &self.abort, patience)?;
        if *connection.address() == coordinator {
            return Ok(connection);
        }
        let connected = self.cluster.connect(&coordinator, &self.abort, patience);
        connected.inspect_err(|_| self.cluster.ask_last(&coordinator))
    }

    /// The coordinator is another one now: it is looked for before the next request.
    pub(crate) fn forget(&mut self) {
        self.connection = None;
        // It keeps the socket open otherwise.
        self.abort.cut();
    }
}
