//! Follows what an application commits to its changelog, by an independent consumer.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::message::Message;

use crate::found::{ad_window, count};
use crate::sent::{Sums, number_of};
use crate::topic;

/// A reader of committed records may see a commit before the one who has sent it is told that it is one, and puts it into the store.
const UNTOLD: Duration = Duration::from_millis(250);

/// The counts that were committed, as far as they have been read.
pub(crate) struct Committed {
    read: Arc<Mutex<Read>>,
    stops: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Read {
    sums: Sums,
    /// What was read a moment ago: when, ad, window, clicks.
    untold: VecDeque<(Instant, u64, i64, i64)>,
}

impl Committed {
    /// Follows the changelog of the application, which exists.
    pub(crate) fn follow(servers: &str, application_id: &str) -> Self {
        let (read, stops) = (Arc::new(Mutex::new(Read::default())), Arc::new(AtomicBool::new(false)));
        let (shared, stopped) = (read.clone(), stops.clone());
        let consumer = topic::from_the_beginning(servers, &format!("{application_id}-ad-clicks-store-changelog"));
        let thread = std::thread::spawn(move || {
            let mut counts = HashMap::new();
            while !stopped.load(Ordering::Relaxed) {
                // The client goes on by itself after an error.
                let Some(Ok(record)) = consumer.poll(Duration::from_millis(100)) else { continue };
                let Some(value) = record.payload() else { continue };
                let (ad, window) = ad_window(record.key().unwrap().split_last_chunk::<4>().unwrap().0);
                let (ad, clicks) = (number_of(&ad), count(value));
                let before = counts.insert((ad, window), clicks).unwrap_or(0);
                let untold = &mut shared.lock().unwrap_or_else(PoisonError::into_inner).untold;
                untold.push_back((Instant::now(), ad, window, clicks - before));
            }
        });
        Self { read, stops, thread: Some(thread) }
    }

    /// What every owner has been told of by now.
    pub(crate) fn sums(&self) -> Sums {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((_, ad, window, clicks)) = read.untold.pop_front_if(|(at, ..)| at.elapsed() >= UNTOLD) {
            read.sums.add(ad, window, clicks);
        }
        read.sums.clone()
    }
}

impl Drop for Committed {
    fn drop(&mut self) {
        self.stops.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
