//! Pictures of where time went, for reports and for profiles.
//!
//! [Flame graphs](https://www.brendangregg.com/flamegraphs.html) are Brendan Gregg's;
//! [inferno](https://crates.io/crates/inferno) draws them.

pub(crate) mod label;
pub(crate) mod picture;
