//! What an instance knows of the others: what they said last and when, whether there is a connection, how long they take.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use millstream::clock::BootTime;
use millstream::query::InstanceStatus;
use millstream_kafka::boot_time;
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
    /// When the last word was said.
    said_at: Option<BootTime>,
    clock: Clock,
    /// Of answers about windows, and of those about top keys.
    times: [VecDeque<Duration>; 2],
}

/// The clock of another instance, as its words show it.
#[derive(Debug, Clone, Copy, Default)]
struct Clock {
    incarnation: u64,
    /// How much less it shows than the clock here, in milliseconds: by the word that was under way for the shortest time.
    behind_ms: i64,
}

impl Clock {
    /// When a word was said, at the latest, by the clock here. It was said in that life of the instance, at that time by its clock, and heard then.
    fn said_at(&mut self, incarnation: u64, its_ms: u64, heard: BootTime) -> BootTime {
        let its_ms = its_ms as i64;
        let behind_ms = heard.as_millis() as i64 - its_ms;
        let is_known = self.incarnation == incarnation;
        *self = Self { incarnation, behind_ms: if is_known { behind_ms.min(self.behind_ms) } else { behind_ms } };
        BootTime::of_millis((its_ms + self.behind_ms).max(0) as u64)
    }
}

/// What others have said last.
#[derive(Clone)]
pub struct Words(pub(super) Arc<Table>);

impl Words {
    /// When the instance said which generation of the group it knew last; none where it was not heard, or cannot be reached.
    pub fn last(&self, instance: &str) -> Option<(BootTime, i32)> {
        let peers = self.0.lock();
        let peer = peers.get(instance)?;
        Some((peer.said_at?, peer.heard.status.as_ref()?.generation))
    }

    /// The instances, each with the life that was heard last, of which no word has come for that long.
    pub fn silent(&self, after: Duration) -> BTreeMap<Arc<str>, u64> {
        let silent = |(instance, peer): (&Arc<str>, &Peer)| {
            let is_silent = peer.heard.at.is_some_and(|at| at.elapsed() > after);
            Some((instance.clone(), peer.heard.status.as_ref().filter(|_| is_silent)?.incarnation))
        };
        self.0.lock().iter().filter_map(silent).collect()
    }
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
        let peer = Peer { heard, channel: None, said_at: None, clock: Clock::default(), times: Default::default() };
        self.lock().insert(instance.clone(), peer);
        self.version.fetch_add(1, Ordering::Relaxed);
    }

    /// There is no such instance any more.
    pub(super) fn forget(&self, instance: &Arc<str>) {
        self.lock().remove(instance);
        self.version.fetch_add(1, Ordering::Relaxed);
    }

    /// A word has come over that connection, said at that time by the clock of whoever said it.
    pub(super) fn said(&self, instance: &Arc<str>, status: InstanceStatus, said_at_ms: u64, channel: &Channel) {
        let heard = boot_time();
        let mut peers = self.lock();
        let Some(peer) = peers.get_mut(instance) else { return };
        peer.said_at = Some(peer.clock.said_at(status.incarnation, said_at_ms, heard));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_was_under_way_for_long_is_as_old_as_it_is() {
        let mut clock = Clock::default();
        let at = BootTime::of_millis;
        assert_eq!(clock.said_at(1, 500, at(10_010)), at(10_010), "nothing is known of its clock yet");
        assert_eq!(clock.said_at(1, 700, at(10_205)), at(10_205), "this one came faster");
        assert_eq!(clock.said_at(1, 900, at(10_410)), at(10_405));
        assert_eq!(clock.said_at(1, 1_100, at(19_000)), at(10_605), "it lay in a buffer");
        assert_eq!(clock.said_at(2, 5, at(20_000)), at(20_000), "another process has another clock");
    }
}
