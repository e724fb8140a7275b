//! What a member has asked for, what it is, and what it was answered. No bytes, no connection.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use millstream::broker::BrokerError;
use millstream::broker::group::{Answer, Confirmation, Gone, MemberAssignment, MemberMetadata};
use millstream::clock::BootTime;

use crate::wire::codes;

/// How often the caller is told that the coordinator cannot be reached.
const TROUBLE_INTERVAL: Duration = Duration::from_secs(1);

/// The two connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    Join,
    Heartbeat,
}

/// A request that the coordinator holds back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wish {
    Join { member: Option<Arc<str>>, metadata: Bytes },
    Sync { assignments: Vec<(Arc<str>, Bytes)> },
}

/// A wish, which is current for as long as no other has its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) number: u64,
    pub(super) wish: Wish,
}

/// A member of a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) id: Arc<str>,
    pub(super) generation: i32,
    /// Another with every JoinGroup that was answered, though the generation may be the same.
    pub(super) epoch: u64,
    pub(super) heartbeat_at: Instant,
    /// The caller knows that it has to join again.
    asked_to_rejoin: bool,
}

/// Members to be taken out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Removal {
    pub(super) member: Arc<str>,
    pub(super) reason: String,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) ended: bool,
    /// Threads that have not ended.
    pub(super) running: u8,
    pub(super) job: Option<Job>,
    pub(super) member: Option<Member>,
    pub(super) removals: VecDeque<Removal>,
    /// When the last request was sent that proved the membership.
    pub(super) confirmation: Confirmation,
    /// When the coordinator was last looked for anew, or could not be reached.
    pub(super) unsettled_at: Option<Instant>,
    /// The id that the coordinator gave to a new member, which has to join under it.
    given: Option<Arc<str>>,
    answers: VecDeque<Result<Answer, BrokerError>>,
    numbers: u64,
    join_trouble: Option<BrokerError>,
    heartbeat_trouble: Option<BrokerError>,
    trouble_told: Option<Instant>,
}

/// What a member of a new generation is told.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) generation: i32,
    pub(super) member: Arc<str>,
    pub(super) members: Option<BTreeMap<Arc<str>, MemberMetadata>>,
}

impl State {
    /// A request to join takes the place of whatever was asked before. Returns whether one that is on the wire is to be given up.
    pub(super) fn ask_join(&mut self, member: Option<Arc<str>>, metadata: Bytes) -> bool {
        // The caller is yet to hear that its membership is over: it must not join as if it went on.
        if self.answers.iter().any(|answer| matches!(answer, Ok(Answer::Gone(_)))) {
            return false;
        }
        // Whoever takes tasks over waits for the end of transactions, in whatever generation that comes.
        self.answers.retain(|answer| matches!(answer, Err(_) | Ok(Answer::TransactionsEnded)));
        // The id of a new member is waited for: a coordinator that has given one away waits for it to join.
        let waits_for_id = matches!(&self.job, Some(Job { wish: Wish::Join { member: None, .. }, .. })) && self.given.is_none();
        let is_superseded = self.job.is_some() && !waits_for_id;
        if member.is_some() {
            self.given = None;
        }
        self.wish(Wish::Join { member, metadata });
        is_superseded
    }

    /// Asks for the assignment, if this is a member.
    pub(super) fn ask_sync(&mut self, assignments: Vec<(Arc<str>, Bytes)>) -> bool {
        let is_member = self.member.is_some();
        if is_member {
            self.wish(Wish::Sync { assignments });
        }
        false
    }

    /// This member leaves, or withdraws its request to join, under whatever id the coordinator knows it.
    pub(super) fn ask_to_leave(&mut self, reason: &str) -> bool {
        let joins_as = match &self.job {
            Some(Job { wish: Wish::Join { member, .. }, .. }) => self.id_to_join_under(member.as_ref()),
            _ => None,
        };
        let own: Vec<_> = self.member.iter().map(|member| member.id.clone()).chain(joins_as).collect();
        self.ask_removal(&own, reason);
        let joins = self.job.is_some();
        self.end_membership();
        joins || !own.is_empty()
    }

    /// What is to be told next.
    pub(super) fn tell(&mut self, answer: Answer) {
        self.answers.push_back(Ok(answer));
    }

    pub(super) fn ask_removal(&mut self, members: &[Arc<str>], reason: &str) -> bool {
        let joins_as = match &self.job {
            Some(Job { wish: Wish::Join { member, .. }, .. }) => member.clone(),
            _ => None,
        };
        let leaves = self.member.iter().map(|member| &member.id).chain(&joins_as).any(|own| members.contains(own));
        let removal = |member: &Arc<str>| Removal { member: member.clone(), reason: reason.to_owned() };
        self.removals.extend(members.iter().map(removal));
        if leaves {
            self.answers.retain(Result::is_err);
            self.end_membership();
        }
        leaves
    }

    fn wish(&mut self, wish: Wish) {
        self.numbers += 1;
        self.job = Some(Job { number: self.numbers, wish });
    }

    fn end_membership(&mut self) {
        self.member = None;
        self.job = None;
        self.given = None;
        self.confirmation.withdraw();
        self.join_trouble = None;
        self.heartbeat_trouble = None;
    }

    /// The id under which to join.
    pub(super) fn id_to_join_under(&self, asked: Option<&Arc<str>>) -> Option<Arc<str>> {
        self.given.as_ref().or(asked).cloned()
    }

    /// Whether nothing else was asked for since.
    pub(super) fn is_current(&self, number: u64) -> bool {
        self.job.as_ref().is_some_and(|job| job.number == number)
    }

    /// The coordinator has given an id to a new member. It is good for whatever that joins with now. Returns whether an id was waited for.
    pub(super) fn given_id(&mut self, id: Arc<str>) -> bool {
        let is_new = matches!(&self.job, Some(Job { wish: Wish::Join { member: None, .. }, .. })) && self.given.is_none();
        if is_new {
            self.given = Some(id);
        }
        is_new
    }

    pub(super) fn joined(&mut self, number: u64, joined: Joined, sent: BootTime, heartbeat_at: Instant) {
        if !self.is_current(number) {
            return;
        }
        let Joined { generation, member, members } = joined;
        self.numbers += 1;
        let (id, epoch) = (member.clone(), self.numbers);
        if self.member.as_ref().is_none_or(|before| before.id != id) {
            self.confirmation.withdraw();
        }
        self.confirmation.confirm(sent);
        self.member = Some(Member { id, generation, epoch, heartbeat_at, asked_to_rejoin: false });
        self.given = None;
        self.job = None;
        self.answers.push_back(Ok(Answer::Joined { generation, member, members }));
    }

    pub(super) fn synced(&mut self, number: u64, assignment: MemberAssignment) {
        if self.is_current(number) {
            self.job = None;
            self.answers.push_back(Ok(Answer::Synced(assignment)));
        }
    }

    /// A SyncGroup was answered with the news that the group gathers again.
    pub(super) fn not_synced(&mut self, number: u64) {
        if self.is_current(number) {
            self.job = None;
            self.ask_to_rejoin();
        }
    }

    /// A request that is waited for was answered with the news that this is no member.
    pub(super) fn gone(&mut self, number: u64, gone: Gone) {
        if !self.is_current(number) {
            return;
        }
        // An id that the caller has never heard of has expired: a new member asks for another.
        if self.given.take().is_none() {
            self.say_gone(gone);
        }
    }

    /// What was asked for is refused, and would be again.
    pub(super) fn refused(&mut self, number: u64, error: BrokerError) {
        if self.is_current(number) {
            self.job = None;
            self.answers.push_back(Err(error));
        }
    }

    /// A heartbeat of that epoch was answered. Returns whether a request that is held back is to be given up with the membership; none where the
    /// code is none that a heartbeat is about.
    pub(super) fn heartbeat_answered(&mut self, epoch: u64, sent: BootTime, code: i16) -> Option<bool> {
        let is_known = matches!(
            code,
            codes::NONE
                | codes::REBALANCE_IN_PROGRESS
                | codes::UNKNOWN_MEMBER_ID
                | codes::FENCED_INSTANCE_ID
                | codes::ILLEGAL_GENERATION
        );
        if !is_known {
            return None;
        }
        // Sent before the generation was another one, or the membership over.
        if self.member.as_ref().is_none_or(|member| member.epoch != epoch) {
            return Some(false);
        }
        let joins = matches!(&self.job, Some(Job { wish: Wish::Join { .. }, .. }));
        match code {
            codes::NONE => self.confirmation.confirm(sent),
            codes::REBALANCE_IN_PROGRESS => {
                self.confirmation.confirm(sent);
                if !joins {
                    self.ask_to_rejoin();
                }
            }
            // The next generation has begun, and its JoinGroup is on the way to us: what that says counts.
            codes::ILLEGAL_GENERATION if joins => {}
            codes::ILLEGAL_GENERATION => return Some(self.lose(Gone::OtherGeneration)),
            _ => return Some(self.lose(Gone::UnknownMember)),
        }
        Some(false)
    }

    fn lose(&mut self, gone: Gone) -> bool {
        let had_job = self.job.is_some();
        self.say_gone(gone);
        had_job
    }

    fn say_gone(&mut self, gone: Gone) {
        self.end_membership();
        self.answers.push_back(Ok(Answer::Gone(gone)));
    }

    fn ask_to_rejoin(&mut self) {
        if let Some(member) = &mut self.member
            && !std::mem::replace(&mut member.asked_to_rejoin, true)
        {
            self.answers.push_back(Ok(Answer::Rebalance));
        }
    }

    /// What is to be told next, if anything is.
    pub(super) fn next_answer(&mut self, now: Instant) -> Option<Result<Answer, BrokerError>> {
        if let Some(answer) = self.answers.pop_front() {
            return Some(answer);
        }
        if self.trouble_at(now).is_none_or(|time| time > now) {
            return None;
        }
        self.trouble_told = Some(now);
        self.join_trouble.clone().or_else(|| self.heartbeat_trouble.clone()).map(Err)
    }

    /// When the caller is to be told of trouble, if there is any.
    pub(super) fn trouble_at(&self, now: Instant) -> Option<Instant> {
        let time = self.trouble_told.map_or(now, |told| told + TROUBLE_INTERVAL);
        (self.join_trouble.is_some() || self.heartbeat_trouble.is_some()).then_some(time)
    }

    pub(super) fn trouble(&mut self, lane: Lane, error: BrokerError) {
        self.unsettled_at = Some(Instant::now());
        *self.trouble_of(lane) = Some(error);
    }

    pub(super) fn trouble_is_over(&mut self, lane: Lane) {
        *self.trouble_of(lane) = None;
    }

    fn trouble_of(&mut self, lane: Lane) -> &mut Option<BrokerError> {
        match lane {
            Lane::Join => &mut self.join_trouble,
            Lane::Heartbeat => &mut self.heartbeat_trouble,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot_time::boot_time;

    fn member(state: &mut State, generation: i32) -> u64 {
        state.ask_join(Some("me".into()), Bytes::new());
        let (number, now) = (state.job.as_ref().unwrap().number, Instant::now());
        state.joined(number, Joined { generation, member: "me".into(), members: None }, boot_time(), now);
        assert!(matches!(told(state), Some(Answer::Joined { .. })));
        state.member.as_ref().unwrap().epoch
    }

    fn told(state: &mut State) -> Option<Answer> {
        state.next_answer(Instant::now()).map(Result::unwrap)
    }

    fn beat(state: &mut State, epoch: u64, code: i16) {
        state.heartbeat_answered(epoch, boot_time(), code).unwrap();
    }

    #[test]
    fn a_rebalance_is_told_once_for_each_time_that_the_member_has_joined() {
        let mut state = State::default();
        let epoch = member(&mut state, 1);
        for _ in 0..3 {
            beat(&mut state, epoch, codes::REBALANCE_IN_PROGRESS);
        }
        state.ask_sync(Vec::new());
        state.not_synced(state.job.as_ref().unwrap().number);
        assert_eq!((told(&mut state), told(&mut state)), (Some(Answer::Rebalance), None));
        let epoch = member(&mut state, 1);
        beat(&mut state, epoch, codes::REBALANCE_IN_PROGRESS);
        assert_eq!(told(&mut state), Some(Answer::Rebalance));
    }

    #[test]
    fn answers_to_what_was_sent_before_the_member_joined_again_are_dropped() {
        let mut state = State::default();
        let before = member(&mut state, 1);
        let epoch = member(&mut state, 2);
        let codes =
            [codes::ILLEGAL_GENERATION, codes::UNKNOWN_MEMBER_ID, codes::FENCED_INSTANCE_ID, codes::REBALANCE_IN_PROGRESS];
        for code in codes {
            beat(&mut state, before, code);
            assert_eq!(told(&mut state), None, "{code}");
        }
        beat(&mut state, epoch, codes::ILLEGAL_GENERATION);
        assert_eq!(told(&mut state), Some(Answer::Gone(Gone::OtherGeneration)));
        assert_eq!((state.member.clone(), state.confirmation.at()), (None, None));
    }

    #[test]
    fn while_the_member_joins_another_generation_is_no_news_but_the_end_is() {
        let mut state = State::default();
        let epoch = member(&mut state, 1);
        assert!(!state.ask_join(Some("me".into()), Bytes::new()), "nothing else was on the wire");
        for code in [codes::ILLEGAL_GENERATION, codes::REBALANCE_IN_PROGRESS, codes::NONE] {
            assert_eq!(state.heartbeat_answered(epoch, boot_time(), code), Some(false));
            assert_eq!(told(&mut state), None, "{code}");
        }
        let given_up = state.heartbeat_answered(epoch, boot_time(), codes::UNKNOWN_MEMBER_ID);
        assert_eq!((given_up, told(&mut state)), (Some(true), Some(Answer::Gone(Gone::UnknownMember))));
        assert_eq!(state.job, None);
    }

    #[test]
    fn a_request_takes_the_place_of_the_one_before() {
        let mut state = State::default();
        member(&mut state, 1);
        state.ask_sync(Vec::new());
        let sync = state.job.as_ref().unwrap().number;
        assert!(state.ask_join(Some("me".into()), Bytes::from_static(b"a")));
        let first = state.job.as_ref().unwrap().number;
        assert!(state.ask_join(Some("me".into()), Bytes::from_static(b"b")));
        state.synced(sync, MemberAssignment::default());
        let now = Instant::now();
        state.joined(first, Joined { generation: 7, member: "me".into(), members: None }, boot_time(), now);
        state.gone(first, Gone::UnknownMember);
        state.refused(first, BrokerError::new(millstream::broker::ErrorKind::Stop, "no"));
        assert!(state.next_answer(now).is_none());
        assert!(matches!(&state.job, Some(Job { wish: Wish::Join { metadata, .. }, .. }) if metadata == "b"));
    }

    #[test]
    fn the_end_of_transactions_is_told_though_the_member_joins_again_meanwhile() {
        let mut state = State::default();
        member(&mut state, 1);
        state.tell(Answer::Rebalance);
        state.tell(Answer::TransactionsEnded);
        state.ask_join(Some("me".into()), Bytes::new());
        assert_eq!((told(&mut state), told(&mut state)), (Some(Answer::TransactionsEnded), None));
    }

    #[test]
    fn a_member_that_has_not_heard_of_its_end_does_not_join_as_if_it_went_on() {
        let mut state = State::default();
        let epoch = member(&mut state, 1);
        beat(&mut state, epoch, codes::ILLEGAL_GENERATION);
        state.ask_join(Some("me".into()), Bytes::new());
        assert_eq!(state.job, None);
        assert_eq!(told(&mut state), Some(Answer::Gone(Gone::OtherGeneration)));
        state.ask_join(None, Bytes::new());
        assert!(state.job.is_some());
    }

    #[test]
    fn an_id_that_was_given_to_a_new_member_is_used_and_another_asked_for_when_it_has_expired() {
        let mut state = State::default();
        state.ask_join(None, Bytes::new());
        assert!(!state.ask_join(None, Bytes::new()), "the request that brings the id is waited for");
        assert!(state.given_id("new".into()));
        assert!(!state.given_id("newer".into()), "it has one");
        assert_eq!(state.id_to_join_under(None).as_deref(), Some("new"));
        let number = state.job.as_ref().unwrap().number;
        state.gone(number, Gone::UnknownMember);
        assert_eq!((state.id_to_join_under(None), state.is_current(number), told(&mut state)), (None, true, None));
    }

    #[test]
    fn a_member_that_leaves_is_told_nothing_more() {
        let mut state = State::default();
        let epoch = member(&mut state, 1);
        beat(&mut state, epoch, codes::REBALANCE_IN_PROGRESS);
        assert!(state.ask_removal(&["me".into(), "other".into()], "the end"));
        beat(&mut state, epoch, codes::UNKNOWN_MEMBER_ID);
        assert_eq!((told(&mut state), state.member.clone(), state.removals.len()), (None, None, 2));
    }

    #[test]
    fn trouble_is_told_at_most_once_a_second_until_it_is_over() {
        let (mut state, now) = (State::default(), Instant::now());
        let trouble = || BrokerError::new(millstream::broker::ErrorKind::Retry, "nobody answers");
        let mut told = 0;
        for time in 0..40 {
            state.trouble(Lane::Join, trouble());
            told += u32::from(state.next_answer(now + Duration::from_millis(1 + time * 100)).is_some());
        }
        assert_eq!(told, 4);
        state.trouble_is_over(Lane::Join);
        assert!(state.next_answer(now + Duration::from_secs(60)).is_none());
    }

    #[test]
    fn the_proof_of_the_membership_is_the_request_that_was_sent_last_not_the_one_answered_last() {
        let (mut state, now) = (State::default(), BootTime::of_millis(boot_time().as_millis()));
        let epoch = member(&mut state, 1);
        let later = now + Duration::from_secs(5);
        state.heartbeat_answered(epoch, later, codes::REBALANCE_IN_PROGRESS);
        state.ask_join(Some("me".into()), Bytes::new());
        let number = state.job.as_ref().unwrap().number;
        state.joined(
            number,
            Joined { generation: 2, member: "me".into(), members: None },
            now + Duration::from_secs(1),
            Instant::now(),
        );
        assert_eq!(state.confirmation.at(), Some(later));
    }
}
