//! The proof of membership that a consumer holds at this moment.

use rdkafka::client::{Client, ClientContext};
use rdkafka_sys as sys;

use super::text;

/// Generation and member id of a consumer in its group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Membership {
    pub(crate) generation: i32,
    pub(crate) member: String,
}

impl Membership {
    /// Whether a commit with it is fenced: the broker checks nothing for one that is no member.
    pub(crate) fn proves_something(generation: i32, member: &str) -> bool {
        generation >= 0 && !member.is_empty()
    }
}

/// What a consumer holds now; none where it is no member.
pub(crate) fn membership<C: ClientContext>(client: &Client<C>) -> Option<Membership> {
    // SAFETY: the client lives for the call.
    let metadata = unsafe { sys::rd_kafka_consumer_group_metadata(client.native_ptr()) };
    if metadata.is_null() {
        return None;
    }
    // SAFETY: the metadata is not null, and is ours until it is destroyed, after everything was copied out of it.
    let (generation, member) = unsafe {
        let generation = sys::rd_kafka_consumer_group_metadata_generation_id(metadata);
        let member = text(sys::rd_kafka_consumer_group_metadata_member_id(metadata));
        sys::rd_kafka_consumer_group_metadata_destroy(metadata);
        (generation, member)
    };
    Membership::proves_something(generation, &member).then_some(Membership { generation, member })
}
