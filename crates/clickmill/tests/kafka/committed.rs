//! Follows what an application commits to its changelog, by an independent consumer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::message::Message;

use crate::found::{ad_window, count};
use crate::sent::{Sums, number_of};
use crate::topic;

/// The counts that were committed, as far as they have been read.
pub(crate) struct Committed {
    sums: Arc<Mutex<Sums>>,
    stops: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Committed {
    /// Follows the changelog of the application, which exists.
    pub(crate) fn follow(servers: &str, application_id: &str) -> Self {
        let (sums, stops) = (Arc::new(Mutex::new(Sums::default())), Arc::new(AtomicBool::new(false)));
        let (shared, stopped) = (sums.clone(), stops.clone());
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
                shared.lock().unwrap_or_else(PoisonError::into_inner).add(ad, window, clicks - before);
            }
        });
        Self { sums, stops, thread: Some(thread) }
    }

    pub(crate) fn sums(&self) -> Sums {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
