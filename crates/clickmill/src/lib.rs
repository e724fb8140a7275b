//! Clickmill: counts ad clicks as they happen, exactly once, and answers over HTTP.

pub mod admin;
pub mod cli;
pub mod click;
pub mod client;
pub mod config;
pub mod generate;
pub mod http;
pub mod load;
pub mod logging;
pub mod metrics;
pub mod peers;
pub mod serve;
