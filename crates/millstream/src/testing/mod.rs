//! Testing a topology without a broker.

mod driver;

pub use driver::{DriverError, OutputRecord, TopologyTestDriver};
