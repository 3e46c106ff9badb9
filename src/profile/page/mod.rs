//! What a browser shows of a profile: one page each, which loads nothing from elsewhere, with the flamegraphs in them.
//!
//! Text from a request and names of functions are escaped on their way into a page, and shortened. Pictures, which are
//! made of such names and run a script, are in frames without an origin and without a network. Each page says which
//! [`Policy`] it needs. The policy identifies scripts by a nonce.

mod compare;
mod confirm;
mod context;
mod error;
mod frame;
mod html;
mod index;
#[cfg(test)]
mod inspect;
mod live;
mod picture;
mod process_profile;
mod prune;
mod result;
#[cfg(test)]
pub(super) mod sample;
mod shares;
mod steps;
mod tables;
#[cfg(test)]
mod tests;
mod tree;
#[cfg_attr(not(feature = "console"), allow(clippy::redundant_pub_crate))]
pub(super) mod words;

pub(crate) use compare::compare;
pub(crate) use confirm::confirm;
pub(crate) use context::{Context, Policy, nonce};
pub(crate) use error::error;
pub(crate) use index::index;
pub(crate) use live::live;
pub(crate) use picture::{Which, svg};
pub(crate) use result::{html, result};
