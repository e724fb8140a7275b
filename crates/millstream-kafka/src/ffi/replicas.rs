//! Requests for the replicas of a topic.

use rdkafka::client::ClientContext;
use rdkafka_sys as sys;

use super::admin::Admin;
use super::{Failure, array};

/// How a partition is replicated at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Replicas {
    pub(crate) partition: i32,
    pub(crate) has_leader: bool,
    pub(crate) in_sync: usize,
    pub(crate) all: usize,
}

impl<C: ClientContext> Admin<'_, C> {
    /// How each partition of a topic is replicated.
    pub(crate) fn replicas(&self, topic: &str) -> Result<Vec<Replicas>, Failure> {
        let answer = self.described(topic)?;
        let mut count = 0;
        // SAFETY: the answer is to this kind of request; what it lends lives as long as it does.
        unsafe {
            let topic = answer.topic()?;
            Failure::read(sys::rd_kafka_TopicDescription_error(topic))?;
            let partitions = array(sys::rd_kafka_TopicDescription_partitions(topic, &mut count), count);
            Ok(partitions.iter().map(|partition| replicas_of(*partition)).collect())
        }
    }
}

/// # Safety
/// The partition lives.
unsafe fn replicas_of(partition: *const sys::rd_kafka_TopicPartitionInfo_t) -> Replicas {
    let (mut in_sync, mut all) = (0, 0);
    // SAFETY: the caller vouches for it; each call writes how many there are.
    unsafe {
        sys::rd_kafka_TopicPartitionInfo_isr(partition, &mut in_sync);
        sys::rd_kafka_TopicPartitionInfo_replicas(partition, &mut all);
        let has_leader = !sys::rd_kafka_TopicPartitionInfo_leader(partition).is_null();
        Replicas { partition: sys::rd_kafka_TopicPartitionInfo_partition(partition), has_leader, in_sync, all }
    }
}
