//! Rules: what happens when requests keep being slow, beyond one report of one of them.
//!
//! - `rule`: what an application asks for.
//! - `watch`: which of its rules fires, and how often one has.
//! - `orders`: requests that somebody is to profile.

pub(crate) mod orders;
mod rule;
mod watch;

pub use rule::Rule;
#[cfg(feature = "console")]
pub(crate) use watch::RuleBudget;
pub(in crate::report) use watch::{Fired, Rules};
