//! Running a topology: threads that own tasks, commit their work in transactions, and restore their stores.

mod commit;
mod config;
mod derive;
mod doubt;
mod drain;
mod first_start;
mod idle;
mod join;
mod open;
pub(crate) mod plan;
pub(crate) mod registry;
mod restore;
mod thread;

pub use crate::task::counted_with::CountedWith;
pub use config::StreamsConfig;
pub use drain::Draining;
pub use registry::{Registry, RestoreProgress, TaskStatus};
pub use thread::{Observer, Parts, Stepped, StreamThread, StreamsError};
