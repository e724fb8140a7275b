//! What an instance knows of the others: what they said last and when, whether there is a connection, how long they take.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use millstream::query::InstanceStatus;
use tokio::sync::broadcast;
use tonic::transport::Channel;

/// How many events are kept for those that are slow to look.
const EVENTS: usize = 1_024;

/// How many of the last answers say how long one usually takes.
const TIMES: usize = 64;

/// So many at least.
const FEWEST_TIMES: usize = 16;

/// What is known of another instance.
#[derive(Debug, Clone)]
pub struct Heard {
    /// Where it is.
    pub endpoint: Arc<str>,
    /// What it said last; none before it has said anything.
    pub status: Option<InstanceStatus>,
    /// When that was.
    pub at: Option<Instant>,
    /// What has become of the connection to it last, and when.
    pub link: Option<(LinkChange, Instant)>,
}

/// Something has become of the connection to another instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkEvent {
    /// The instance.
    pub instance: Arc<str>,
    /// The address of the connection.
    pub endpoint: Arc<str>,
    /// Which of its processes was heard there last; none before one was.
    pub incarnation: Option<u64>,
    /// When.
    pub at: Instant,
    /// What.
    pub change: LinkChange,
}

/// What becomes of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkChange {
    /// The first word came on a new connection: of the process that was there before, or of another.
    Heard,
    /// The other end has closed the connection that there was.
    Closed,
    /// It was reset.
    Reset,
    /// Nobody listens at the address.
    Refused,
    /// The address cannot be reached, or does not answer.
    Unreachable(String),
    /// No word came for a second, on a connection that looks whole.
    Silent,
    /// What listens there does not take this instance: another secret, application, instance or version.
    Rejected(String),
}

/// What is known of the others.
pub(super) struct Table {
    peers: Mutex<BTreeMap<Arc<str>, Peer>>,
    /// Rises with every word heard.
    version: AtomicU64,
    events: broadcast::Sender<LinkEvent>,
}

struct Peer {
    heard: Heard,
    channel: Option<Channel>,
    /// Of answers about windows, and of those about top keys.
    times: [VecDeque<Duration>; 2],
}

impl Table {
    pub(super) fn new() -> Self {
        Self { peers: Mutex::default(), version: AtomicU64::new(0), events: broadcast::channel(EVENTS).0 }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Peer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn heard(&self) -> BTreeMap<Arc<str>, Heard> {
        self.lock().iter().map(|(instance, peer)| (instance.clone(), peer.heard.clone())).collect()
    }

    /// Changes with everything that is heard.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }

    pub(super) fn events(&self) -> broadcast::Receiver<LinkEvent> {
        self.events.subscribe()
    }

    /// There is such an instance.
    pub(super) fn expect(&self, instance: &Arc<str>, endpoint: &Arc<str>) {
        let heard = Heard { endpoint: endpoint.clone(), status: None, at: None, link: None };
        self.lock().insert(instance.clone(), Peer { heard, channel: None, times: Default::default() });
        self.version.fetch_add(1, Ordering::Relaxed);
    }

    /// There is no such instance any more.
    pub(super) fn forget(&self, instance: &Arc<str>) {
        self.lock().remove(instance);
        self.version.fetch_add(1, Ordering::Relaxed);
    }

    /// A word has come over that connection.
    pub(super) fn said(&self, instance: &Arc<str>, status: InstanceStatus, channel: &Channel) {
        let mut peers = self.lock();
        let Some(peer) = peers.get_mut(instance) else { return };
        peer.heard.status = Some(status);
        peer.heard.at = Some(Instant::now());
        peer.channel.get_or_insert_with(|| channel.clone());
        self.version.fetch_add(1, Ordering::Relaxed);
    }

    /// Something has become of the connection.
    pub(super) fn changed(&self, instance: &Arc<str>, change: LinkChange) {
        let at = Instant::now();
        let mut peers = self.lock();
        let Some(peer) = peers.get_mut(instance) else { return };
        if !matches!(change, LinkChange::Heard | LinkChange::Silent) {
            peer.channel = None;
        }
        let is_news = peer.heard.link.as_ref().is_none_or(|(before, _)| *before != change);
        peer.heard.link = Some((change.clone(), at));
        let incarnation = peer.heard.status.as_ref().map(|status| status.incarnation);
        let endpoint = peer.heard.endpoint.clone();
        drop(peers);
        if is_news {
            tracing::info!(instance = &**instance, endpoint = &*endpoint, ?change, "the link to another instance has changed");
        }
        // Nobody has to listen.
        let _ = self.events.send(LinkEvent { instance: instance.clone(), endpoint, incarnation, at, change });
    }

    /// The connection to an instance, while there is one.
    pub(super) fn channel(&self, instance: &str) -> Option<Channel> {
        self.lock().get(instance)?.channel.clone()
    }

    /// An answer took that long.
    pub(super) fn took(&self, instance: &str, is_top: bool, time: Duration) {
        if let Some(peer) = self.lock().get_mut(instance) {
            let times = &mut peer.times[usize::from(is_top)];
            if times.len() == TIMES {
                times.pop_front();
            }
            times.push_back(time);
        }
    }

    /// How long 19 of 20 answers take at most; none before there were some.
    pub(super) fn usual_time(&self, instance: &str, is_top: bool) -> Option<Duration> {
        let mut times: Vec<Duration> = self.lock().get(instance)?.times[usize::from(is_top)].iter().copied().collect();
        if times.len() < FEWEST_TIMES {
            return None;
        }
        let nineteenth = times.len() * 19 / 20;
        Some(*times.select_nth_unstable(nineteenth).1)
    }

    /// Completes when nothing was heard of an instance for that long.
    pub(super) async fn lost(&self, instance: &str, after: Duration) {
        loop {
            let heard = self.lock().get(instance).and_then(|peer| peer.heard.at);
            let Some(left) = heard.and_then(|at| after.checked_sub(at.elapsed())) else { return };
            tokio::time::sleep(left.max(Duration::from_millis(10))).await;
        }
    }
}
