//! What members say of themselves and are assigned, as Kafka's own consumers write it (`ConsumerProtocolSubscription` and `ConsumerProtocolAssignment`),
//! so that its tools can read it.
//!
//! What other members have written is read here, not by the library: nobody vouches for it, and a length in it must not be believed.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::consumer_protocol_assignment::TopicPartition as AssignedPartitions;
use kafka_protocol::messages::consumer_protocol_subscription::TopicPartition as OwnedPartitions;
use kafka_protocol::messages::{ConsumerProtocolAssignment, ConsumerProtocolSubscription, TopicName};
use kafka_protocol::protocol::{Encodable, StrBytes};
use millstream::broker::group::{MemberAssignment, MemberMetadata};
use millstream::record::{Partition, TopicPartition};

/// The first version with the generation of what is owned. Readers of older versions skip what they do not know.
const VERSION: i16 = 2;

/// The version from which on a subscription says what is owned.
const WITH_OWNED: i16 = 1;

/// The bytes of what a member says of itself.
pub(super) fn subscription(metadata: &MemberMetadata) -> Result<Bytes, String> {
    let owned = by_topic(&metadata.owned)?;
    let owned =
        owned.into_iter().map(|(topic, partitions)| OwnedPartitions::default().with_topic(topic).with_partitions(partitions));
    let subscription = ConsumerProtocolSubscription::default()
        .with_topics(metadata.topics.iter().map(|topic| StrBytes::from_string(topic.to_string())).collect())
        .with_user_data(Some(Bytes::copy_from_slice(&metadata.user_data)))
        .with_owned_partitions(owned.collect())
        .with_generation_id(metadata.generation);
    write(&subscription)
}

/// The bytes of what a member is assigned.
pub(super) fn assignment(assignment: &MemberAssignment) -> Result<Bytes, String> {
    let assigned = by_topic(&assignment.partitions)?.into_iter();
    let assigned =
        assigned.map(|(topic, partitions)| AssignedPartitions::default().with_topic(topic).with_partitions(partitions));
    let message = ConsumerProtocolAssignment::default()
        .with_assigned_partitions(assigned.collect())
        .with_user_data(Some(Bytes::copy_from_slice(&assignment.user_data)));
    write(&message)
}

fn write(message: &impl Encodable) -> Result<Bytes, String> {
    let mut bytes = BytesMut::from(VERSION.to_be_bytes().as_slice());
    message.encode(&mut bytes, VERSION).map_err(|error| error.to_string())?;
    Ok(bytes.freeze())
}

fn by_topic(partitions: &[TopicPartition]) -> Result<BTreeMap<TopicName, Vec<i32>>, String> {
    let mut topics: BTreeMap<TopicName, Vec<i32>> = BTreeMap::new();
    for partition in partitions {
        let number = i32::try_from(partition.partition.0).map_err(|_| format!("{partition} has too high a number"))?;
        topics.entry(TopicName(StrBytes::from_string(partition.topic.to_string()))).or_default().push(number);
    }
    Ok(topics)
}

/// What another member says of itself.
pub(super) fn read_subscription(bytes: &[u8]) -> Result<MemberMetadata, Unreadable> {
    let mut reader = Reader(bytes);
    let version = reader.version()?;
    let topics = (0..reader.count(2)?).map(|_| Ok(reader.string()?.into())).collect::<Result<_, _>>()?;
    let user_data = reader.bytes()?;
    let owned = if version >= WITH_OWNED { reader.partitions()? } else { Vec::new() };
    let generation = if version >= VERSION { reader.number()? } else { -1 };
    Ok(MemberMetadata { topics, owned, generation, user_data })
}

/// What this member is assigned. A member that the leader has forgotten is assigned nothing, without a version.
pub(super) fn read_assignment(bytes: &[u8]) -> Result<MemberAssignment, Unreadable> {
    if bytes.is_empty() {
        return Ok(MemberAssignment::default());
    }
    let mut reader = Reader(bytes);
    reader.version()?;
    Ok(MemberAssignment { partitions: reader.partitions()?, user_data: reader.bytes()? })
}

/// Bytes that are no subscription, or no assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are not in the format of Kafka's consumers")]
pub(super) struct Unreadable;

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Unreadable> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Unreadable)?;
        self.0 = rest;
        Ok(taken)
    }

    fn short(&mut self) -> Result<i16, Unreadable> {
        let bytes = self.take(2)?.try_into().map_err(|_| Unreadable)?;
        Ok(i16::from_be_bytes(bytes))
    }

    fn number(&mut self) -> Result<i32, Unreadable> {
        let bytes = self.take(4)?.try_into().map_err(|_| Unreadable)?;
        Ok(i32::from_be_bytes(bytes))
    }

    fn version(&mut self) -> Result<i16, Unreadable> {
        self.short().and_then(|version| if version < 0 { Err(Unreadable) } else { Ok(version) })
    }

    /// How many elements follow, each of that many bytes at least: no more than there is room for.
    fn count(&mut self, element: usize) -> Result<usize, Unreadable> {
        let count = self.number()?;
        let count = usize::try_from(count).map_err(|_| Unreadable)?;
        if count > self.0.len() / element { Err(Unreadable) } else { Ok(count) }
    }

    fn string(&mut self) -> Result<&'a str, Unreadable> {
        let length = usize::try_from(self.short()?).map_err(|_| Unreadable)?;
        std::str::from_utf8(self.take(length)?).map_err(|_| Unreadable)
    }

    /// Bytes that may be absent, which is as good as none.
    fn bytes(&mut self) -> Result<Vec<u8>, Unreadable> {
        match self.number()? {
            -1 => Ok(Vec::new()),
            length => Ok(self.take(usize::try_from(length).map_err(|_| Unreadable)?)?.to_vec()),
        }
    }

    fn partitions(&mut self) -> Result<Vec<TopicPartition>, Unreadable> {
        let mut partitions = Vec::new();
        for _ in 0..self.count(6)? {
            let topic = self.string()?;
            for _ in 0..self.count(4)? {
                let number = u32::try_from(self.number()?).map_err(|_| Unreadable)?;
                partitions.push(TopicPartition::new(topic, Partition(number)));
            }
        }
        Ok(partitions)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use kafka_protocol::protocol::Decodable as _;
    use proptest::prelude::*;

    use super::*;

    fn partitions() -> impl Strategy<Value = Vec<TopicPartition>> {
        let one = ("[a-c]{1,3}", 0..1_000_u32).prop_map(|(topic, number)| TopicPartition::new(topic.as_str(), Partition(number)));
        // As a map by topics gives them back: sorted.
        proptest::collection::btree_set(one, 0..20).prop_map(|set: BTreeSet<_>| set.into_iter().collect())
    }

    proptest! {
        #[test]
        fn a_subscription_is_read_as_it_was_written(
            topics in proptest::collection::vec("[a-zA-Z0-9._-]{1,20}", 0..5),
            owned in partitions(),
            generation in -1..1_000_000,
            user_data in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let topics = topics.iter().map(|topic| topic.as_str().into()).collect();
            let metadata = MemberMetadata { topics, owned, generation, user_data };
            let bytes = subscription(&metadata).unwrap();
            prop_assert_eq!(read_subscription(&bytes), Ok(metadata.clone()));
            let library = ConsumerProtocolSubscription::decode(&mut bytes.slice(2..), VERSION).unwrap();
            prop_assert_eq!(library.generation_id, metadata.generation);
            prop_assert_eq!(library.user_data.as_deref(), Some(metadata.user_data.as_slice()));
            for cut in 0..bytes.len() {
                prop_assert_eq!(read_subscription(&bytes[..cut]), Err(Unreadable));
            }
        }

        #[test]
        fn an_assignment_is_read_as_it_was_written(partitions in partitions(), user_data in proptest::collection::vec(any::<u8>(), 0..100)) {
            let assigned = MemberAssignment { partitions, user_data };
            let bytes = assignment(&assigned).unwrap();
            prop_assert_eq!(read_assignment(&bytes), Ok(assigned.clone()));
            let library = ConsumerProtocolAssignment::decode(&mut bytes.slice(2..), VERSION).unwrap();
            let count: usize = library.assigned_partitions.iter().map(|topic| topic.partitions.len()).sum();
            prop_assert_eq!(count, assigned.partitions.len());
            for cut in 1..bytes.len() {
                prop_assert_eq!(read_assignment(&bytes[..cut]), Err(Unreadable));
            }
        }

        #[test]
        fn other_versions_are_read(version in 0..=3_i16, generation in 0..100) {
            let message = ConsumerProtocolSubscription::default().with_topics(vec![StrBytes::from_static_str("clicks")]);
            let message = if version >= 2 { message.with_generation_id(generation) } else { message };
            let mut bytes = BytesMut::from(version.to_be_bytes().as_slice());
            message.encode(&mut bytes, version).unwrap();
            let read = read_subscription(&bytes).unwrap();
            prop_assert_eq!(read.generation, if version >= 2 { generation } else { -1 });
            prop_assert_eq!(read.topics, vec!["clicks".into()]);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_subscription(&bytes);
            let _ = read_assignment(&bytes);
        }
    }

    #[test]
    fn a_member_that_was_forgotten_is_assigned_nothing() {
        assert_eq!(read_assignment(&[]), Ok(MemberAssignment::default()));
    }

    #[test]
    fn a_length_that_cannot_be_is_not_believed() {
        let huge = [&[0, 1][..], &i32::MAX.to_be_bytes()].concat();
        assert_eq!((read_subscription(&huge), read_assignment(&huge)), (Err(Unreadable), Err(Unreadable)));
    }
}
