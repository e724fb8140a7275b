//! Running a topology. An [`Instance`] is one member of the application's group and all that runs its tasks:
//!
//! ```text
//!                      ┌─► StateUpdater ─► StreamThread ─┐
//!  group ◄─► Member ───┼─► StateUpdater ─► StreamThread ─┼─► Upkeep
//!                      └─► …               …             ┘
//! ```
//!
//! A task (`task`) passes between them (`handover`); none of them waits for another. From assigned to ready it takes the steps of
//! `open`, with a `replica` of its store and, where it is new, a `join`; then a thread takes turns at fetching, processing and
//! committing (`commit`, `transactor`). What an error of one task asks for is in `trouble`.

mod balance;
mod commit;
mod config;
mod context;
mod doubt;
mod drain;
mod first_start;
mod handover;
mod instance;
mod join;
mod member;
mod open;
pub(crate) mod plan;
mod positions;
pub(crate) mod registry;
mod replica;
mod task;
mod thread;
mod transactor;
mod trouble;
mod updater;
mod upkeep;

pub use crate::task::counted_with::CountedWith;
pub use config::StreamsConfig;
pub use context::{Observer, Parts, Stepped, StreamsError};
pub use drain::Draining;
pub use instance::{Instance, Workers};
pub use member::Member;
pub use registry::{Registry, RestoreProgress, TaskStatus};
pub use thread::StreamThread;
pub use updater::StateUpdater;
pub use upkeep::Upkeep;
