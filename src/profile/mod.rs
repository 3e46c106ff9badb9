//! Where one request spent its time: `?__geordi__` at the end of any URL.

mod bytes;
mod form;
mod model;

mod record;

pub use model::{Node, Outcome, Profile, Quality, Request, Response, SCHEMA, Slice, State};
