//! Clickmill: counts ad clicks as they happen, exactly once, and answers over HTTP.

pub mod click;
pub mod config;
