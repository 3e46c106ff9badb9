//! Running heeler in production: what to do with each verdict, where it runs, who may profile.
//!
#![doc = include_str!("../docs/operations.md")]
