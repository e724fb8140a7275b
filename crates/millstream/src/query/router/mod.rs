//! A question on its way through the instances of an application: whom to ask for which partitions, what to do where one does not answer, and when
//! the answers are good enough together. It decides and does nothing else: who drives it sends what it says, tells it what came back, and says
//! how late it is.
//!
//! - Every partition is asked of its owner, all partitions of an instance in one request, all instances at once. What an instance answers is taken as
//!   a whole or not at all, and only for partitions that no other answer has been taken for: none is counted twice.
//! - A partition that is not answered for, or has no owner, is asked for again, of whoever owns it then, until it has been without an answer for
//!   [`RouterLimits::failover_wait`]. Where stale is allowed, a copy is asked at once.
//!   So is one whose owner is another than the one that was asked, before that has answered.
//! - A request that takes long is sent a second time, where stale is allowed to copies. What answers first is taken.
//! - In the end every answer of an owner must be of the newest generation that anybody has shown, or its instance must own the same partition there
//!   too. Else it is dropped, and its partitions are asked for again.

mod flight;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::ReadOptions;
use super::part::{Ask, Parts, Question, Standing};
use super::view::Holders;
use crate::record::Partition;
use flight::Flight;

/// How long a partition that was not answered for is left alone at first; each time twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// How long a question may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouterLimits {
    /// In all, since it came.
    pub deadline: Duration,
    /// How long a partition may be without somebody who answers for it.
    pub failover_wait: Duration,
}

/// The number of a request of one question.
pub type RequestId = u64;

/// A request that is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its number, by which the answer is told.
    pub id: RequestId,
    /// Who is to be asked.
    pub instance: Arc<str>,
    /// What.
    pub ask: Ask,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Send these, if there are any, and come again with the next answer, or then, whatever comes first.
    Wait {
        /// To be sent.
        requests: Vec<Request>,
        /// Since the question came.
        until: Duration,
    },
    /// There is no more to come.
    Done,
}

/// One question on its way. All times are since it came.
#[derive(Debug)]
pub struct Router {
    me: Arc<str>,
    question: Question,
    read: ReadOptions,
    asked: Vec<Partition>,
    limits: RouterLimits,
    open: BTreeMap<Partition, Open>,
    /// Since when partitions are without an answer, those included that have got one since: it may have to be dropped.
    failing_since: BTreeMap<Partition, Duration>,
    flights: Vec<Flight>,
    answers: Vec<(Arc<str>, Parts)>,
    last_id: RequestId,
}

/// A partition that nobody is asked for now, and that has no answer.
#[derive(Debug, Clone, Default)]
struct Open {
    /// How often it was not answered for.
    failures: u32,
    /// When its owner is asked again.
    not_before: Duration,
    /// The owner that did not answer, and the generation in which it was one.
    failed: Option<(Arc<str>, i32)>,
    /// Those whose copy was asked since its owner was.
    asked_copies: BTreeSet<Arc<str>>,
}

impl Router {
    /// A question that has just come to the instance `me`, for these partitions, each of them once.
    pub fn new(me: Arc<str>, question: Question, partitions: Vec<Partition>, read: ReadOptions, limits: RouterLimits) -> Self {
        let open = partitions.iter().map(|partition| (*partition, Open::default())).collect();
        Self {
            me,
            question,
            read,
            asked: partitions,
            limits,
            open,
            failing_since: BTreeMap::new(),
            flights: Vec::new(),
            answers: Vec::new(),
            last_id: 0,
        }
    }

    /// What is to be done now, as far as is known who holds what. `hedge_after` says how long an instance usually takes at most.
    pub fn next(&mut self, now: Duration, holders: &Holders, hedge_after: &dyn Fn(&str) -> Duration) -> Next {
        let is_over = now >= self.limits.deadline;
        if is_over {
            let flights = std::mem::take(&mut self.flights);
            flights.into_iter().for_each(|flight| self.land(flight, now));
        }
        self.leave_former_owners(now, holders);
        if self.flights.is_empty() && self.open.keys().all(|partition| is_over || self.is_given_up(*partition, now, holders)) {
            self.drop_disagreeing(now, holders);
            if self.open.keys().all(|partition| is_over || self.is_given_up(*partition, now, holders)) {
                return Next::Done;
            }
        }
        let mut requests = self.depart(now, holders, hedge_after);
        requests.extend(self.hedge(now, holders));
        Next::Wait { requests, until: self.next_time(now, holders) }
    }

    /// An answer has come. One that is none to the request counts as a failure.
    pub fn answered(&mut self, id: RequestId, parts: Parts, now: Duration) {
        let Some(number) = self.flights.iter().position(|flight| flight.has(id)) else { return };
        let is_first = self.flights[number].is_first(id);
        let is_good = self.flights[number].is_answer(&parts, &self.question, self.read);
        match (is_good, is_first) {
            (false, _) => self.failed(id, now),
            (true, true) => {
                let flight = self.flights.swap_remove(number);
                self.take(flight.instance.clone(), parts, &flight, now);
            }
            (true, false) => {
                self.flights[number].keep(id, parts);
                if self.flights[number].is_answered_by_others() {
                    let flight = self.flights.swap_remove(number);
                    self.land(flight, now);
                }
            }
        }
    }

    /// No answer will come.
    pub fn failed(&mut self, id: RequestId, now: Duration) {
        let Some(number) = self.flights.iter().position(|flight| flight.has(id)) else { return };
        self.flights[number].lose(id);
        if self.flights[number].is_lost() {
            let flight = self.flights.swap_remove(number);
            self.land(flight, now);
        }
    }

    /// The partitions that were asked for.
    pub fn asked(&self) -> &[Partition] {
        &self.asked
    }

    /// What was answered, no partition in two of them.
    pub fn into_answers(self) -> Vec<Parts> {
        self.answers.into_iter().map(|(_, parts)| parts).collect()
    }

    /// Asks for every open partition whose time has come.
    fn depart(&mut self, now: Duration, holders: &Holders, hedge_after: &dyn Fn(&str) -> Duration) -> Vec<Request> {
        let mut targets: BTreeMap<Arc<str>, Vec<Partition>> = BTreeMap::new();
        for (&partition, open) in &self.open {
            if !self.is_given_up(partition, now, holders)
                && let Some(target) = self.target(partition, open, now, holders)
            {
                targets.entry(target).or_default().push(partition);
            }
        }
        let mut requests = Vec::new();
        for (instance, partitions) in targets {
            let before = partitions.iter().filter_map(|partition| Some((*partition, self.open.remove(partition)?))).collect();
            let request = self.request(instance.clone(), partitions);
            // What lies here is read, not sent for.
            let hedge_at = (instance != self.me).then(|| now + hedge_after(&instance));
            let mut flight = Flight::new(request.id, instance.clone(), holders.generation(), hedge_at, before);
            flight.is_to_owner = flight.partitions.keys().all(|partition| holders.owner(*partition) == Some(&instance));
            self.flights.push(flight);
            requests.push(request);
        }
        requests
    }

    /// Who is to be asked for the partition now, if anybody is.
    fn target(&self, partition: Partition, open: &Open, now: Duration, holders: &Holders) -> Option<Arc<str>> {
        let owner = holders.owner(partition);
        if let Some(copy) = self.unasked_copy(partition, open, holders) {
            return Some(copy.clone());
        }
        // Before the group has told anything, what is here is all that is known.
        let owner = owner.unwrap_or(&self.me);
        let has_changed = open.failed.as_ref().is_some_and(|(failed, of)| failed != owner || *of != holders.generation());
        (now >= open.not_before || has_changed).then(|| owner.clone())
    }

    /// Sends a second time what takes long.
    fn hedge(&mut self, now: Duration, holders: &Holders) -> Vec<Request> {
        let mut requests = Vec::new();
        for number in 0..self.flights.len() {
            let Some(partitions) = self.flights[number].take_hedge(now) else { continue };
            let mut targets: BTreeMap<Arc<str>, Vec<Partition>> = BTreeMap::new();
            let late = self.flights[number].instance.clone();
            for partition in partitions {
                let copy = holders.copies(partition).iter().find(|copy| **copy != late).filter(|_| self.read.allow_stale);
                targets.entry(copy.unwrap_or(&late).clone()).or_default().push(partition);
            }
            for (instance, partitions) in targets {
                let request = self.request(instance.clone(), partitions);
                self.flights[number].add_second(request.id, instance);
                requests.push(request);
            }
        }
        requests
    }

    fn request(&mut self, instance: Arc<str>, partitions: Vec<Partition>) -> Request {
        self.last_id += 1;
        Request { id: self.last_id, instance, ask: Ask { question: self.question.clone(), partitions, read: self.read } }
    }

    /// Waits no longer for those who have ceased to own what they were asked for as its owners.
    fn leave_former_owners(&mut self, now: Duration, holders: &Holders) {
        let (left, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.flights).into_iter().partition(|flight| {
            let is_another = |partition: &Partition| holders.owner(*partition).is_some_and(|owner| *owner != flight.instance);
            flight.is_to_owner && holders.generation() > flight.generation && flight.partitions.keys().any(is_another)
        });
        self.flights = kept;
        left.into_iter().for_each(|flight| self.land(flight, now));
    }

    /// Takes what second requests have brought of a flight, and opens the rest.
    fn land(&mut self, mut flight: Flight, now: Duration) {
        for (instance, parts) in flight.take_kept() {
            let of_parts = flight.split(&parts);
            self.take(instance, parts, &of_parts, now);
        }
        self.reopen(flight, now);
    }

    /// Takes an answer, and opens the partitions of the flight that are not in it.
    fn take(&mut self, instance: Arc<str>, parts: Parts, flight: &Flight, now: Duration) {
        let mut rest = flight.clone();
        for part in &parts.parts {
            rest.partitions.remove(&part.partition);
        }
        self.reopen(rest, now);
        self.answers.push((instance, parts));
    }

    /// These partitions were not answered for.
    fn reopen(&mut self, flight: Flight, now: Duration) {
        let Flight { partitions, instance, generation, .. } = flight;
        for (partition, mut open) in partitions {
            self.failing_since.entry(partition).or_insert(now);
            open.failures += 1;
            open.not_before = now + (FIRST_PAUSE * (1 << open.failures.min(5).saturating_sub(1))).min(LONGEST_PAUSE);
            open.failed = Some((instance.clone(), generation));
            // Once all copies were asked too, they are asked again after the owner.
            if !open.asked_copies.insert(instance.clone()) {
                open.asked_copies = BTreeSet::from([instance.clone()]);
            }
            self.open.insert(partition, open);
        }
    }

    /// Whether nobody is asked for an open partition any more.
    fn is_given_up(&self, partition: Partition, now: Duration, holders: &Holders) -> bool {
        let is_late = self.failing_since.get(&partition).is_some_and(|since| now >= *since + self.limits.failover_wait);
        is_late && self.open.get(&partition).is_none_or(|open| self.unasked_copy(partition, open, holders).is_none())
    }

    /// A copy that may answer, and was not asked yet since the owner was.
    fn unasked_copy<'h>(&self, partition: Partition, open: &Open, holders: &'h Holders) -> Option<&'h Arc<str>> {
        let may_be_asked = self.read.allow_stale && (open.failures > 0 || holders.owner(partition).is_none());
        let copies = holders.copies(partition).iter().filter(|_| may_be_asked);
        copies.into_iter().find(|copy| !open.asked_copies.contains(*copy))
    }

    /// Opens what was answered by somebody who does not own it in the newest generation.
    fn drop_disagreeing(&mut self, now: Duration, holders: &Holders) {
        let is_active = |parts: &Parts| parts.parts.iter().any(|part| part.standing == Standing::Active);
        let shown = self.answers.iter().filter(|(_, parts)| is_active(parts)).map(|(_, parts)| parts.generation).max();
        let newest = shown.unwrap_or(0).max(holders.generation());
        let (agree, disagree): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.answers).into_iter().partition(|(instance, parts)| agrees(instance, parts, newest, holders));
        self.answers = agree;
        for (instance, parts) in disagree {
            let partitions = parts.parts.iter().map(|part| (part.partition, Open::default())).collect();
            self.reopen(Flight::new(0, instance, parts.generation, None, partitions), now);
        }
    }

    /// When something is to be done though no answer has come.
    fn next_time(&self, now: Duration, holders: &Holders) -> Duration {
        let is_wanted = |(partition, _): &(&Partition, &Open)| !self.is_given_up(**partition, now, holders);
        let retries = self.open.iter().filter(is_wanted).map(|(_, open)| open.not_before);
        // Somebody else may own it at any moment.
        let looks = (!self.open.is_empty()).then(|| now + FIRST_PAUSE);
        let given_up =
            self.open.keys().filter_map(|partition| Some(*self.failing_since.get(partition)? + self.limits.failover_wait));
        let hedges = self.flights.iter().filter_map(|flight| flight.hedge_at);
        let times = retries.chain(looks).chain(given_up).chain(hedges).filter(|time| *time > now);
        times.min().unwrap_or(self.limits.deadline).min(self.limits.deadline)
    }
}

/// Whether the instance owns in the newest generation what it has answered for as the owner.
fn agrees(instance: &Arc<str>, parts: &Parts, newest: i32, holders: &Holders) -> bool {
    let mut active = parts.parts.iter().filter(|part| part.standing == Standing::Active);
    if holders.generation() < newest {
        return parts.generation == newest || active.next().is_none();
    }
    // Nothing has been told of anybody yet.
    holders.generation() <= 0 || active.all(|part| holders.owner(part.partition) == Some(instance))
}
