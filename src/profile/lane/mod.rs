//! The lane: a runtime apart, on which profiled requests run, so that the application's requests neither slow them nor
//! suffer from them.
//!
//! Beside it is the clerk, a runtime that keeps the lane's books: it writes down how far a request is while the lane's one
//! worker is inside the request's code, and stops it when its time is up.

mod runtime;

pub(super) use runtime::{CLERK, LANE, apart};
