//! What a topology does to single records and what it makes of many: generic code that the compiler sees whole, down to the user's own functions.
//! It knows neither tasks nor topologies.

pub mod aggregation;
pub mod chain;
