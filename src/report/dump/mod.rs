//! Dumps: everything that is in flight at one moment, and where each of it is.

mod assemble;
mod groups;
mod model;
mod on_panic;
#[cfg(target_os = "linux")]
mod on_signal;
mod pile_up;
mod send;
mod shutdown;
mod take;

pub use model::{DUMP_SCHEMA, Dump, DumpClaim, DumpGroup, DumpKind, DumpPath, DumpResource, DumpState, DumpWork};
pub(crate) use pile_up::expect_pile_up;
#[cfg(feature = "console")]
pub(crate) use shutdown::is_shutting_down;
pub use shutdown::{Shutdown, shutdown};
#[cfg(feature = "console")]
pub(crate) use take::cheap_dump;
pub use take::{blocking_dump, dump};
