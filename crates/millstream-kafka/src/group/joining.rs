//! The connection of JoinGroup and SyncGroup, which the coordinator holds back until other members have sent theirs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::JoinGroupResponse;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use millstream::broker::ErrorKind;
use millstream::broker::group::{Gone, MemberAssignment, MemberMetadata};

use super::state::{Job, Joined, Lane, Wish};
use super::{Group, clash, encoding, pause, requests};
use crate::boot_time::boot_time;
use crate::ffi::Failure;
use crate::wire::{CoordinatorLine, codes, has_moved, is_transport};

/// How much longer than the group gathers its members an answer may take, as Kafka's own consumers have it.
const ANSWER_SLACK: Duration = Duration::from_secs(5);

/// Does what is asked for, until the end.
pub(super) fn run(group: &Group) {
    let mut line = group.line(&group.joining);
    let (mut attempts, mut last, mut not_before) = (0, 0, Instant::now());
    while let Some(job) = group.next_job(last, not_before) {
        if job.number != last {
            (last, attempts) = (job.number, 0);
        }
        let began = Instant::now();
        let Err(failure) = attempt(group, &mut line, &job) else {
            group.state().trouble_is_over(Lane::Join);
            group.changed.notify_all();
            attempts = 0;
            continue;
        };
        // It may have failed because it was given up.
        if !group.state().is_current(job.number) {
            continue;
        }
        attempts += 1;
        not_before = Instant::now() + pause(attempts, is_transport(&failure));
        let error = group.error(job.operation(), failure);
        if error.kind() == ErrorKind::Stop {
            group.state().refused(job.number, error);
            group.changed.notify_all();
        } else {
            group.failed(Lane::Join, attempts, began, error);
        }
    }
}

impl Group {
    /// What to do next; the job that was tried last not before that time. None at the end.
    fn next_job(&self, last: u64, not_before: Instant) -> Option<Job> {
        let mut state = self.state();
        loop {
            if state.ended {
                return None;
            }
            let now = Instant::now();
            state = match &state.job {
                Some(job) if job.number != last || not_before <= now => return Some(job.clone()),
                Some(_) => self.wait(state, not_before),
                None => self.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner),
            };
        }
    }
}

impl Job {
    fn operation(&self) -> &'static str {
        match self.wish {
            Wish::Join { .. } => "joining",
            Wish::Sync { .. } => "being assigned something in",
        }
    }
}

fn attempt(group: &Group, line: &mut CoordinatorLine, job: &Job) -> Result<(), Failure> {
    line.connect()?;
    match &job.wish {
        Wish::Join { member, metadata } => join(group, line, job.number, member.as_ref(), metadata),
        Wish::Sync { assignments } => sync(group, line, job.number, assignments),
    }
}

fn join(
    group: &Group,
    line: &mut CoordinatorLine,
    number: u64,
    member: Option<&Arc<str>>,
    metadata: &Bytes,
) -> Result<(), Failure> {
    let member = {
        let state = group.state();
        // Whoever gives a request up closes the connection after it has changed the state, and before that nothing was sent.
        if !state.is_current(number) {
            return Ok(());
        }
        state.id_to_join_under(member)
    };
    let sent = boot_time();
    let request = requests::join(group, member.as_deref(), metadata.clone());
    let answer = line.call(&request, group.rebalance_timeout + ANSWER_SLACK)?;
    let mut state = group.state();
    match answer.error_code {
        codes::NONE => state.joined(number, joined(&answer), sent, Instant::now() + group.cluster.settings.heartbeat_interval),
        codes::MEMBER_ID_REQUIRED if state.given_id(answer.member_id.as_str().into()) => {}
        codes::UNKNOWN_MEMBER_ID | codes::FENCED_INSTANCE_ID => {
            state.gone(number, Gone::UnknownMember);
            // The id that was given has expired: another one is asked for after a pause.
            if state.is_current(number) {
                return Err(Failure::of_number(answer.error_code.into()));
            }
        }
        codes::INCONSISTENT_GROUP_PROTOCOL => {
            drop(state);
            return Err(clash::failure(line, &group.name));
        }
        code => return Err(refusal(line, code)),
    }
    drop(state);
    group.changed.notify_all();
    Ok(())
}

fn sync(group: &Group, line: &mut CoordinatorLine, number: u64, assignments: &[(Arc<str>, Bytes)]) -> Result<(), Failure> {
    let member = {
        let state = group.state();
        match &state.member {
            Some(member) if state.is_current(number) => member.clone(),
            _ => return Ok(()),
        }
    };
    let request = requests::sync(&group.name, &member, assignments);
    let answer = line.call(&request, group.rebalance_timeout + ANSWER_SLACK)?;
    let mut state = group.state();
    match answer.error_code {
        codes::NONE => state.synced(number, assigned(&group.name, &answer.assignment)),
        codes::REBALANCE_IN_PROGRESS => state.not_synced(number),
        codes::UNKNOWN_MEMBER_ID | codes::FENCED_INSTANCE_ID => state.gone(number, Gone::UnknownMember),
        codes::ILLEGAL_GENERATION => state.gone(number, Gone::OtherGeneration),
        code => return Err(refusal(line, code)),
    }
    drop(state);
    group.changed.notify_all();
    Ok(())
}

fn refusal(line: &mut CoordinatorLine, code: i16) -> Failure {
    let failure = Failure::of_number(code.into());
    if has_moved(code) {
        line.forget();
    }
    failure
}

fn joined(answer: &JoinGroupResponse) -> Joined {
    let leads = answer.leader == answer.member_id;
    Joined {
        generation: answer.generation_id,
        member: answer.member_id.as_str().into(),
        members: leads.then(|| answer.members.iter().map(described).collect::<BTreeMap<_, _>>()),
    }
}

/// A member that cannot be understood is one that holds nothing and wants nothing.
fn described(member: &JoinGroupResponseMember) -> (Arc<str>, MemberMetadata) {
    let metadata = encoding::read_subscription(&member.metadata).unwrap_or_else(|error| {
        tracing::warn!(member = member.member_id.as_str(), %error, "what a member of the group says of itself cannot be read: it is given nothing");
        MemberMetadata { generation: -1, ..MemberMetadata::default() }
    });
    (member.member_id.as_str().into(), metadata)
}

fn assigned(group: &str, bytes: &[u8]) -> MemberAssignment {
    encoding::read_assignment(bytes).unwrap_or_else(|error| {
        tracing::warn!(group, %error, "the assignment from the group's leader cannot be read: it is taken for nothing");
        MemberAssignment::default()
    })
}
