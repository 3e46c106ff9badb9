//! The slow pages, each slow for one reason that services have been slow for in production, and each in a function that
//! a report must name. All end by themselves after `App::stuck_for`, or about.

pub(crate) mod blocking;
pub(crate) mod database;
pub(crate) mod waiting;
