//! Text for people and programs: units, times, and text from requests made harmless.

pub(crate) mod escape;
pub(crate) mod html;
pub(crate) mod time;
pub(crate) mod units;

pub(crate) use escape::escape;
