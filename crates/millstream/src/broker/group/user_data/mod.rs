//! What members tell each other beside what the members of every group do: `u8 version ‖ u32 size ‖ LZ4 block`, and in the block the fields in their
//! order, as postcard writes them.
//!
//! What a later program adds stands behind what there was, and is left unread by earlier ones. Where that is not possible it is another version: one that a
//! program does not know is not read, and a member that cannot be understood is given nothing.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::super::StoreCopy;
use super::directory::Directory;
use crate::record::{Offset, Partition, TopicPartition};

const VERSION: u8 = 1;

/// More is not decompressed: a coordinator takes a megabyte of all members together.
const MOST_BYTES: u32 = 64 << 20;

/// What a member says of itself when it joins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MemberInfo {
    pub(super) instance: Arc<str>,
    pub(super) incarnation: u64,
    /// Changes whenever the member wants a rebalance: the coordinator begins none for one that says nothing new.
    pub(super) wanted: u32,
    /// It is about to leave: who can go on with its tasks at once gets them.
    pub(super) is_leaving: bool,
    pub(super) threads: u32,
    pub(super) endpoint: Option<Arc<str>>,
    pub(super) rack: Option<Arc<str>>,
    #[serde(with = "copies")]
    pub(super) copies: BTreeMap<TopicPartition, StoreCopy>,
    /// What it was told last of who holds what: a leader that was no member before goes on from there.
    pub(super) directory: Arc<Directory>,
}

/// Who a member says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introduction {
    /// The instance, whose name a restart does not change.
    pub instance: Arc<str>,
    /// Which life of it.
    pub incarnation: u64,
    /// Where others reach it, if they can.
    pub endpoint: Option<Arc<str>>,
}

impl Introduction {
    /// What the user data of a member says; none where it cannot be understood.
    pub fn of(user_data: &[u8]) -> Option<Self> {
        let MemberInfo { instance, incarnation, endpoint, .. } = decode(user_data)?;
        Some(Self { instance, incarnation, endpoint })
    }
}

pub(super) fn encode(value: &impl Serialize) -> Vec<u8> {
    // Whatever is written here can be written.
    let plain = postcard::to_allocvec(value).unwrap_or_default();
    let mut bytes = vec![VERSION];
    bytes.extend(lz4_flex::block::compress_prepend_size(&plain));
    bytes
}

/// None where another program wrote it, or one of a version that this one does not know.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (&version, block) = bytes.split_first()?;
    let size = u32::from_le_bytes(*block.first_chunk()?);
    if version != VERSION || size > MOST_BYTES {
        return None;
    }
    let plain = lz4_flex::block::decompress_size_prepended(block).ok()?;
    Some(postcard::take_from_bytes(&plain).ok()?.0)
}

/// Tasks by their topics, each of which is named once.
type ByTopic<T> = BTreeMap<Arc<str>, Vec<(u32, T)>>;

fn by_topic<'a, T>(tasks: impl Iterator<Item = (&'a TopicPartition, T)>) -> ByTopic<T> {
    let mut named: ByTopic<T> = BTreeMap::new();
    for (task, value) in tasks {
        named.entry(task.topic.clone()).or_default().push((task.partition.0, value));
    }
    named
}

fn tasks_of<T>(named: ByTopic<T>) -> impl Iterator<Item = (TopicPartition, T)> {
    named.into_iter().flat_map(|(topic, tasks)| {
        tasks.into_iter().map(move |(partition, value)| (TopicPartition::new(topic.clone(), Partition(partition)), value))
    })
}

/// A set of tasks.
pub(super) mod tasks {
    use serde::{Deserializer, Serializer};

    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(tasks: &BTreeSet<TopicPartition>, to: S) -> Result<S::Ok, S::Error> {
        by_topic(tasks.iter().map(|task| (task, ()))).serialize(to)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeSet<TopicPartition>, D::Error> {
        Ok(tasks_of(ByTopic::<()>::deserialize(from)?).map(|(task, ())| task).collect())
    }
}

/// Where tasks are to move.
pub(super) mod moves {
    use serde::{Deserializer, Serializer};

    use super::*;

    type Moves = BTreeMap<TopicPartition, Arc<str>>;

    pub(in super::super) fn serialize<S: Serializer>(moves: &Moves, to: S) -> Result<S::Ok, S::Error> {
        by_topic(moves.iter()).serialize(to)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Moves, D::Error> {
        Ok(tasks_of(ByTopic::deserialize(from)?).collect())
    }
}

/// What lies on a disk, of which tasks.
mod copies {
    use serde::{Deserializer, Serializer};

    use super::*;

    pub(super) fn serialize<S: Serializer>(copies: &BTreeMap<TopicPartition, StoreCopy>, to: S) -> Result<S::Ok, S::Error> {
        let plain = |copy: &StoreCopy| (copy.position.map(|position| position.0), copy.is_caught_up);
        by_topic(copies.iter().map(|(task, copy)| (task, plain(copy)))).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<TopicPartition, StoreCopy>, D::Error> {
        let named = ByTopic::<(Option<i64>, bool)>::deserialize(from)?;
        let copy = |(position, is_caught_up): (Option<i64>, bool)| StoreCopy { position: position.map(Offset), is_caught_up };
        Ok(tasks_of(named).map(|(task, value)| (task, copy(value))).collect())
    }
}
