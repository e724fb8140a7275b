//! The connection of heartbeats and of LeaveGroup, which are answered at once.

use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode as Code;

use super::state::{Lane, Member, Removal};
use super::{Group, pause, requests};
use crate::boot_time::boot_time;
use crate::ffi::Failure;
use crate::wire::{CoordinatorLine, codes, has_moved, is_transport};

/// The longest that an answer may take.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What is to be done next.
enum Task {
    Remove(Vec<Removal>),
    Heartbeat(Member),
}

/// Sends heartbeats for as long as there is a membership, and removes whoever is to be removed, until the end.
pub(super) fn run(group: &Group) {
    let mut line = group.line(&group.heartbeats);
    let (mut attempts, mut not_before) = (0, Instant::now());
    while let Some(task) = group.next_task(not_before) {
        let began = Instant::now();
        let outcome = match &task {
            Task::Remove(removals) => remove(group, &mut line, removals),
            Task::Heartbeat(member) => heartbeat(group, &mut line, member),
        };
        match outcome {
            Ok(()) => {
                attempts = 0;
                group.state().trouble_is_over(Lane::Heartbeat);
            }
            Err(failure) => {
                attempts += 1;
                not_before = Instant::now() + pause(attempts, is_transport(&failure));
                group.failed(Lane::Heartbeat, attempts, began, group.error("being a member of", failure));
            }
        }
        group.changed.notify_all();
    }
}

/// An answer that takes longer than that is not waited for: within a session there is time for three.
fn longest_wait(group: &Group) -> Duration {
    (group.cluster.settings.session_timeout / 3).min(LONGEST_WAIT)
}

impl Group {
    /// None at the end. What was removed just before is still sent.
    fn next_task(&self, not_before: Instant) -> Option<Task> {
        let mut state = self.state();
        loop {
            let now = Instant::now();
            let is_time = not_before <= now;
            if !state.removals.is_empty() && is_time {
                return Some(Task::Remove(state.removals.iter().cloned().collect()));
            }
            if state.ended && state.removals.is_empty() {
                return None;
            }
            let until = match &mut state.member {
                _ if !is_time => Some(not_before),
                Some(member) if member.heartbeat_at <= now => {
                    member.heartbeat_at = now + self.cluster.settings.heartbeat_interval;
                    return Some(Task::Heartbeat(member.clone()));
                }
                Some(member) => Some(member.heartbeat_at),
                None => None,
            };
            state = match until {
                Some(until) => self.wait(state, until),
                None => self.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner),
            };
        }
    }

    /// The coordinator has moved, or is silent: what it holds back is not answered by it any more.
    fn ask_another(&self, line: &mut CoordinatorLine) {
        line.forget();
        self.state().unsettled_at = Some(Instant::now());
        self.joining.cut();
    }

    /// Lets the next heartbeat come as soon as it may.
    fn beat_again(&self) {
        if let Some(member) = &mut self.state().member {
            member.heartbeat_at = Instant::now();
        }
    }
}

fn remove(group: &Group, line: &mut CoordinatorLine, removals: &[Removal]) -> Result<(), Failure> {
    let answer = line.call(&requests::leave(&group.name, removals), longest_wait(group))?;
    // Of a single member it says that it is none, or has removed it.
    match answer.error_code {
        codes::NONE | codes::UNKNOWN_MEMBER_ID | codes::FENCED_INSTANCE_ID => {
            group.state().removals.retain(|removal| !removals.contains(removal));
            Ok(())
        }
        code => {
            if has_moved(code) {
                group.ask_another(line);
            }
            Err(Failure::of_number(code.into()))
        }
    }
}

fn heartbeat(group: &Group, line: &mut CoordinatorLine, member: &Member) -> Result<(), Failure> {
    let connected = line.connect();
    let sent = boot_time();
    let request = requests::heartbeat(&group.name, member);
    let answer = connected.and_then(|()| line.call(&request, longest_wait(group))).inspect_err(|failure| {
        group.beat_again();
        if failure.code == Code::OperationTimedOut {
            group.ask_another(line);
        }
    })?;
    let given_up = group.state().heartbeat_answered(member.epoch, sent, answer.error_code);
    match given_up {
        Some(true) => group.joining.cut(),
        Some(false) => {}
        None => {
            group.beat_again();
            if has_moved(answer.error_code) {
                group.ask_another(line);
            }
            return Err(Failure::of_number(answer.error_code.into()));
        }
    }
    Ok(())
}
