//! Posting to a server of somebody's: https unless it is this host, no redirects, a timeout, and no secret in an error.

mod address;
mod endpoint;

pub(super) use address::{checked_url, origin};
pub(crate) use endpoint::Endpoint;
