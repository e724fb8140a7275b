//! What goes wrong with single calls, on the broker and on the stores.

use std::sync::{Arc, Mutex, PoisonError};

use millstream::broker::ErrorKind;
use millstream::broker::local::faults::{Call, CommitOutcome, Fault, Faults};
use millstream::store::{StoreError, StoreErrorKind};

use crate::audit::{Audit, INTERRUPTED};
use crate::random::Random;
use crate::trace::Trace;

/// A call on a store, about to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreCall {
    Open,
    Destroy,
    Read,
    Scan,
    Write,
    Flush,
}

/// Each fault strikes one in so many of the calls, in seeds that have it at all.
pub(crate) const BROKER_FAULTS: &[(Call, Fault, u32)] = {
    use Call::{
        Abort, Begin, Commit, Committed, DeleteRecords, Fetch, Fetcher, Join, JoinGroup, LogRange, Other, Poll, Producer, Read,
        Send, SendOffsets, SyncGroup,
    };
    use CommitOutcome::{Applied, InFlight, NotApplied};
    use ErrorKind::{AbortTransaction, Fenced, OffsetOutOfRange, Retry, Stop};
    use Fault::{
        BurnOffsets, CrashAfter, CrashBefore, Fail, FailPartition, Late, LoseAnswer, LoseMembership, LoseRequest, Nothing,
        OutcomeUnknown, Rebalance, TimeOutRebalance,
    };
    &[
        (Begin, CrashBefore, 300),
        (Begin, CrashAfter, 300),
        (Begin, Fail(Retry), 60),
        (Begin, Fail(Fenced), 200),
        (Begin, LoseMembership, 200),
        (Begin, Rebalance, 200),
        (Send, CrashBefore, 1_500),
        (Send, CrashAfter, 1_500),
        (Send, Fail(Retry), 400),
        (Send, Fail(AbortTransaction), 400),
        (Send, FailPartition(AbortTransaction), 800),
        (Send, FailPartition(Stop), 3_000),
        (Send, LoseMembership, 1_500),
        (Send, Rebalance, 1_500),
        (SendOffsets, CrashBefore, 300),
        (SendOffsets, CrashAfter, 300),
        (SendOffsets, Fail(Retry), 60),
        (SendOffsets, Fail(AbortTransaction), 60),
        (SendOffsets, LoseMembership, 200),
        (SendOffsets, Rebalance, 200),
        (SendOffsets, TimeOutRebalance, 50),
        (Commit, CrashBefore, 200),
        (Commit, CrashAfter, 100),
        (Commit, Fail(Retry), 40),
        (Commit, Fail(AbortTransaction), 40),
        (Commit, Fail(Fenced), 200),
        (Commit, Fail(Stop), 800),
        (Commit, FailPartition(AbortTransaction), 100),
        (Commit, FailPartition(Stop), 400),
        (Commit, LoseMembership, 200),
        (Commit, Rebalance, 200),
        (Commit, TimeOutRebalance, 50),
        (Commit, OutcomeUnknown(Applied), 60),
        (Commit, OutcomeUnknown(NotApplied), 60),
        (Commit, OutcomeUnknown(InFlight), 60),
        (Commit, BurnOffsets(2), 20),
        (Abort, CrashBefore, 20),
        (Abort, Fail(Retry), 5),
        (Poll, CrashBefore, 800),
        (Poll, CrashAfter, 800),
        (Poll, Fail(Retry), 60),
        (Poll, Nothing, 10),
        (Poll, LoseMembership, 400),
        (Poll, Rebalance, 300),
        (Poll, Late(1), 20),
        (Poll, Late(4), 60),
        (Poll, Late(10), 100),
        (Poll, TimeOutRebalance, 100),
        (JoinGroup, Fail(Retry), 20),
        (JoinGroup, CrashBefore, 150),
        (JoinGroup, CrashAfter, 150),
        (JoinGroup, LoseRequest, 10),
        (JoinGroup, LoseAnswer, 10),
        (JoinGroup, LoseMembership, 60),
        (JoinGroup, TimeOutRebalance, 60),
        (SyncGroup, Fail(Retry), 20),
        (SyncGroup, CrashBefore, 150),
        (SyncGroup, CrashAfter, 150),
        (SyncGroup, LoseRequest, 10),
        (SyncGroup, LoseAnswer, 10),
        (SyncGroup, LoseMembership, 60),
        (SyncGroup, Rebalance, 100),
        (SyncGroup, TimeOutRebalance, 60),
        (Fetch, CrashBefore, 800),
        (Fetch, CrashAfter, 800),
        (Fetch, Fail(Retry), 60),
        (Fetch, Nothing, 10),
        (Fetch, FailPartition(Retry), 400),
        (Fetch, FailPartition(OffsetOutOfRange), 400),
        (Fetch, FailPartition(Stop), 1_500),
        (Read, CrashAfter, 60),
        (Read, Fail(Retry), 20),
        (Read, Nothing, 4),
        (Join, Fail(Retry), 10),
        (Join, CrashAfter, 60),
        (Fetcher, Fail(Retry), 20),
        (Producer, Fail(Retry), 10),
        (Producer, CrashAfter, 60),
        (Committed, Fail(Retry), 40),
        (Committed, CrashBefore, 400),
        (Committed, LoseMembership, 400),
        (Committed, TimeOutRebalance, 100),
        (LogRange, Fail(Retry), 40),
        (LogRange, CrashBefore, 400),
        (DeleteRecords, Fail(Retry), 10),
        (DeleteRecords, CrashBefore, 40),
        (Other, Fail(Retry), 40),
        (Other, CrashAfter, 400),
        (Other, LoseMembership, 400),
    ]
};

/// As [`BROKER_FAULTS`], for stores.
pub(crate) const STORE_FAULTS: &[(StoreCall, StoreErrorKind, u32)] = {
    use StoreCall::{Destroy, Flush, Open, Read, Scan, Write};
    use StoreErrorKind::{Corrupt, Retry};
    &[
        (Open, Retry, 8),
        (Open, Corrupt, 30),
        (Destroy, Retry, 6),
        (Read, Retry, 60),
        (Read, Corrupt, 300),
        (Scan, Retry, 200),
        (Scan, Corrupt, 600),
        (Write, Retry, 20),
        (Write, Corrupt, 300),
        (Flush, Retry, 2),
    ]
};

/// Decides of every call whether it fails.
pub(crate) struct CallFaults {
    inner: Mutex<Inner>,
    audit: Arc<Mutex<Audit>>,
    trace: Trace,
}

struct Inner {
    random: Random,
    broker: Vec<(Call, Fault, u32)>,
    store: Vec<(StoreCall, StoreErrorKind, u32)>,
    /// One in so many calls has the member going on in the middle of it.
    interrupted: Option<u32>,
}

impl CallFaults {
    /// Every run has faults of its own choice, so that a frequent one does not always hide a rare one.
    pub(crate) fn new(mut random: Random, audit: Arc<Mutex<Audit>>, trace: Trace) -> Arc<Self> {
        let of_five = random.below(6) as u32;
        let mut chosen = || random.below(5) < u64::from(of_five);
        let broker = BROKER_FAULTS.iter().filter(|_| chosen()).copied().collect();
        let store = STORE_FAULTS.iter().filter(|_| chosen()).copied().collect();
        let interrupted = chosen().then_some(15);
        Arc::new(Self { inner: Mutex::new(Inner { random, broker, store, interrupted }), audit, trace })
    }

    /// Where what happens is told.
    pub(crate) fn trace(&self) -> &Trace {
        &self.trace
    }

    /// No faults from here on.
    pub(crate) fn end(&self) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.broker.clear();
        inner.store.clear();
        inner.interrupted = None;
    }

    /// How many steps the member of an instance takes in the middle of a call of another of its parts.
    pub(crate) fn steps_meanwhile(&self, call: Call) -> u64 {
        use Call::{Begin, Commit, Committed, Fetch, LogRange, Read, SendOffsets};
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Inner { random, interrupted, .. } = &mut *inner;
        let may_be = matches!(call, Begin | SendOffsets | Commit | Committed | Fetch | LogRange | Read);
        if !may_be || !interrupted.is_some_and(|one_in| random.one_in(one_in)) {
            return 0;
        }
        self.trace.event(INTERRUPTED, format_args!("{call:?}"));
        random.between(1, 5)
    }

    /// Fails where the call is to fail.
    pub(crate) fn at_store(&self, call: StoreCall) -> Result<(), StoreError> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Inner { random, store, .. } = &mut *inner;
        let mut listed = store.iter().filter(|(of, ..)| *of == call);
        let Some((_, kind, _)) = listed.find(|(.., one_in)| random.one_in(*one_in)) else { return Ok(()) };
        self.trace.event(&store_fault(call, *kind), "");
        Err(StoreError::new(*kind, format!("a fault was asked for at {call:?}")))
    }
}

impl Faults for CallFaults {
    fn next(&self, call: Call) -> Option<Fault> {
        // One step can count into a window, close it, let it expire and delete its records, for a step may commit twice: they are looked at
        // before they go.
        if call == Call::DeleteRecords {
            self.audit.lock().unwrap_or_else(PoisonError::into_inner).look();
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Inner { random, broker, .. } = &mut *inner;
        let mut listed = broker.iter().filter(|(of, ..)| *of == call);
        let (_, fault, _) = listed.find(|(.., one_in)| random.one_in(*one_in))?;
        self.trace.event(&broker_fault(call, *fault), "");
        Some(*fault)
    }
}

/// The name of a fault in the trace.
pub(crate) fn broker_fault(call: Call, fault: Fault) -> String {
    format!("{call:?} {fault:?}")
}

/// The name of a fault in the trace.
pub(crate) fn store_fault(call: StoreCall, kind: StoreErrorKind) -> String {
    format!("store {call:?} {kind:?}")
}
