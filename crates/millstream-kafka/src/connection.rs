//! What the clients of one configuration know together of their cluster: whether a broker has ever answered, whether none can be
//! reached now, and what was said of that in the log.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::context::lock;
use crate::ffi::Failure;

/// How long a complaint is not repeated in the log.
const QUIET: Duration = Duration::from_secs(60);

/// So many different complaints are remembered; more of them are a different problem.
const COMPLAINTS: usize = 1024;

/// The complaint that no broker can be reached, whatever the number of brokers.
const NO_BROKER: &str = "no broker can be reached";

/// Shared by all clients of a configuration.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    reached: AtomicBool,
    is_lost: AtomicBool,
    complaints: Mutex<Complaints>,
    handshake_fails: AtomicBool,
    /// The last handshake that failed, until a broker answers. It fails for all clients alike, and not every one is told in time.
    failed_handshake: Mutex<Option<(Instant, Failure)>>,
}

#[derive(Debug, Default)]
struct Complaints {
    said: BTreeMap<String, Said>,
    /// Since when no broker can be reached, and whether the log says so.
    lost: Option<(Instant, bool)>,
}

#[derive(Debug)]
struct Said {
    at: Instant,
    held_back: u64,
}

impl Connection {
    /// Whether a broker has ever answered a client of this configuration.
    pub(crate) fn was_reached(&self) -> bool {
        self.reached.load(Ordering::Relaxed)
    }

    /// A broker has answered a request. Says so in the log where none could be reached before.
    pub(crate) fn answered(&self) {
        self.reached.store(true, Ordering::Relaxed);
        // Every record that is answered for comes by here.
        if self.handshake_fails.load(Ordering::Relaxed) && self.handshake_fails.swap(false, Ordering::Relaxed) {
            *lock(&self.failed_handshake) = None;
        }
        if self.is_lost.swap(false, Ordering::Relaxed)
            && let Some((since, true)) = lock(&self.complaints).lost.take()
        {
            tracing::info!(seconds = since.elapsed().as_secs(), "a broker of the cluster answers again");
        }
    }

    /// A handshake has failed.
    pub(crate) fn handshake_failed(&self, failure: Failure) {
        *lock(&self.failed_handshake) = Some((Instant::now(), failure));
        self.handshake_fails.store(true, Ordering::Relaxed);
    }

    /// Why a handshake failed just now, if one did.
    pub(crate) fn failed_handshake(&self, within: Duration) -> Option<Failure> {
        let failed = lock(&self.failed_handshake);
        failed.as_ref().filter(|(when, _)| when.elapsed() < within).map(|(_, failure)| failure.clone())
    }

    /// No broker can be reached. Whether to say so now, and how often that was not said since.
    pub(crate) fn lost(&self) -> Option<u64> {
        self.is_lost.store(true, Ordering::Relaxed);
        let (mut complaints, now) = (lock(&self.complaints), Instant::now());
        let to_say = complaints.note(NO_BROKER, now);
        let lost = complaints.lost.get_or_insert((now, false));
        lost.1 |= to_say.is_some();
        to_say
    }

    /// Whether a complaint is to be said now, and how often it was not since it was said last. Numbers in it make no difference, except
    /// those in the name of a broker.
    pub(crate) fn complain(&self, complaint: &str) -> Option<u64> {
        lock(&self.complaints).note(&without_numbers(complaint), Instant::now())
    }
}

impl Complaints {
    fn note(&mut self, complaint: &str, now: Instant) -> Option<u64> {
        if let Some(said) = self.said.get_mut(complaint) {
            if now.duration_since(said.at) < QUIET {
                said.held_back += 1;
                return None;
            }
            said.at = now;
            return Some(std::mem::take(&mut said.held_back));
        }
        if self.said.len() >= COMPLAINTS {
            self.said.retain(|_, said| now.duration_since(said.at) < QUIET);
        }
        if self.said.len() >= COMPLAINTS {
            return None;
        }
        self.said.insert(complaint.to_owned(), Said { at: now, held_back: 0 });
        Some(0)
    }
}

/// A complaint as librdkafka writes it (`[thrd:…]: HOST:PORT/ID: what is wrong (after 12ms in state CONNECT)`) without what differs from
/// one time to the next.
fn without_numbers(complaint: &str) -> String {
    let complaint = complaint.strip_prefix("[thrd:").and_then(|rest| rest.split_once("]: ")).map_or(complaint, |(_, rest)| rest);
    let complaint = complaint.split(" (after ").next().unwrap_or_default();
    let broker = complaint.split_once(": ").map(|(broker, _)| broker).filter(|broker| broker.contains('/'));
    let (broker, rest) = complaint.split_at(broker.map_or(0, str::len));
    let mut plain = broker.to_owned();
    for letter in rest.chars() {
        match letter {
            '0'..='9' if plain.len() > broker.len() && plain.ends_with('#') => {}
            '0'..='9' => plain.push('#'),
            _ => plain.push(letter),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_said_once_and_again_after_a_minute_with_how_often_it_came() {
        let (mut complaints, began) = (Complaints::default(), Instant::now());
        let mut said = Vec::new();
        // As librdkafka reports it, 20 times a second for two and a half minutes.
        for time in (0..150_000).step_by(50) {
            let to_say = complaints.note("1/1 brokers are down", began + Duration::from_millis(time));
            said.extend(to_say.map(|held_back| (time, held_back)));
        }
        assert_eq!(said, [(0, 0), (60_000, 1199), (120_000, 1199)]);
    }

    #[test]
    fn complaints_that_differ_in_numbers_alone_are_one_and_those_of_two_brokers_are_two() {
        let connection = Connection::default();
        let refused = |port: u16, after: u32| {
            format!(
                "[thrd:127.0.0.1:{port}/1]: 127.0.0.1:{port}/1: Connect to ipv4#127.0.0.1:{port} failed: Connection refused (after \
                 {after}ms in state CONNECT, 30 identical error(s) suppressed)"
            )
        };
        assert_eq!(connection.complain(&refused(9092, 0)), Some(0));
        assert_eq!(connection.complain(&refused(9092, 12)), None);
        // The same, as it comes as an error.
        let as_error = "127.0.0.1:9092/1: Connect to ipv4#127.0.0.1:9092 failed: Connection refused (after 3ms in state CONNECT)";
        assert_eq!(connection.complain(as_error), None);
        assert_eq!(connection.complain(&refused(9093, 0)), Some(0));
        assert_eq!(connection.complain("Timed out 2 requests"), Some(0));
        assert_eq!(connection.complain("Timed out 13 requests"), None);
    }

    #[test]
    fn what_was_said_to_be_lost_is_said_to_be_back() {
        let connection = Connection::default();
        assert!(!connection.was_reached());
        connection.answered();
        assert!(connection.was_reached());
        assert_eq!((connection.lost(), connection.lost()), (Some(0), None));
        assert!(matches!(lock(&connection.complaints).lost, Some((_, true))));
        connection.answered();
        assert_eq!(lock(&connection.complaints).lost, None);
        // Again within the minute: neither is said.
        assert_eq!(connection.lost(), None);
        assert!(matches!(lock(&connection.complaints).lost, Some((_, false))));
    }

    #[test]
    fn what_differs_every_time_does_not_fill_the_memory() {
        let (mut complaints, now) = (Complaints::default(), Instant::now());
        for number in 0..2 * COMPLAINTS {
            complaints.note(&number.to_string(), now);
        }
        assert_eq!(complaints.said.len(), COMPLAINTS);
    }
}
