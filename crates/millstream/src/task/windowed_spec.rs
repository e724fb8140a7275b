//! What a windowed aggregate is, as its tasks have to know it.

use std::sync::Arc;
use std::time::Duration;

use super::Grouping;
use super::counted_with::CountedWith;
use crate::record::{Timestamp, Topic};
use crate::time::TimeWindows;

/// When the result of a window is sent on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EmitStrategy {
    /// With each commit that changed it.
    #[default]
    OnWindowUpdate,
    /// Once, when the window is final.
    OnWindowClose,
}

/// A windowed aggregate and how it is kept.
#[derive(Clone)]
pub(crate) struct WindowedSpec {
    pub(crate) store: Arc<str>,
    pub(crate) windows: TimeWindows,
    pub(crate) retention: Duration,
    pub(crate) emit: EmitStrategy,
    pub(crate) output: Option<Topic>,
    /// Whether the source is keyed by the grouping key already, so that nothing is shuffled.
    pub(crate) keyed: bool,
    pub(crate) operator: &'static str,
    pub(crate) grouping: Arc<dyn Grouping>,
}

impl WindowedSpec {
    /// The settings that cannot change once something was counted.
    pub(crate) fn counted_with(&self) -> CountedWith {
        CountedWith { window_size_ms: self.windows.size_ms(), keyed: self.keyed }
    }

    /// Whether windows are sent on when they are final.
    pub(crate) fn sends_final_windows(&self) -> bool {
        self.emit == EmitStrategy::OnWindowClose && self.output.is_some()
    }

    /// The earliest start of a window that is still kept, where nothing more is to be done with those that end at or before `done`:
    /// a window expires when its end lies its retention back.
    pub(crate) fn kept_from(&self, done: Timestamp) -> Timestamp {
        let retention = i64::try_from(self.retention.as_millis()).unwrap_or(i64::MAX);
        let keep_from = done.0.saturating_sub(retention);
        Timestamp(keep_from.saturating_sub(self.windows.size_ms()).saturating_add(1).max(0))
    }
}
