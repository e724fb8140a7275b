//! Lines to the coordinator of a group on which requests and answers may be lost, or come late.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::super::{LocalCoordinator, MemoryLog, lock};
use super::{Call, Fault, FaultyBroker};
use crate::broker::BrokerError;
use crate::broker::group::{Answer, Confirmation, Coordinator, GroupMember, JoinRequest, MemberAssignment};

/// A membership of a [`FaultyBroker`]. Dropped while its instance lives, it leaves the group; after a crash it stays a member until
/// [`FaultyBroker::expire_members`].
pub type FaultyMembership = GroupMember<FaultyCoordinator>;

/// A member's line to the coordinator of a group of a [`FaultyBroker`].
pub struct FaultyCoordinator {
    broker: FaultyBroker,
    group: Arc<str>,
    line: LocalCoordinator<MemoryLog>,
    /// Was lost on its way: it is sent again when the next answer is asked for.
    lost: Option<Request>,
    /// Is under way, and its answer will be lost: then it is sent again.
    to_lose: Option<Request>,
    /// Answers on their way, and how many times it is asked for one before they are here.
    late: VecDeque<Answer>,
    late_for: u32,
}

/// A request, kept so that it can be sent again.
#[derive(Clone)]
enum Request {
    Join(JoinRequest),
    Sync(BTreeMap<Arc<str>, MemberAssignment>),
}

impl FaultyCoordinator {
    pub(super) fn new(broker: FaultyBroker, group: Arc<str>, line: LocalCoordinator<MemoryLog>) -> Self {
        Self { broker, group, line, lost: None, to_lose: None, late: VecDeque::new(), late_for: 0 }
    }

    /// Takes the place of what was sent before.
    fn send(&mut self, request: Request) -> Result<(), BrokerError> {
        let call = if matches!(request, Request::Join(_)) { Call::JoinGroup } else { Call::SyncGroup };
        (self.lost, self.to_lose) = (None, None);
        let fault = match self.broker.before(call) {
            Ok(fault) => fault,
            Err(error) => {
                self.lost = Some(request);
                return Err(error);
            }
        };
        match fault {
            Some(Fault::LoseRequest) => self.lost = Some(request),
            Some(Fault::LoseAnswer) => {
                self.deliver(request.clone())?;
                self.to_lose = Some(request);
            }
            _ => self.deliver(request)?,
        }
        self.broker.after(fault)
    }

    fn deliver(&mut self, request: Request) -> Result<(), BrokerError> {
        match request {
            Request::Sync(assignments) => self.line.sync(assignments),
            Request::Join(mut request) => {
                // A new member that asks again does so under the name that it was given.
                request.member = request.member.or_else(|| self.line.member().cloned());
                self.line.join(request)?;
                if let Some(member) = self.line.member() {
                    lock(&self.broker.instance.members).insert((self.group.clone(), member.clone()));
                }
                Ok(())
            }
        }
    }

    /// The next answer that is not lost.
    fn hear(&mut self, max_wait: Duration) -> Result<Option<Answer>, BrokerError> {
        loop {
            let answer = self.line.next(max_wait)?;
            let is_to_lose = matches!(answer, Some(Answer::Joined { .. } | Answer::Synced(_) | Answer::Rebalance));
            match self.to_lose.take() {
                Some(request) if is_to_lose => self.send(request)?,
                // The membership is over, and so is the request.
                _ if matches!(answer, Some(Answer::Gone(_))) => return Ok(answer),
                to_lose => {
                    self.to_lose = to_lose;
                    return Ok(answer);
                }
            }
        }
    }
}

impl Coordinator for FaultyCoordinator {
    fn join(&mut self, request: JoinRequest) -> Result<(), BrokerError> {
        // Whoever has not heard yet that its membership is over must not join as if it went on.
        if self.late.iter().any(|answer| matches!(answer, Answer::Gone(_))) {
            return Ok(());
        }
        self.late.retain(|answer| *answer == Answer::TransactionsEnded);
        self.send(Request::Join(request))
    }

    fn sync(&mut self, assignments: BTreeMap<Arc<str>, MemberAssignment>) -> Result<(), BrokerError> {
        self.send(Request::Sync(assignments))
    }

    fn next(&mut self, max_wait: Duration) -> Result<Option<Answer>, BrokerError> {
        let fault = self.broker.before(Call::Poll)?;
        if let Some(request) = self.lost.take() {
            self.send(request)?;
        }
        let answer = match fault {
            _ if self.late_for > 0 => {
                self.late_for -= 1;
                None
            }
            Some(Fault::Nothing) => None,
            Some(Fault::Late(polls)) => {
                self.late_for = polls;
                let answer = self.hear(Duration::ZERO)?;
                self.late.extend(answer);
                None
            }
            _ if !self.late.is_empty() => self.late.pop_front(),
            _ => self.hear(max_wait)?,
        };
        self.broker.after(fault)?;
        Ok(answer)
    }

    fn leave(&mut self, reason: &str) -> Result<(), BrokerError> {
        let fault = self.broker.before(Call::Other)?;
        self.line.leave(reason)?;
        self.broker.after(fault)
    }

    fn end_transactions(&mut self, transactional_ids: Vec<String>) -> Result<(), BrokerError> {
        let fault = self.broker.before(Call::Other)?;
        self.line.end_transactions(transactional_ids)?;
        self.broker.after(fault)
    }

    fn remove(&mut self, members: &[Arc<str>], reason: &str) -> Result<(), BrokerError> {
        let fault = self.broker.before(Call::Other)?;
        self.line.remove(members, reason)?;
        self.broker.after(fault)
    }

    fn confirmation(&self) -> Option<Confirmation> {
        self.line.confirmation()
    }

    fn is_settled(&self) -> bool {
        self.line.is_settled()
    }
}

impl Drop for FaultyCoordinator {
    /// Where the group could not be told that the member leaves, it finds out by itself.
    fn drop(&mut self) {
        if !self.broker.is_crashed()
            && let Err(error) = self.line.leave("")
        {
            tracing::debug!(%error, group = %self.group, "the group could not be told that a member leaves");
        }
    }
}
