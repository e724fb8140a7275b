//! Event time: windows, and how far it has come.

mod progress;
mod windows;

pub use progress::SourceProgress;
pub use windows::{InvalidWindows, TimeWindows};
