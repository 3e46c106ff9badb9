//! Text for people and programs: units, times, and text from requests made harmless.

pub(crate) mod escape;
pub(crate) mod fnv;
pub(crate) mod html;
#[cfg(any(feature = "console", feature = "profile"))]
pub(crate) mod page;
pub(crate) mod percent;
pub(crate) mod time;
pub(crate) mod traceparent;
pub(crate) mod units;

pub(crate) use escape::escape;
