//! Profiles on other machines, through a real Redis and a real Postgres: `ProfileLayer::remote` and `Worker`.
//!
//! Where there is no such server, the tests that need it say so and pass, unless `HEELER_NEEDS_SERVERS=1` is in the
//! environment.
#![cfg(all(feature = "apalis-redis", feature = "apalis-postgres", feature = "axum"))]

#[path = "../common/mod.rs"]
mod common;

mod elsewhere;
mod engines;
mod killed;
mod namespaces;
mod partition;
mod process;
mod service;
mod store;
mod traps;
