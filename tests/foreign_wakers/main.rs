//! Executors that tokio knows nothing of, and what of theirs heeler touches: their wakers, which are code that may block, and
//! the parts of requests.
#![cfg(all(feature = "watchdog", feature = "timebox"))]

#[path = "../common/mod.rs"]
mod common;

mod blocking;
mod dropped;
mod executors;
mod parts;
