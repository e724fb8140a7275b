//! What tasks read.

pub(crate) mod partials;
pub(crate) mod source;
pub(crate) mod sources;
mod stateless;

pub(crate) use partials::{AggregatePosition, PartialsInput};
pub(crate) use source::{SourceInput, SourcePosition};
pub(crate) use sources::Sources;
pub(crate) use stateless::{Passed, StatelessInput, Transform};
