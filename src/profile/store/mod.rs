//! Where profiles are kept, and the status of those that aren't done yet.
//!
//! A store keeps four kinds of small files under the id of a profile, in memory or in a directory or bucket:
//!
//! | | written by | read by |
//! |---|---|---|
//! | status | the instance that runs the job, repeatedly | the page, on any instance |
//! | profile | the instance that ran the job, once | pages and downloads |
//! | summary | the same, once, after the profile | the index |
//! | cancel | the instance that is asked to | the instance that runs the job |
//!
//! All of them record their owner, and are hidden from other principals.

mod backend;
mod codec;
mod failure;
mod item;
mod memory;
#[cfg(feature = "object-store")]
mod objects;
mod profiles;
mod status;
mod summary;
mod sweep;
mod tally;

pub(crate) use failure::StoreError;
pub use profiles::ProfileStore;
pub(crate) use status::{HEARTBEAT, Phase, Status};
pub(crate) use summary::Summary;
pub use tally::StoreStats;
