//! Runtimes: how long each takes to run what is ready, and whether it still does.

mod beat;
mod health;
mod liveness;
mod pulse;
#[cfg(feature = "systemd")]
mod systemd;

pub use beat::watch_runtime;
pub use health::{RuntimeHealth, runtimes};
pub use liveness::{Liveness, liveness};
#[cfg(feature = "systemd")]
pub use systemd::notify_systemd;
