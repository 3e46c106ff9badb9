//! The console: what it shows, to whom, and that it answers while the service does not.
#![cfg(all(feature = "console", feature = "watchdog", unix))]

#[path = "../common/mod.rs"]
mod common;

#[path = "../common/browser/mod.rs"]
mod browser;

mod access;
mod app;
mod in_browser;
#[cfg(feature = "profile")]
mod rules;
mod stuck;
