//! heeler
mod capture;
mod error;
mod inflight;
mod monitor;
mod report;
#[cfg(feature = "spans")]
mod spans;
mod sync;
mod watchdog;

pub use error::Error;
pub use inflight::{Current, current};
pub use monitor::use_signal;
pub use report::*;
pub use watchdog::*;
