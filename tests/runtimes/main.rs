//! Runtimes that stall: found, counted, reported, and told to those who restart the process.
#![cfg(all(feature = "watchdog", target_os = "linux"))]

#[path = "../common/mod.rs"]
mod common;

mod soak;
mod stalls;
mod stopped;
#[cfg(feature = "systemd")]
mod supervised;
