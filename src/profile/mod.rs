//! Where one request spent its time: `?__geordi__` at the end of any URL.

mod bytes;
mod flag;
mod form;
mod format;
mod id;
#[cfg(feature = "pprof")]
mod meanwhile;
mod model;
mod page;
mod record;
mod store;
#[cfg(test)]
mod testing;

pub use model::{Meanwhile, Node, Outcome, ProcessStack, Profile, Quality, Request, Response, SCHEMA, Slice, State};
pub use store::{ProfileStore, StoreStats};
