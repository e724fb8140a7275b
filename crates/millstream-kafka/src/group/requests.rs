//! The requests about a group.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    DescribeGroupsRequest, GroupId, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest,
};
use kafka_protocol::protocol::StrBytes;

use super::state::{Member, Removal};
use super::{Group, PROTOCOL, PROTOCOL_TYPE};

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// The name of a group.
pub(super) fn group_id(name: &str) -> GroupId {
    GroupId(text(name))
}

fn millis(time: Duration) -> i32 {
    i32::try_from(time.as_millis()).unwrap_or(i32::MAX)
}

pub(super) fn join(group: &Group, member: Option<&str>, metadata: Bytes) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default().with_name(text(PROTOCOL)).with_metadata(metadata);
    JoinGroupRequest::default()
        .with_group_id(group_id(&group.name))
        .with_session_timeout_ms(millis(group.cluster.settings.session_timeout))
        .with_rebalance_timeout_ms(millis(group.rebalance_timeout))
        .with_member_id(text(member.unwrap_or_default()))
        .with_protocol_type(text(PROTOCOL_TYPE))
        .with_protocols(vec![protocol])
}

pub(super) fn sync(group: &str, member: &Member, assignments: &[(Arc<str>, Bytes)]) -> SyncGroupRequest {
    let of = |(member, assignment): &(Arc<str>, Bytes)| {
        SyncGroupRequestAssignment::default().with_member_id(text(member)).with_assignment(assignment.clone())
    };
    SyncGroupRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id(member.generation)
        .with_member_id(text(&member.id))
        .with_protocol_type(Some(text(PROTOCOL_TYPE)))
        .with_protocol_name(Some(text(PROTOCOL)))
        .with_assignments(assignments.iter().map(of).collect())
}

pub(super) fn heartbeat(group: &str, member: &Member) -> HeartbeatRequest {
    HeartbeatRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id(member.generation)
        .with_member_id(text(&member.id))
}

pub(super) fn leave(group: &str, removals: &[Removal]) -> LeaveGroupRequest {
    let of = |removal: &Removal| {
        MemberIdentity::default().with_member_id(text(&removal.member)).with_reason(Some(text(&removal.reason)))
    };
    LeaveGroupRequest::default().with_group_id(group_id(group)).with_members(removals.iter().map(of).collect())
}

pub(super) fn describe(group: &str) -> DescribeGroupsRequest {
    DescribeGroupsRequest::default().with_groups(vec![group_id(group)])
}
