//! The JSON form of a report, field by field.
//!
//! Reports are written as schema 2, whose stacks are indices into a table of frames, either whole or [short](Short).
//! Only spools are written as schema 1. Both are read.

mod read;
// Nothing else uses the short form.
#[cfg_attr(not(feature = "webhook"), allow(dead_code))]
mod short;
mod tables;
#[cfg(test)]
mod tests;
#[cfg_attr(not(feature = "webhook"), allow(dead_code))]
mod write;

pub(in crate::report) use read::{stacks, version};
pub(in crate::report) use write::Schema1;
#[cfg(feature = "webhook")]
pub(in crate::report) use write::Short;
