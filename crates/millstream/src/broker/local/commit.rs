//! Group commit: units that arrive while one write is under way are written together by the next.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, MutexGuard, PoisonError};

use super::super::{BrokerError, Delivered, ErrorKind};
use super::entries;
use super::plan::Plan;
use super::state::State;
use super::storage::LogStorage;
use super::unit::{GroupOffsets, StagedRecords, Unit};
use super::writer::Writer;
use super::{Appended, Shared, lock};
use crate::record::Timestamp;

/// One write takes units up to this size together, and at least one.
const WRITE_BYTES: usize = 16 << 20;

type Outcome = Result<Appended, BrokerError>;

/// Units that wait for a leader, and outcomes that wait for their owners.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: VecDeque<(u64, Arc<Unit>)>,
    outcomes: HashMap<u64, Outcome>,
    tickets: u64,
    led: bool,
}

impl Queue {
    fn enter(&mut self, unit: Arc<Unit>) -> u64 {
        self.tickets += 1;
        self.waiting.push_back((self.tickets, unit));
        self.tickets
    }

    fn take(&mut self) -> (Vec<u64>, Vec<Arc<Unit>>) {
        let (mut tickets, mut units, mut bytes) = (Vec::new(), Vec::new(), 0);
        while bytes < WRITE_BYTES
            && let Some((ticket, unit)) = self.waiting.pop_front()
        {
            bytes += unit.len_bytes();
            tickets.push(ticket);
            units.push(unit);
        }
        (tickets, units)
    }
}

/// Hands the outcomes over and the lead on when it goes out of scope. Where the leader has panicked, those it wrote for get an
/// error and do not wait for ever: what became of their units is unknown.
struct Leading<'a, S> {
    shared: &'a Shared<S>,
    tickets: Vec<u64>,
    outcomes: Vec<Outcome>,
}

impl<S> Drop for Leading<'_, S> {
    fn drop(&mut self) {
        let panicked = || Err(BrokerError::new(ErrorKind::OutcomeUnknown, "the thread that wrote this unit has panicked"));
        let outcomes = std::mem::take(&mut self.outcomes).into_iter().chain(std::iter::repeat_with(panicked));
        let mut queue = lock(&self.shared.queue);
        queue.led = false;
        queue.outcomes.extend(self.tickets.drain(..).zip(outcomes));
        self.shared.queue_moved.notify_all();
    }
}

impl<S: LogStorage> Shared<S> {
    /// Appends a unit, together with whatever else is waiting. The first to come leads: it writes for all.
    pub(super) fn submit(&self, unit: Arc<Unit>) -> Outcome {
        let mut queue = lock(&self.queue);
        let ticket = queue.enter(unit);
        loop {
            if let Some(outcome) = queue.outcomes.remove(&ticket) {
                return outcome;
            }
            if queue.led {
                queue = self.queue_moved.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            queue.led = true;
            let (tickets, units) = queue.take();
            drop(queue);
            let mut leading = Leading { shared: self, tickets, outcomes: Vec::new() };
            leading.outcomes = self.append_together(&units);
            drop(leading);
            queue = lock(&self.queue);
        }
    }

    fn append_together(&self, units: &[Arc<Unit>]) -> Vec<Outcome> {
        let mut writer = lock(&self.writer);
        if let Err(error) = writer.take_back(&self.storage) {
            return units.iter().map(|_| Err(error.clone())).collect();
        }
        let now = self.clock.now();
        let stored = units.iter().map(|unit| match &unit.idempotency {
            Some(idempotency) => self.stored_result(&idempotency.key),
            None => Ok(None),
        });
        let stored: Vec<_> = stored.collect();
        let mut plan = Plan::default();
        let mut results_here = BTreeMap::new();
        let mut outcomes = Vec::with_capacity(units.len());
        {
            let state = lock(&self.state);
            for (unit, stored) in units.iter().zip(stored) {
                outcomes.push(stored.and_then(|stored| add_unit(&mut plan, &state, unit, stored, &mut results_here, now)));
            }
        }
        let (write, undo) = plan.take_writes();
        match writer.write(&self.storage, write, undo) {
            Ok(()) => self.publish(plan),
            Err(error) => {
                let error = not_surely_undone(error);
                outcomes.iter_mut().filter(|outcome| outcome.is_ok()).for_each(|outcome| *outcome = Err(error.clone()));
            }
        }
        outcomes
    }

    /// Works a plan out, stores it and makes it visible.
    pub(super) fn carry_out<'a, T>(
        &self,
        writer: &mut MutexGuard<'_, Writer>,
        work_out: impl FnOnce(&State, &mut Plan<'a>) -> Result<T, BrokerError>,
    ) -> Result<T, BrokerError> {
        let mut plan = Plan::default();
        let outcome = work_out(&lock(&self.state), &mut plan)?;
        let (write, undo) = plan.take_writes();
        writer.write(&self.storage, write, undo)?;
        self.publish(plan);
        Ok(outcome)
    }

    fn publish(&self, plan: Plan<'_>) {
        plan.publish(&mut lock(&self.state));
        self.changed.notify_all();
    }

    /// The result that is stored under an idempotency key.
    pub(super) fn stored_result(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BrokerError> {
        let entry = self.storage.entry(&entries::idempotency_key(key))?;
        Ok(entry.and_then(|value| entries::decode_result(&value).map(<[u8]>::to_vec)))
    }
}

/// The error for units whose write was tried and failed. This process takes the write back before anything else is written; where
/// it dies before that, the next one may find the units stored. Only the storage can rule that out.
fn not_surely_undone(error: BrokerError) -> BrokerError {
    match error.kind() {
        ErrorKind::Retry => error,
        _ => BrokerError::new(ErrorKind::OutcomeUnknown, error.to_string()),
    }
}

fn add_unit<'a>(
    plan: &mut Plan<'a>,
    state: &State,
    unit: &'a Unit,
    stored: Option<Vec<u8>>,
    results_here: &mut BTreeMap<Vec<u8>, Vec<u8>>,
    now: Timestamp,
) -> Outcome {
    check(state, unit)?;
    if let Some(idempotency) = &unit.idempotency {
        if let Some(first) = stored.or_else(|| results_here.get(&idempotency.key).cloned()) {
            return Ok(Appended::AlreadyStored(first));
        }
        results_here.insert(idempotency.key.clone(), idempotency.result.clone());
    }
    plan.add(state, unit, now).map(Appended::Stored)
}

/// Whether the unit's producer and the memberships in it are still good.
pub(super) fn check(state: &State, unit: &Unit) -> Result<(), BrokerError> {
    if let Some((id, epoch)) = &unit.producer {
        state.check_producer(id, *epoch)?;
    }
    check_partitions(state, unit)?;
    for offsets in &unit.offsets {
        check_offsets(state, offsets)?;
    }
    Ok(())
}

/// Whether there are all partitions that the unit has records for. The error names the missing one where there is only one.
fn check_partitions(state: &State, unit: &Unit) -> Result<(), BrokerError> {
    let missing = |staged: &StagedRecords| Some((state.log(&staged.partition).err()?, staged.partition.clone()));
    let mut all_missing = unit.records.iter().filter_map(missing);
    match (all_missing.next(), all_missing.next()) {
        (None, _) => Ok(()),
        (Some((error, partition)), None) => Err(error.of_partition(partition)),
        (Some((error, _)), Some(_)) => Err(error),
    }
}

/// Whether those positions may be committed.
pub(super) fn check_offsets(state: &State, offsets: &GroupOffsets) -> Result<(), BrokerError> {
    let group = state.groups.get(offsets.fence.group());
    let unknown = || {
        let message = format!("group {} has no members", offsets.fence.group());
        BrokerError::new(ErrorKind::AbortTransaction, message)
    };
    group.ok_or_else(unknown)?.check(&offsets.fence)
}

impl Appended {
    /// The offsets that the records were given now; none where they were stored before.
    pub fn delivered(self) -> Delivered {
        match self {
            Appended::Stored(delivered) => delivered,
            Appended::AlreadyStored(_) => Delivered::new(),
        }
    }
}
