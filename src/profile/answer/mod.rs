//! The profiler's own answers: everything but the profiled request.

mod client;
mod find;
mod plan;
mod question;
mod respond;

pub(super) use client::Client;
pub(super) use plan::{By, Plan, Wanted, plan};
pub(super) use question::Questions;
pub(super) use respond::Respond;
#[cfg(feature = "console")]
pub(super) use respond::render;
#[cfg(heeler_remote)]
pub(super) use respond::sentence;
