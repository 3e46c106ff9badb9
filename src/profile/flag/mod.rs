//! The flag in a URL, and what it asks for.
//!
//! The flag is one parameter of the query, `__geordi__` unless named otherwise: at the beginning or after a `&`, and
//! before a `=`, a `&` or the end. It is found by its bytes: `%5F%5Fgeordi%5F%5F` is another parameter, which belongs
//! to the application. (A name consists of characters that nobody has a reason to encode: see [`Flag::new`].) A `;`
//! separates nothing.
//!
//! | value | asks for |
//! |---|---|
//! | nothing, or words separated by commas: a form, `20x`, `process`, `inline` | a profile of this request |
//! | `<id>` | the page of a profile |
//! | `<id>.<form>` | a download |
//! | `<id>.status`, `<id>.cancel`, `<id>.response` | what the word says |
//! | `<id>.confirm`, `<id>.go` | the profile that a page has asked about: the id is that question's, or its answer's |
//! | `<id>.vs.<id>` | the comparison of two |
//! | `index` | the profiles that are stored |
//!
//! A value may be percent-encoded, as in a form that a browser submits (`svg%2C20x`). If the flag occurs more than
//! once, the first one counts and all are removed.

mod ask;
#[cfg(test)]
mod fuzz;

#[cfg(test)]
use ask::MAX_RUNS;
pub(crate) use ask::{Ask, Start};

#[cfg(test)]
use crate::flag::DEFAULT_NAME;
pub(crate) use crate::flag::{Flag, decode};
