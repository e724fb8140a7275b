//! A member of a group, as the group's coordinator knows it, without librdkafka: who decides what members hold is up to the caller.

mod clash;
mod describe;
mod encoding;
mod heartbeats;
mod joining;
mod requests;
mod state;
#[cfg(test)]
mod tests;

pub use describe::{DescribedGroup, DescribedMember, describe_group};

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use millstream::broker::group::{Answer, Confirmation, Coordinator, JoinRequest, MemberAssignment};
use millstream::broker::{BrokerError, ErrorKind};

use self::state::{Lane, State};
use crate::config::KafkaConfig;
use crate::context::lock;
use crate::error::broker_error;
use crate::ffi::Failure;
use crate::transactions::KafkaTransactions;
use crate::wire::{Abort, Cluster, CoordinatorLine, CoordinatorOf};

/// The name of what our members agree on. Members of any other kind do not share a group with ours.
const PROTOCOL: &str = "millstream";

/// What Kafka's own consumers are, so that its tools show the group.
const PROTOCOL_TYPE: &str = "consumer";

/// The first pause before a request is sent again, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// A failure that comes sooner may have been of a connection that was idle.
const SOON: Duration = Duration::from_secs(1);

/// So long after the coordinator has moved, or could not be reached, others may not have found it again.
const SETTLED_AFTER: Duration = Duration::from_secs(5);

/// How long the transactions of producers that are gone are tried to be ended, while their tasks wait.
const END_WITHIN: Duration = Duration::from_secs(3);

/// How long it is waited for the coordinator when this member leaves, and for a removal that was asked for when it is dropped.
const LAST_WORD: Duration = Duration::from_secs(2);

/// How long threads are waited for when the member is dropped. One that waits for a name service or for a connection ends later, by itself.
const FAREWELL: Duration = Duration::from_secs(1);

/// A member's line to the coordinator of its group on Kafka.
///
/// It has two connections, each with a thread. JoinGroup and SyncGroup are held back by the broker until other members have done the same, and
/// requests on one connection are answered in order: heartbeats and LeaveGroup have the other one.
///
/// Members are dynamic ones: an instance that starts again goes on under the id that it had, which the caller keeps.
///
/// Dropping it closes the connections and leaves the group as it is, so that the member can be resumed under its id. What
/// [`Coordinator::remove`] was asked for before is still sent, for two seconds at most.
pub struct KafkaCoordinator {
    config: KafkaConfig,
    group: Arc<Group>,
    threads: Vec<JoinHandle<()>>,
}

/// What the caller and both threads share.
struct Group {
    name: String,
    cluster: Arc<Cluster>,
    rebalance_timeout: Duration,
    state: Mutex<State>,
    /// The state is another.
    changed: Condvar,
    joining: Arc<Abort>,
    heartbeats: Arc<Abort>,
}

impl KafkaCoordinator {
    /// A line to the coordinator of this group. Nothing is sent before something is asked for.
    ///
    /// `client_id` is what the member id begins with, and what Kafka's tools show. `rebalance_timeout` is how long the coordinator waits for this
    /// member to join again when it gathers all members: one that is later is dropped. The group waits for the longest that any of its members
    /// asks for. `session.timeout.ms` and `heartbeat.interval.ms` are those of the configuration, by default 10 s and 1 s.
    ///
    /// # Errors
    /// [`ErrorKind::Stop`]: a property asks for what only librdkafka can do, or names a file that cannot be used.
    pub fn new(config: &KafkaConfig, group: &str, client_id: &str, rebalance_timeout: Duration) -> Result<Self, BrokerError> {
        let cluster = Cluster::new(config, client_id).map_err(|error| BrokerError::new(ErrorKind::Stop, error.to_string()))?;
        let group = Arc::new(Group {
            name: group.to_owned(),
            cluster: Arc::new(cluster),
            rebalance_timeout,
            state: Mutex::default(),
            changed: Condvar::new(),
            joining: Arc::default(),
            heartbeats: Arc::default(),
        });
        let mut this = Self { config: config.clone(), group: group.clone(), threads: Vec::new() };
        this.start("group-join", joining::run)?;
        this.start("group-heartbeat", heartbeats::run)?;
        Ok(this)
    }

    fn start(&mut self, name: &str, run: fn(&Group)) -> Result<(), BrokerError> {
        let group = self.group.clone();
        group.state().running += 1;
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let ended = Ended(&group);
            run(ended.0);
        });
        let thread = thread.map_err(|error| {
            self.group.state().running -= 1;
            BrokerError::new(ErrorKind::Retry, format!("a thread for group {} could not be started: {error}", self.group.name))
        })?;
        self.threads.push(thread);
        Ok(())
    }
}

/// Says that a thread has ended, however it has.
struct Ended<'a>(&'a Group);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.state().running -= 1;
        self.0.changed.notify_all();
    }
}

impl Coordinator for KafkaCoordinator {
    fn join(&mut self, request: JoinRequest) -> Result<(), BrokerError> {
        let metadata = encoding::subscription(&request.metadata).map_err(|reason| self.group.unwritable(&reason))?;
        self.group.ask(|state| state.ask_join(request.member, metadata));
        Ok(())
    }

    fn sync(&mut self, assignments: BTreeMap<Arc<str>, MemberAssignment>) -> Result<(), BrokerError> {
        let encode = |(member, assignment)| encoding::assignment(&assignment).map(|bytes| (member, bytes));
        let encoded: Result<Vec<_>, _> = assignments.into_iter().map(encode).collect();
        let encoded = encoded.map_err(|reason| self.group.unwritable(&reason))?;
        self.group.ask(|state| state.ask_sync(encoded));
        Ok(())
    }

    fn next(&mut self, max_wait: Duration) -> Result<Option<Answer>, BrokerError> {
        let deadline = Instant::now() + max_wait;
        let mut state = self.group.state();
        loop {
            let now = Instant::now();
            if let Some(answer) = state.next_answer(now) {
                return answer.map(Some);
            }
            if now >= deadline {
                return Ok(None);
            }
            let until = state.trouble_at(now).map_or(deadline, |time| time.min(deadline));
            state = self.group.wait(state, until);
        }
    }

    fn leave(&mut self, reason: &str) -> Result<(), BrokerError> {
        self.group.ask(|state| state.ask_to_leave(reason));
        drop(self.group.wait_for_removals(self.group.state()));
        Ok(())
    }

    fn end_transactions(&mut self, transactional_ids: Vec<String>) -> Result<(), BrokerError> {
        let (config, group) = (self.config.clone(), self.group.clone());
        let end = move || {
            let ids: Vec<_> = transactional_ids.iter().map(String::as_str).collect();
            let client_id = &group.cluster.client_id;
            let ended = KafkaTransactions::new(&config, client_id).and_then(|mut them| them.end_transactions(&ids, END_WITHIN));
            if let Err(error) = ended {
                tracing::warn!(%error, "what producers that are gone have left open ends by itself, after its timeout");
            }
            group.state().tell(Answer::TransactionsEnded);
            group.changed.notify_all();
        };
        // It ends by itself, and nobody has to wait for it.
        let thread = std::thread::Builder::new().name("group-takeover".to_owned()).spawn(end);
        let failed = |error| {
            BrokerError::new(ErrorKind::Retry, format!("a thread for group {} could not be started: {error}", self.group.name))
        };
        thread.map(drop).map_err(failed)
    }

    fn remove(&mut self, members: &[Arc<str>], reason: &str) -> Result<(), BrokerError> {
        if !members.is_empty() {
            self.group.ask(|state| state.ask_removal(members, reason));
        }
        Ok(())
    }

    /// By the moment at which the last request was sent that was answered with success, or with the news that the group wants all members to join again:
    /// a heartbeat or JoinGroup.
    fn confirmation(&self) -> Option<Confirmation> {
        Some(self.group.state().confirmation.clone())
    }

    fn is_settled(&self) -> bool {
        self.group.state().unsettled_at.is_none_or(|at| at.elapsed() > SETTLED_AFTER)
    }
}

impl Drop for KafkaCoordinator {
    fn drop(&mut self) {
        let group = &self.group;
        let mut state = group.state();
        state.ended = true;
        group.changed.notify_all();
        group.joining.end();
        state = group.wait_for_removals(state);
        state.removals.clear();
        group.heartbeats.end();
        group.changed.notify_all();
        let deadline = Instant::now() + FAREWELL;
        while state.running > 0 && Instant::now() < deadline {
            state = group.wait(state, deadline);
        }
        let all_ended = state.running == 0;
        drop(state);
        for thread in self.threads.drain(..).filter(|_| all_ended) {
            if thread.join().is_err() {
                tracing::error!(group = group.name, "a thread of the group's member has panicked");
            }
        }
    }
}

impl Group {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Waits until the state may be another, at most until then.
    fn wait<'a>(&self, state: MutexGuard<'a, State>, until: Instant) -> MutexGuard<'a, State> {
        let left = until.saturating_duration_since(Instant::now());
        // Nothing panics with the lock held and leaves the state half done.
        self.changed.wait_timeout(state, left).unwrap_or_else(std::sync::PoisonError::into_inner).0
    }

    /// Waits until the coordinator has been told of all removals that were asked for, for a while at most.
    fn wait_for_removals<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let deadline = Instant::now() + LAST_WORD;
        while !state.removals.is_empty() && Instant::now() < deadline {
            state = self.wait(state, deadline);
        }
        state
    }

    /// Changes what is asked for. A request on the wire that nobody waits for any more is given up.
    fn ask(&self, change: impl FnOnce(&mut State) -> bool) {
        let is_superseded = change(&mut self.state());
        self.changed.notify_all();
        if is_superseded {
            self.joining.cut();
        }
    }

    fn line(&self, abort: &Arc<Abort>) -> CoordinatorLine {
        CoordinatorLine::new(self.cluster.clone(), CoordinatorOf::Group(self.name.clone()), abort.clone())
    }

    fn unwritable(&self, reason: &str) -> BrokerError {
        BrokerError::new(ErrorKind::Stop, format!("a request to group {} cannot be written: {reason}", self.name))
    }

    /// The error that a failure is told as. Whatever does not stop passes.
    fn error(&self, operation: &str, failure: Failure) -> BrokerError {
        let error = broker_error(operation, &format!("group {}", self.name), &self.cluster.told(failure));
        if error.kind() == ErrorKind::Stop { error } else { BrokerError::new(ErrorKind::Retry, error.to_string()) }
    }

    /// An attempt that was begun then has failed. One that failed soon is no news: brokers close connections that were idle.
    fn failed(&self, lane: Lane, attempts: u32, began: Instant, error: BrokerError) {
        tracing::debug!(%error, attempts, "a request to the group's coordinator is sent again");
        if attempts > 1 || began.elapsed() > SOON {
            self.state().trouble(lane, error);
            self.changed.notify_all();
        }
    }
}

/// How long to wait before the next attempt. The first one after a connection that broke is made at once.
fn pause(attempts: u32, is_transport: bool) -> Duration {
    let doublings = if is_transport { attempts.checked_sub(2) } else { attempts.checked_sub(1) };
    doublings.map_or(Duration::ZERO, |doublings| FIRST_PAUSE.saturating_mul(1 << doublings.min(10)).min(LONGEST_PAUSE))
}
