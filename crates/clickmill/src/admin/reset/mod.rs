//! An application reset: everything that it has made of the clicks goes, and it counts anew from where it is told to.
//!
//! In which order, so that a reset that ends half-way is noticed: the engine starts a task without a position only where nothing was
//! ever written for it. First the positions go, and with them every task that keeps state refuses to start; the changelog's end is
//! what lets them start again. Where nothing is shuffled one task has both, so its new position is set last.

mod gaps;
mod plan;
mod state;

use millstream::record::Timestamp;

pub use gaps::{Gap, accept, gaps};
pub use plan::{Counted, Move, Plan, Scope, plan};

/// From where the clicks are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The first that is still there when the application starts.
    Earliest,
    /// Those that come from now on.
    Latest,
    /// The first of each partition whose record has this timestamp or a later one.
    Time(Timestamp),
}
