//! What tasks keep of what they read, until a commit sends it on.

mod closing;
mod forward;
mod ranking;
mod shuffle;
mod windowed;

pub(crate) use closing::Closing;
pub use closing::WindowEnd;
pub(crate) use forward::Forward;
pub(crate) use ranking::Ranking;
pub(crate) use shuffle::{Repartition, Shuffle};
pub(crate) use windowed::{ResultTopic, WindowedState};
