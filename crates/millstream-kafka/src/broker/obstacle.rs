//! What keeps brokers from taking records of a topic. librdkafka tries a record again that too few replicas would have, and says in the
//! end only that its time was up.

use std::time::Duration;

use millstream::broker::{BrokerError, ErrorKind};
use millstream::record::{Partition, TopicPartition};

use super::{KafkaBroker, REQUEST_TIMEOUT};
use crate::ffi::Replicas;

/// The least time that is asked for: with less there would be no answer.
const SHORTEST: Duration = Duration::from_millis(100);

/// How long each request may take where it is asked about one partition: three of them one after the other, where nobody answers.
const CHECK_TIMEOUT: Duration = Duration::from_millis(350);

/// Why records of some partitions are not taken now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// Names the partitions, the reason and the way out.
    pub text: String,
    /// The partitions.
    pub partitions: Vec<Partition>,
}

impl KafkaBroker {
    /// What keeps the brokers from taking records of a topic, as far as they say; may take about so long.
    ///
    /// # Errors
    /// Where they cannot be asked, with the reason.
    pub fn obstacle(&self, topic: &str, max_wait: Duration) -> Result<Option<Obstacle>, BrokerError> {
        // Two requests. The first may have gone to a broker that is lost: there is time for another, once it is known who is there.
        let timeout = (max_wait / 5).clamp(SHORTEST, REQUEST_TIMEOUT);
        let (replicas, needed) = self.replicas(topic, timeout)?;
        Ok(obstacle(topic, &replicas, needed))
    }

    /// What keeps a partition from being written to.
    pub(super) fn obstacle_of(&self, partition: &TopicPartition) -> Result<(), BrokerError> {
        let (mut replicas, needed) = self.replicas(&partition.topic, CHECK_TIMEOUT)?;
        replicas.retain(|replicas| u32::try_from(replicas.partition).is_ok_and(|number| number == partition.partition.0));
        if replicas.is_empty() {
            return Err(BrokerError::unknown_partition(&partition.topic, partition.partition));
        }
        match obstacle(&partition.topic, &replicas, needed) {
            Some(obstacle) => Err(BrokerError::new(ErrorKind::Retry, obstacle.text)),
            None => Ok(()),
        }
    }

    /// How the partitions of a topic are replicated, and how many replicas have to be in sync, with that time for each request.
    fn replicas(&self, topic: &str, timeout: Duration) -> Result<(Vec<Replicas>, usize), BrokerError> {
        let operation = "looking up the replicas of topic";
        let replicas = self.ask_within(timeout, timeout * 3 / 2, operation, topic, |admin| admin.replicas(topic))?;
        // Where this user may not see it, what is known without is told.
        let settings = self.ask_within(timeout, Duration::ZERO, operation, topic, |admin| admin.topic_config(topic)).ok();
        let needed = settings.and_then(|settings| settings.get("min.insync.replicas")?.parse().ok());
        Ok((replicas, needed.unwrap_or(1)))
    }
}

fn obstacle(topic: &str, replicas: &[Replicas], needed: usize) -> Option<Obstacle> {
    let (mut reasons, mut partitions) = (Vec::new(), Vec::new());
    for &Replicas { partition, has_leader, in_sync, all } in replicas {
        let reason = if !has_leader {
            "has no leader (LEADER_NOT_AVAILABLE)".to_owned()
        } else if in_sync < needed.min(all) {
            // Brokers ask for no more than there are.
            format!("has {in_sync} of {all} replicas in sync (NOT_ENOUGH_REPLICAS)")
        } else {
            continue;
        };
        reasons.push((partition, reason));
        partitions.push(Partition(partition.max(0) as u32));
    }
    let (first, reason) = reasons.first()?;
    let others = match reasons.len() - 1 {
        0 => String::new(),
        others => format!(", and {others} more partitions likewise"),
    };
    let text = format!(
        "{topic}-{first} {reason}{others}, and min.insync.replicas is {needed}: bring the brokers of the other replicas back, or lower \
         min.insync.replicas of the topic"
    );
    Some(Obstacle { text, partitions })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replicas(partition: i32, in_sync: usize) -> Replicas {
        Replicas { partition, has_leader: in_sync > 0, in_sync, all: 3 }
    }

    #[test]
    fn partitions_with_too_few_replicas_in_sync_are_named_with_the_way_out() {
        let found =
            obstacle("clicks", &[replicas(0, 3), replicas(1, 1), replicas(2, 0), replicas(3, 2)], 2).expect("two of them");
        assert_eq!(found.partitions, [Partition(1), Partition(2)]);
        for part in ["clicks-1 has 1 of 3 replicas in sync", "NOT_ENOUGH_REPLICAS", "1 more partitions", "is 2", "lower"] {
            assert!(found.text.contains(part), "{part}: {}", found.text);
        }
        let found = obstacle("clicks", &[replicas(2, 0)], 1).expect("it has no leader");
        assert!(found.text.contains("clicks-2 has no leader"), "{}", found.text);
        assert_eq!(obstacle("clicks", &[replicas(0, 2)], 2), None);
        assert_eq!(obstacle("clicks", &[replicas(0, 3)], 4), None, "brokers ask for no more than there are");
    }
}
