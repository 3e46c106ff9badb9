//! Where one request spent its time: `?__geordi__` at the end of any URL.

mod bytes;
mod form;
#[cfg(feature = "pprof")]
mod meanwhile;
mod model;

mod record;

pub use model::{Meanwhile, Node, Outcome, ProcessStack, Profile, Quality, Request, Response, SCHEMA, Slice, State};
