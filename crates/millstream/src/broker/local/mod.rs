//! A broker in one process.
