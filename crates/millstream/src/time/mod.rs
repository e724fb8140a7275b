//! Event time: windows, and how far it has come.

mod windows;

pub use windows::{InvalidWindows, TimeWindows};
