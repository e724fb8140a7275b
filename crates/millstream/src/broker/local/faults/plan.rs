//! What is to go wrong, and when.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::lock;
use crate::broker::ErrorKind;

/// A call on the broker, about to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// [`crate::broker::TransactionalProducer::begin`].
    Begin,
    /// [`crate::broker::TransactionalProducer::send`].
    Send,
    /// [`crate::broker::TransactionalProducer::send_offsets`].
    SendOffsets,
    /// [`crate::broker::TransactionalProducer::commit`].
    Commit,
    /// [`crate::broker::TransactionalProducer::abort`].
    Abort,
    /// [`crate::broker::group::Coordinator::next`], of which a poll of a membership makes as many as there are answers that bring no event.
    Poll,
    /// [`crate::broker::group::Coordinator::join`], the first time and whenever it is sent again.
    JoinGroup,
    /// [`crate::broker::group::Coordinator::sync`], the first time and whenever it is sent again.
    SyncGroup,
    /// [`crate::broker::Fetcher::poll`].
    Fetch,
    /// [`crate::broker::LogReader::read`].
    Read,
    /// [`crate::broker::Broker::join`].
    Join,
    /// [`crate::broker::Broker::fetcher`].
    Fetcher,
    /// [`crate::broker::Broker::producer`].
    Producer,
    /// [`crate::broker::Broker::committed`].
    Committed,
    /// [`crate::broker::Broker::log_range`].
    LogRange,
    /// [`crate::broker::Broker::delete_records`].
    DeleteRecords,
    /// Any other call of the broker's.
    Other,
}

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The instance dies before the call takes effect.
    CrashBefore,
    /// The instance dies after the call has taken effect.
    CrashAfter,
    /// The call fails with an error of that kind and has no effect: [`ErrorKind::Retry`] for a full disk,
    /// [`ErrorKind::AbortTransaction`] for a commit that is refused.
    Fail(ErrorKind),
    /// As [`Fault::Fail`], for one partition alone, which the error names: the one that a send is for, the latest that a commit's
    /// transaction has sent to, or the one whose turn it is at a fetch, which stops it. On another call, or where there is no such
    /// partition: no fault.
    FailPartition(ErrorKind),
    /// A commit fails with [`ErrorKind::OutcomeUnknown`], and this is what becomes of it. On another call: no fault.
    OutcomeUnknown(CommitOutcome),
    /// A commit succeeds, and uses up that many offsets more at the end of each partition it wrote to. On another call: no fault.
    BurnOffsets(u32),
    /// A poll, a fetch or a read brings nothing, whatever there is. On another call: no fault.
    Nothing,
    /// A request to the coordinator of a group is lost on its way, and sent again when the next answer is asked for. On another call: no fault.
    LoseRequest,
    /// The answer to a request to the coordinator of a group is lost: the request is sent again. On another call: no fault.
    LoseAnswer,
    /// Nothing is heard of the coordinator of a group for so many polls: what it had said by now comes after them. On another call: no fault.
    Late(u32),
    /// The memberships of this instance expire before the call, unknown to it: the others have its partitions at once. So it is when another member
    /// takes it out of the group.
    LoseMembership,
    /// The rebalance that the groups of this instance are in times out before the call: members that have not joined again are dropped.
    TimeOutRebalance,
    /// The groups of this instance take every partition from its holder before the call, and give it out again.
    Rebalance,
}

/// What becomes of a commit whose outcome its producer does not learn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitOutcome {
    /// It has taken place.
    Applied,
    /// It has not, and never will.
    NotApplied,
    /// It takes place when the test calls [`super::super::LocalBroker::settle`], unless a new producer of its transactional id comes
    /// first. Until then it holds the last stable offset back.
    InFlight,
}

/// Decides what goes wrong. Asked once before each call of each instance, in order.
pub trait Faults: Send + Sync + 'static {
    /// The fault of this call, if any.
    fn next(&self, call: Call) -> Option<Fault>;
}

impl<F: Fn(Call) -> Option<Fault> + Send + Sync + 'static> Faults for F {
    fn next(&self, call: Call) -> Option<Fault> {
        self(call)
    }
}

/// Faults at the nth call (from 1) of a kind.
#[derive(Debug, Default)]
pub struct FaultsAt {
    faults: BTreeMap<(Call, u64), Fault>,
    made: Mutex<BTreeMap<Call, u64>>,
}

impl FaultsAt {
    /// No faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// That fault too, at the nth such call.
    pub fn and(mut self, nth: u64, call: Call, fault: Fault) -> Self {
        self.faults.insert((call, nth), fault);
        self
    }
}

impl Faults for FaultsAt {
    fn next(&self, call: Call) -> Option<Fault> {
        let mut made = lock(&self.made);
        let made = made.entry(call).or_default();
        *made += 1;
        self.faults.get(&(call, *made)).copied()
    }
}

/// Faults drawn from a seed: each with its odds, for the calls it is listed with.
#[derive(Debug)]
pub struct SeededFaults {
    random: AtomicU64,
    odds: Vec<(Call, Fault, u32)>,
}

impl SeededFaults {
    /// Each `(call, fault, one_in)` strikes one in so many of those calls. The same seed gives the same faults.
    pub fn new(seed: u64, odds: Vec<(Call, Fault, u32)>) -> Self {
        Self { random: AtomicU64::new(seed), odds }
    }

    /// The next number of a SplitMix64 sequence.
    fn draw(&self) -> u64 {
        let mut z = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Faults for SeededFaults {
    fn next(&self, call: Call) -> Option<Fault> {
        let mut listed = self.odds.iter().filter(|(of, _, _)| *of == call);
        listed.find(|(_, _, one_in)| *one_in > 0 && self.draw().is_multiple_of(u64::from(*one_in))).map(|(_, fault, _)| *fault)
    }
}
