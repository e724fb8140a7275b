//! Who is in a group, as its coordinator knows it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_protocol::messages::DescribeGroupsResponse;
use millstream::broker::group::Introduction;
use millstream::broker::{BrokerError, ErrorKind};

use super::{encoding, pause, requests};
use crate::config::KafkaConfig;
use crate::error::broker_error;
use crate::ffi::Failure;
use crate::wire::{Cluster, CoordinatorLine, CoordinatorOf, codes, has_moved, is_transport};

/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A group, as its coordinator knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedGroup {
    /// `Stable`, `PreparingRebalance`, `CompletingRebalance`, `Empty`, or `Dead` where there is no such group.
    pub state: String,
    /// What kind of members it has: `consumer` for all that consume.
    pub protocol_type: String,
    /// What the members have agreed on; nothing while they have not.
    pub protocol: String,
    /// The members.
    pub members: Vec<DescribedMember>,
}

/// A member of a group, as its coordinator knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedMember {
    /// Its name in the group.
    pub id: String,
    /// What it calls itself.
    pub client_id: String,
    /// Where it connects from.
    pub host: String,
    /// Who it says it is, where it is one of ours and the group is stable.
    pub introduction: Option<Introduction>,
}

/// Asks the coordinator of a group for its members. Tries for at most so long.
///
/// # Errors
/// [`ErrorKind::Retry`] where it cannot be asked, [`ErrorKind::Stop`] where no later attempt would succeed.
pub fn describe_group(config: &KafkaConfig, group: &str, within: Duration) -> Result<DescribedGroup, BrokerError> {
    let cluster = Cluster::new(config, super::PROTOCOL).map_err(|error| BrokerError::new(ErrorKind::Stop, error.to_string()))?;
    let cluster = Arc::new(cluster);
    let mut line = CoordinatorLine::new(cluster.clone(), CoordinatorOf::Group(group.to_owned()), Arc::default());
    let (deadline, mut attempts) = (Instant::now() + within, 0);
    loop {
        let failure = match ask(&mut line, group) {
            Ok(described) => return Ok(described),
            Err(failure) => failure,
        };
        attempts += 1;
        let wait = pause(attempts, is_transport(&failure));
        let error = broker_error("describing", &format!("group {group}"), &cluster.told(failure));
        if error.kind() != ErrorKind::Retry || Instant::now() + wait >= deadline {
            return Err(error);
        }
        std::thread::park_timeout(wait);
    }
}

/// One attempt.
pub(super) fn ask(line: &mut CoordinatorLine, group: &str) -> Result<DescribedGroup, Failure> {
    let answer: DescribeGroupsResponse = line.call(&requests::describe(group), ANSWER_TIMEOUT)?;
    let described = answer.groups.into_iter().next().ok_or_else(|| Failure::of_number(codes::UNSUPPORTED_VERSION.into()))?;
    match described.error_code {
        // What older brokers call a dead group.
        codes::NONE | codes::GROUP_ID_NOT_FOUND => {}
        code => {
            if has_moved(code) {
                line.forget();
            }
            return Err(Failure::of_number(code.into()));
        }
    }
    let members = described.members.into_iter().map(|member| DescribedMember {
        id: member.member_id.to_string(),
        client_id: member.client_id.to_string(),
        host: member.client_host.trim_start_matches('/').to_owned(),
        introduction: encoding::read_subscription(&member.member_metadata)
            .ok()
            .and_then(|said| Introduction::of(&said.user_data)),
    });
    Ok(DescribedGroup {
        state: described.group_state.to_string(),
        protocol_type: described.protocol_type.to_string(),
        protocol: described.protocol_data.to_string(),
        members: members.collect(),
    })
}
