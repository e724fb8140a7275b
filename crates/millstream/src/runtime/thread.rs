use std::sync::Arc;
use std::time::Duration;

use super::commit::Committer;
use super::context::{Parts, Stepped, StreamsError};
use super::handover::{Fate, Handover};
use super::task::Task;
use super::transactor::is_undecided;
use super::trouble::{Complaint, Remedy, broker_error, caught};
use crate::broker::{Broker, BrokerError, ErrorKind, Fetched, FetchedBatch, Fetcher};
use crate::record::Timestamp;
use crate::task::{TaskError, TaskState};

/// How long a store that could not take what has committed is left alone, in milliseconds.
const SETTLE_PAUSE_MS: i64 = 100;

/// A poll that brings so many records means that there are more.
const BACKLOG_RECORDS: usize = 1_000;

/// A thread that counts: it has tasks that are ready, and takes turns at fetching for them, processing, and committing what they have
/// done in one transaction. Nothing else is waited for here.
///
/// It is driven from outside, step by step, so that a test can stop it anywhere. Dropping it is what a crash is:
/// nothing is committed; [`StreamThread::close`] is the orderly end.
pub struct StreamThread<B: Broker> {
    number: usize,
    parts: Arc<Parts<B>>,
    handover: Arc<Handover<B>>,
    fetcher: Option<B::Fetcher>,
    committer: Committer<B>,
    tasks: Vec<Task<B>>,
    /// All tasks have to look up again what is committed, once what this thread has begun is settled.
    starts_again: bool,
    /// The version of the handover with which all tasks are where they belong.
    seen: Option<u64>,
    last_idle_check: Timestamp,
    backlog: bool,
    complaint: Complaint,
}

impl<B: Broker> StreamThread<B> {
    pub(super) fn new(number: usize, parts: Arc<Parts<B>>, handover: Arc<Handover<B>>) -> Self {
        handover.opened();
        let (committer, last_idle_check) = (Committer::new(number, parts.clone()), parts.now());
        Self {
            number,
            parts,
            handover,
            fetcher: None,
            committer,
            tasks: Vec::new(),
            starts_again: false,
            seen: None,
            last_idle_check,
            backlog: false,
            complaint: Complaint::default(),
        }
    }

    /// Does what is to be done next: takes tasks over or gives them up, processes a batch, commits. Waits for records at most
    /// `max_wait`.
    ///
    /// # Errors
    /// Where the instance as a whole has to stop. It must not be stepped again.
    pub fn step(&mut self, max_wait: Duration) -> Result<Stepped, StreamsError> {
        match self.try_step(max_wait) {
            Ok(stepped) => Ok(stepped),
            Err(error) => {
                self.recover(&error)?;
                Ok(Stepped::Troubled)
            }
        }
    }

    /// Commits what has been processed and gives up all tasks.
    ///
    /// # Errors
    /// Where the last commit was refused for good; what it held is processed again by whoever goes on.
    pub fn close(mut self) -> Result<(), StreamsError> {
        if let Err(error) = self.commit() {
            self.recover(&error)?;
        }
        // What was begun and is in doubt is settled before the group is left, if it can be.
        if self.committer.is_unsettled()
            && let Err(error) = self.committer.connect()
        {
            tracing::warn!(thread = self.number, %error, "what this thread has begun could not be settled: whoever goes on waits for the brokers to end it");
        }
        Ok(())
    }

    fn try_step(&mut self, max_wait: Duration) -> Result<Stepped, TaskError> {
        if let Err(error) = self.committer.connect() {
            // What is not ours any more, or was never begun, waits for no broker.
            self.let_go_unconnected();
            return Err(error.into());
        }
        self.start_again()?;
        self.connect()?;
        let moved = self.change_hands()?;
        let settled = self.settle()?;
        let derived = self.derive()?;
        let wait = if moved || derived { Duration::ZERO } else { max_wait.min(self.until_commit()) };
        let polled = self.poll(wait)?;
        self.check_idle()?;
        if self.commit_is_due() {
            self.commit()?;
        }
        Ok(match (moved || derived || polled, settled) {
            (true, _) => Stepped::Worked,
            (false, false) => Stepped::Troubled,
            (false, true) => Stepped::Idle,
        })
    }

    /// Makes sure that there is a fetcher, and that it fetches for the tasks that run.
    fn connect(&mut self) -> Result<(), TaskError> {
        if self.fetcher.is_none() {
            self.fetcher = Some(self.parts.broker.fetcher()?);
            (0..self.tasks.len()).rev().try_for_each(|at| self.fetch_for(at))?;
        }
        Ok(())
    }

    /// Fetches for a task from where it is, if it runs.
    fn fetch_for(&mut self, at: usize) -> Result<(), TaskError> {
        match start(&mut self.fetcher, &self.tasks[at]) {
            Err(error) if error.kind() == ErrorKind::Stop => self.remedy(at, &error.into()),
            Err(error) => {
                tracing::warn!(task = %self.tasks[at].id(), %error, "the task could not be fetched for: the thread fetches anew");
                self.fetcher = None;
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Takes over the tasks that are for this thread, and lets go of those that are not any more.
    fn change_hands(&mut self) -> Result<bool, TaskError> {
        let requested = self.start_requested()?;
        let version = self.handover.version();
        if self.seen == Some(version) {
            return Ok(requested);
        }
        self.let_go(|fate| fate == Fate::Lost);
        for task in self.handover.take_for_thread(self.number) {
            // One that was lost on the way must not stop what its successor fetches.
            match self.handover.fate(&task, Some(self.number)) {
                Fate::Stay => self.take(task)?,
                Fate::Move(_) => self.handover.pass_to_thread(task),
                Fate::Return | Fate::Lost | Fate::Promote => self.handover.pass_to_updater(self.number, task),
            }
        }
        if self.tasks.iter().any(|task| self.handover.fate(task, Some(self.number)) == Fate::Return) {
            // What they have processed is committed while they are still ours.
            self.commit()?;
        }
        if self.committer.is_unsettled() {
            // What was begun may still be open: nothing of it is given up before that is settled, which comes with the next turn.
            return Ok(true);
        }
        self.let_go(|fate| fate != Fate::Stay);
        self.seen = Some(version);
        Ok(true)
    }

    /// Lets go of what has to go while there is no producer.
    fn let_go_unconnected(&mut self) {
        let is_unsettled = self.committer.is_unsettled();
        self.let_go(|fate| fate == Fate::Lost || (fate == Fate::Return && !is_unsettled));
        for task in self.handover.take_for_thread(self.number) {
            match self.handover.fate(&task, Some(self.number)) {
                Fate::Stay | Fate::Move(_) => self.handover.pass_to_thread(task),
                Fate::Return | Fate::Lost | Fate::Promote => self.handover.pass_to_updater(self.number, task),
            }
        }
    }

    /// Starts to run a task, which is lost or on its way to another thread perhaps: the next look at its fate says so.
    fn take(&mut self, mut task: Task<B>) -> Result<(), TaskError> {
        if task.state() == TaskState::Restoring {
            task.run(self.parts.now())?;
        }
        self.tasks.push(task);
        self.fetch_for(self.tasks.len() - 1)
    }

    /// Lets go of the tasks with such a fate. None is part of a transaction now.
    fn let_go(&mut self, goes: impl Fn(Fate) -> bool) {
        for at in (0..self.tasks.len()).rev() {
            let fate = self.handover.fate(&self.tasks[at], Some(self.number));
            if !goes(fate) {
                continue;
            }
            let task = self.remove(at);
            match fate {
                // With all that it has not committed.
                Fate::Move(_) => self.handover.pass_to_thread(task),
                // To close a store takes a while, and is not for a thread that counts.
                Fate::Stay | Fate::Return | Fate::Lost | Fate::Promote => self.handover.pass_to_updater(self.number, task),
            }
        }
    }

    /// Takes a task out of this thread's hands: nothing is fetched for it any more.
    fn remove(&mut self, at: usize) -> Task<B> {
        let task = self.tasks.remove(at);
        if let Some(fetcher) = &mut self.fetcher {
            task.inputs().iter().for_each(|input| fetcher.stop(input));
        }
        task
    }

    /// Gives a task that is to be looked up again to an updater.
    fn pass_to_updater(&mut self, at: usize) {
        let task = self.remove(at);
        self.handover.pass_to_updater(self.number, task);
    }

    /// After a transaction whose outcome was unknown, and is settled by now.
    fn start_again(&mut self) -> Result<(), TaskError> {
        while self.starts_again {
            match self.tasks.iter().position(|task| task.state() != TaskState::Quarantined) {
                Some(at) => {
                    self.tasks[at].reopen()?;
                    self.pass_to_updater(at);
                }
                None => self.starts_again = false,
            }
        }
        Ok(())
    }

    /// Gives back the tasks whose store a query has found damaged, and those that an operator lets try again.
    fn start_requested(&mut self) -> Result<bool, TaskError> {
        let mut requested = false;
        for at in (0..self.tasks.len()).rev() {
            if self.tasks[at].starts_as_requested()? {
                requested = true;
                self.pass_to_updater(at);
            }
        }
        Ok(requested)
    }

    fn poll(&mut self, max_wait: Duration) -> Result<bool, TaskError> {
        let Some(fetcher) = &mut self.fetcher else { return Ok(false) };
        let fetched = match fetcher.poll(max_wait) {
            Err(error) if error.kind() == ErrorKind::Fenced => {
                tracing::warn!(thread = self.number, %error, "the thread fetches anew");
                self.fetcher = None;
                return Ok(true);
            }
            fetched => fetched?,
        };
        match fetched {
            Fetched::Nothing => {
                self.backlog = false;
                Ok(false)
            }
            Fetched::Batch(batch) => self.process(&batch).map(|()| true),
            Fetched::Failed(partition, error) => {
                match self.tasks.iter().position(|task| task.inputs().contains(&partition)) {
                    Some(at) => self.remedy(at, &error.into())?,
                    None => tracing::debug!(%partition, %error, "a partition that nobody reads any more could not be fetched"),
                }
                Ok(true)
            }
        }
    }

    fn process(&mut self, batch: &<B::Fetcher as Fetcher>::Batch) -> Result<(), TaskError> {
        // A task that was let go of meanwhile has stopped fetching, but what it had fetched may lie here.
        let Some(at) = self.tasks.iter().position(|task| task.inputs().contains(batch.partition())) else { return Ok(()) };
        let mut records = Vec::new();
        let processed = batch.records(&mut records).map_err(TaskError::from).and_then(|()| {
            let task = &mut self.tasks[at];
            self.backlog = records.len() >= BACKLOG_RECORDS;
            if !records.is_empty() {
                task.last_record_at = Some(self.parts.clock.now());
            }
            // What came of a task that has stopped running meanwhile is fetched again when it runs.
            task.running_mut().map_or(Ok(()), |running| caught(|| running.process(&records, batch.next_offset())))
        });
        processed.or_else(|error| self.remedy(at, &error))
    }

    /// How long until what is uncommitted is due.
    fn until_commit(&self) -> Duration {
        if !self.tasks.iter().filter_map(Task::running).any(|running| running.wants_commit()) {
            return Duration::MAX;
        }
        let since = self.parts.now().0.saturating_sub(self.committer.last_commit.0);
        self.commit_interval().saturating_sub(Duration::from_millis(since.max(0) as u64))
    }

    fn commit_interval(&self) -> Duration {
        let config = &self.parts.config;
        if self.backlog { config.commit_interval_backlog } else { config.commit_interval }
    }

    fn commit_is_due(&self) -> bool {
        if !self.parts.is_before(self.committer.last_commit, self.commit_interval().as_millis() as i64) {
            return true;
        }
        let bytes: usize = self.tasks.iter().filter_map(Task::running).map(|running| running.uncommitted_bytes()).sum();
        bytes >= self.parts.config.uncommitted_bytes
    }

    /// Commits the work of all tasks that run, and lets the stores take it.
    fn commit(&mut self) -> Result<(), TaskError> {
        // Tasks of another membership have been lost, and go with the next turn.
        let Some((membership, fence)) = self.handover.proof() else { return Ok(()) };
        let ours = self.tasks.iter_mut().filter(|task| task.membership() == membership);
        let outcome = self.committer.commit(ours.collect(), &fence);
        self.handover.put_trims(self.committer.take_trims());
        self.rewind()?;
        for (id, error) in self.committer.take_failed() {
            if let Some(at) = self.tasks.iter().position(|task| task.id() == id && task.membership() == membership) {
                self.remedy(at, &error)?;
            }
        }
        outcome
    }

    /// Fetches again from where the tasks were taken back to.
    fn rewind(&mut self) -> Result<(), TaskError> {
        for id in self.committer.take_rewound() {
            if let Some(at) = self.tasks.iter().position(|task| task.id() == id) {
                self.fetch_for(at)?;
            }
        }
        Ok(())
    }

    /// Lets the stores take what has committed but could not be written. False where one still cannot.
    fn settle(&mut self) -> Result<bool, TaskError> {
        let mut settled = true;
        for at in (0..self.tasks.len()).rev() {
            let waits = self.tasks[at].is_waiting(self.parts.now());
            let Some(suspended) = self.tasks[at].suspended_mut() else { continue };
            if waits {
                settled = false;
                continue;
            }
            match caught(|| suspended.settle()) {
                Ok(()) => {
                    self.tasks[at].resume()?;
                    self.fetch_for(at)?;
                }
                Err(error) => {
                    settled = false;
                    self.tasks[at].waits = Some((self.parts.now(), SETTLE_PAUSE_MS));
                    self.remedy(at, &error)?;
                }
            }
        }
        Ok(settled)
    }

    /// Lets one task do a piece of what is made of committed state. Says whether there was any.
    fn derive(&mut self) -> Result<bool, TaskError> {
        for at in 0..self.tasks.len() {
            match self.tasks[at].running_mut().map_or(Ok(false), |running| caught(|| running.derive())) {
                Ok(false) => {}
                Ok(true) => return Ok(true),
                Err(error) => return self.remedy(at, &error).map(|()| true),
            }
        }
        Ok(false)
    }

    /// Asks now and then whether the source partitions that are silent have come to their end, and lets those that have follow the
    /// others. That is committed at once: what comes later is judged by it, before and after a restart alike.
    fn check_idle(&mut self) -> Result<(), TaskError> {
        let Some(timeout_ms) = self.parts.config.idle_timeout.map(|timeout| timeout.as_millis() as i64) else { return Ok(()) };
        let now = self.parts.now();
        let mut fell = false;
        let is_silent = |task: &Task<B>| task.last_record_at.is_none_or(|at| now.0 - at.0 >= timeout_ms);
        for task in self.tasks.iter_mut().filter(|task| is_silent(task)) {
            let input = task.input().clone();
            let Some(running) = task.running_mut().filter(|running| running.is_idle().is_some()) else { continue };
            let answer = self.handover.take_idle(&input).filter(|idle| (0..timeout_ms).contains(&(now.0 - idle.asked_at.0)));
            let Some(idle) = answer.filter(|idle| running.position() >= idle.end) else { continue };
            running.fall_idle(idle.others);
            fell |= running.wants_commit();
        }
        if !self.parts.is_before(self.last_idle_check, (timeout_ms / 4).max(1)) {
            self.last_idle_check = now;
            let silent = self
                .tasks
                .iter()
                .filter(|task| is_silent(task) && task.running().is_some_and(|running| running.is_idle().is_some()));
            self.handover.ask_if_idle(silent.map(|task| task.input().clone()));
        }
        if fell { self.commit() } else { Ok(()) }
    }

    /// Does what the error of a task asks for. The others go on.
    fn remedy(&mut self, at: usize, error: &TaskError) -> Result<(), TaskError> {
        let task = &mut self.tasks[at];
        match task.recover(error, self.parts.now())? {
            Remedy::Wait => {
                if task.running().is_some_and(|running| running.unapplied_changes() > 0) {
                    task.suspend()?;
                    self.stop_fetching(at);
                }
            }
            Remedy::StartAgain | Remedy::Rebuild => self.pass_to_updater(at),
            Remedy::Quarantine => self.stop_fetching(at),
        }
        Ok(())
    }

    fn stop_fetching(&mut self, at: usize) {
        if let Some(fetcher) = &mut self.fetcher {
            self.tasks[at].inputs().iter().for_each(|input| fetcher.stop(input));
        }
    }

    /// Does what an error asks for that concerns all tasks of the thread.
    fn recover(&mut self, error: &TaskError) -> Result<(), StreamsError> {
        // What is repeated is said now and then; each doubt by itself.
        let said = self.complaint.is_to_be_said(&error.to_string(), self.parts.now());
        if let Some(held_back) = said.or(is_undecided(error).then_some(0)) {
            let kind = broker_error(error).map(|error| tracing::field::debug(error.kind()));
            tracing::warn!(thread = self.number, %error, kind, held_back, "the thread could not go on for now");
        }
        match error {
            TaskError::Halt(_) | TaskError::Stop(_) => return Err(StreamsError::new(error)),
            error if is_undecided(error) => {
                // A new producer settles what the old one began; every task then starts from what is committed.
                self.committer.discard_producer();
                self.fetcher = None;
                self.starts_again = true;
            }
            TaskError::Broker(broker) if broker.kind() == ErrorKind::Stop => return Err(StreamsError::new(broker)),
            TaskError::Broker(_) | TaskError::Store(_) => {}
        }
        let reason = error.to_string();
        self.tasks.iter().filter(|task| task.state() != TaskState::Quarantined).for_each(|task| task.put_trouble(&reason));
        Ok(())
    }
}

/// Fetches for a task from where it is, if it runs.
fn start<F: Fetcher, B: Broker<Fetcher = F>>(fetcher: &mut Option<F>, task: &Task<B>) -> Result<(), BrokerError> {
    match (fetcher, task.running()) {
        (Some(fetcher), Some(running)) => fetcher.start(task.input(), running.position()),
        // It is started with the next fetcher, or when it runs again.
        _ => Ok(()),
    }
}

impl<B: Broker> Drop for StreamThread<B> {
    fn drop(&mut self) {
        self.tasks.drain(..).for_each(|task| self.handover.give_up(task));
        self.handover.take_for_thread(self.number).into_iter().for_each(|task| self.handover.give_up(task));
        self.handover.closed();
    }
}
