//! What a profiler answers, itself: everything but the profiled request.

mod client;
mod find;
mod plan;
mod respond;
mod same_origin;

pub(super) use client::Client;
pub(super) use plan::{By, Plan, Wanted, plan};
pub(super) use respond::Respond;
