//! The instances of an application among each other: what each tells the others of itself, and what it asks them. The protocol is gRPC, its schema
//! `proto/clickmill/peer/v1/peer.proto`.
//!
//! An instance follows every other one of its group over a connection of its own (`link`), and so hears its status every 200 ms and the end of its
//! process at once. What it has heard is kept in one place (`table`). It answers others from its own stores alone (`server`), so that no question
//! takes more than one step between instances.

mod convert;
mod link;
mod secret;
mod server;
mod table;
#[cfg(test)]
pub(crate) mod tests;

/// The messages, and both ends of the service, as they are generated from the schema.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
mod proto {
    tonic::include_proto!("clickmill.peer.v1");
}

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use millstream::broker::group::Directory;
use millstream::query::{Ask, Holders, InstanceStatus, Parts, Question};
use millstream::record::Topic;
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::task::{JoinHandle, JoinSet};

pub use link::living;
pub use secret::PeerSecret;
pub use table::{Heard, LinkChange, LinkEvent, Words};

use crate::http::Mill;
use table::Table;

/// The version of the protocol, in the metadata of each request. Within one, fields are added only.
pub const PROTOCOL_VERSION: u32 = 1;

/// The largest message that is taken: the windows of a long period, or the status of many tasks.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// How often an instance tells its status.
pub const STATUS_INTERVAL: Duration = Duration::from_millis(200);

/// After so long without a word an instance counts as silent.
pub const SILENT_AFTER: Duration = Duration::from_secs(1);

/// An instance that has been silent for that long is not waited for any longer.
const LOST_AFTER: Duration = Duration::from_secs(3);

/// How often is looked whether the group has other instances.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// What is waited for an answer, of which nothing is known yet, before it is asked for a second time.
const FIRST_HEDGE: Duration = Duration::from_millis(50);
const FIRST_HEDGE_TOP: Duration = Duration::from_millis(500);
const SHORTEST_HEDGE: Duration = Duration::from_millis(10);

/// Who an instance is among the others.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The application. Instances of others are refused.
    pub application_id: String,
    /// Its name, the same after a restart.
    pub instance: Arc<str>,
    /// What every request has to bring, if anything.
    pub secret: Option<PeerSecret>,
}

/// Why another instance has not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// There is no connection to it now.
    #[error("instance {0} cannot be reached")]
    Unreachable(Arc<str>),
    /// It has not said a word for long.
    #[error("instance {0} is silent")]
    Silent(Arc<str>),
    /// It refused, or could not read its state, or the connection broke.
    #[error("instance {0} did not answer: {1}")]
    Failed(Arc<str>, String),
}

/// The other instances, as this one knows them. Ends with the last clone of its handle.
pub struct Peers {
    identity: Identity,
    table: Arc<Table>,
    holders: Mutex<Option<Known>>,
    tasks: Vec<JoinHandle<()>>,
}

/// What follows from a directory and what was heard up to some moment.
struct Known {
    directory: Arc<Directory>,
    heard: u64,
    holders: Arc<Holders>,
}

impl Peers {
    /// Serves others on that socket, and follows those that the group of the mill has. Must be called within a runtime.
    pub fn start(identity: Identity, listener: TcpListener, mill: Arc<dyn Mill>) -> Arc<Self> {
        let table = Arc::new(Table::new());
        let serving = tokio::spawn(server::serve(identity.clone(), listener, mill.clone()));
        let following = tokio::spawn(follow_all(identity.clone(), mill, table.clone()));
        Arc::new(Self { identity, table, holders: Mutex::default(), tasks: vec![serving, following] })
    }

    /// This instance.
    pub fn me(&self) -> &Arc<str> {
        &self.identity.instance
    }

    /// What was heard of the others, and when.
    pub fn heard(&self) -> BTreeMap<Arc<str>, Heard> {
        self.table.heard()
    }

    /// What the others have said last, from now on.
    pub fn words(&self) -> Words {
        Words(self.table.clone())
    }

    /// What becomes of the connections to the others, from now on. Who is slow to look misses the oldest.
    pub fn events(&self) -> broadcast::Receiver<LinkEvent> {
        self.table.events()
    }

    /// Who can answer for which partition of a store, the tasks of which read that topic. `own` tells what this instance has.
    pub fn holders(&self, input: &Topic, directory: &Arc<Directory>, own: impl FnOnce() -> InstanceStatus) -> Arc<Holders> {
        let heard = self.table.version();
        let is_moving = !directory.assignment.moving.is_empty();
        let mut known = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*known
            && known.heard == heard
            && Arc::ptr_eq(&known.directory, directory)
            && !is_moving
        {
            return known.holders.clone();
        }
        let all = self.table.heard();
        let own = is_moving.then(own);
        let statuses: Vec<&InstanceStatus> = all.values().filter_map(|heard| heard.status.as_ref()).chain(&own).collect();
        let holders = Arc::new(Holders::new(input, directory, statuses));
        *known = Some(Known { directory: directory.clone(), heard, holders: holders.clone() });
        holders
    }

    /// How long an answer of an instance to such a question usually takes at most: 19 of 20 came sooner.
    pub fn hedge_after(&self, instance: &str, question: &Question) -> Duration {
        let is_top = matches!(question, Question::Top { .. });
        let first = if is_top { FIRST_HEDGE_TOP } else { FIRST_HEDGE };
        self.table.usual_time(instance, is_top).map_or(first, |usual| usual.max(SHORTEST_HEDGE))
    }

    /// Asks another instance. Dropping the future ends the work there too.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub async fn ask(&self, instance: &Arc<str>, ask: &Ask) -> Result<Parts, PeerError> {
        let channel = self.table.channel(instance).ok_or_else(|| PeerError::Unreachable(instance.clone()))?;
        let began = Instant::now();
        let mut client = link::client(channel, &self.identity);
        let request = convert::ask_request(&self.identity.application_id, instance, ask);
        let answer = tokio::select! {
            answer = client.ask(request) => answer,
            () = self.table.lost(instance, LOST_AFTER) => return Err(PeerError::Silent(instance.clone())),
        };
        let failed = |reason: String| PeerError::Failed(instance.clone(), reason);
        let answer = answer.map_err(|status| failed(status.message().to_owned()))?;
        self.table.took(instance, matches!(ask.question, Question::Top { .. }), began.elapsed());
        convert::parts(answer.into_inner()).ok_or_else(|| failed("its answer cannot be understood".to_owned()))
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Keeps a link to every other instance of the group that says where it can be reached.
async fn follow_all(identity: Identity, mill: Arc<dyn Mill>, table: Arc<Table>) {
    let mut links: BTreeMap<(Arc<str>, Arc<str>), tokio::task::AbortHandle> = BTreeMap::new();
    let mut running = JoinSet::new();
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    let mut seen: Option<Arc<Directory>> = None;
    loop {
        looks.tick().await;
        let directory = mill.directory();
        if seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, &directory)) {
            continue;
        }
        let others = directory.instances.iter().filter(|(instance, _)| **instance != identity.instance);
        let wanted: Vec<_> = others.filter_map(|(instance, info)| Some((instance.clone(), info.endpoint.clone()?))).collect();
        links.retain(|link, task| {
            let is_wanted = wanted.contains(link);
            if !is_wanted {
                task.abort();
                table.forget(&link.0);
            }
            is_wanted
        });
        for (instance, endpoint) in wanted {
            let (identity, table) = (identity.clone(), table.clone());
            links.entry((instance.clone(), endpoint.clone())).or_insert_with(|| {
                table.expect(&instance, &endpoint);
                running.spawn(link::follow(identity, instance, endpoint, table))
            });
        }
        while running.try_join_next().is_some() {}
        seen = Some(directory);
    }
}
