//! What keeps the brokers from taking clicks: librdkafka tries again until the time is up, and then says no more than that.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use millstream::record::Partition;
use millstream_kafka::{KafkaBroker, Obstacle};

/// How long what was found is not looked for again.
const FRESH: Duration = Duration::from_secs(5);

/// How long what was found is told of: by then somebody who writes has looked again, or nobody writes.
const KNOWN: Duration = Duration::from_secs(60);

/// How often the log says it.
const SAID_EVERY: Duration = Duration::from_secs(60);

/// Known since the last look.
#[derive(Debug, Default)]
pub(super) struct IntakeTrouble(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    looked: Option<Instant>,
    said: Option<Instant>,
    found: Option<Found>,
}

#[derive(Debug)]
struct Found {
    text: String,
    /// The partitions that it keeps from being written; none where it is not of a partition.
    partitions: BTreeSet<Partition>,
}

impl IntakeTrouble {
    /// Looks what keeps the brokers from taking records of a topic, unless that was just done, or is being done. May take so long.
    pub(super) fn look(&self, broker: &KafkaBroker, topic: &str, max_wait: Duration) {
        {
            let mut state = self.state();
            if state.looked.is_some_and(|looked| looked.elapsed() < FRESH) {
                return;
            }
            state.looked = Some(Instant::now());
        }
        let found = match broker.obstacle(topic, max_wait) {
            Ok(obstacle) => obstacle.map(Found::from),
            Err(error) => Some(Found { text: error.to_string(), partitions: BTreeSet::new() }),
        };
        self.state().note(found, Instant::now());
    }

    /// Records of these partitions were written.
    pub(super) fn passed(&self, partitions: impl Iterator<Item = Partition>) {
        let mut state = self.state();
        let Some(found) = &mut state.found else { return };
        let mut partitions = partitions.peekable();
        if partitions.peek().is_none() {
            return;
        }
        partitions.for_each(|partition| {
            found.partitions.remove(&partition);
        });
        if found.partitions.is_empty() {
            state.note(None, Instant::now());
        }
    }

    /// What is known to keep clicks from being stored.
    pub(super) fn text(&self) -> Option<String> {
        let state = self.state();
        let is_known = state.looked.is_some_and(|looked| looked.elapsed() < KNOWN);
        state.found.as_ref().filter(|_| is_known).map(|found| found.text.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, found: Option<Found>, now: Instant) {
        match &found {
            Some(found) if self.said.is_none_or(|said| now.duration_since(said) >= SAID_EVERY) => {
                tracing::warn!(cause = found.text, "clicks cannot be stored");
                self.said = Some(now);
            }
            None if self.found.is_some() => tracing::info!("clicks are stored again"),
            _ => {}
        }
        self.found = found;
    }
}

impl From<Obstacle> for Found {
    fn from(Obstacle { text, partitions }: Obstacle) -> Self {
        Self { text, partitions: partitions.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(partitions: &[u32]) -> IntakeTrouble {
        let partitions = partitions.iter().map(|number| Partition(*number)).collect();
        let found = Some(Found { text: "too few replicas".to_owned(), partitions });
        IntakeTrouble(Mutex::new(State { looked: Some(Instant::now()), said: None, found }))
    }

    #[test]
    fn it_is_over_once_each_partition_takes_records_again() {
        let trouble = known(&[0, 2]);
        trouble.passed([Partition(0), Partition(1)].into_iter());
        assert_eq!(trouble.text().as_deref(), Some("too few replicas"));
        trouble.passed([Partition(2)].into_iter());
        assert_eq!(trouble.text(), None);
    }

    #[test]
    fn what_is_of_no_partition_is_over_with_the_first_record_that_is_written() {
        let trouble = known(&[]);
        trouble.passed(std::iter::empty());
        assert!(trouble.text().is_some());
        trouble.passed([Partition(1)].into_iter());
        assert_eq!(trouble.text(), None);
    }
}
