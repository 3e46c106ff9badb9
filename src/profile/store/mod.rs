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
//!
//! For profiles on other machines (features `apalis-redis`, `apalis-postgres`) there are sealed requests and claims, too, and all of it is sealed.

mod backend;
mod codec;
mod failure;
mod item;
mod memory;
#[cfg(feature = "object-store")]
mod objects;
mod profiles;
#[cfg(heeler_remote)]
mod sent;
mod status;
mod summary;
mod sweep;
mod tally;

pub(crate) use failure::StoreError;
pub use profiles::ProfileStore;
#[cfg(heeler_remote)]
pub(crate) use sent::{ATTEMPTS, Claim, someone};
#[cfg(heeler_remote)]
pub(crate) use status::LOST_AFTER;
#[cfg(heeler_remote)]
pub(crate) use status::SentJob;
pub(crate) use status::{HEARTBEAT, Phase, Status};
pub(crate) use summary::Summary;
pub use tally::StoreStats;
