//! The slow pages. Each is slow for one reason known from production, in a function that a report must name. All end by
//! themselves after about `App::stuck_for`.

pub(crate) mod blocking;
pub(crate) mod database;
pub(crate) mod waiting;
