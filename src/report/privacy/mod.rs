//! Redaction: everything that came from a request, or that somebody else wrote, passes through here.
//!
//! A [`Redactor`] recognizes secrets by their names, and by what they look like. A report is redacted when it is
//! [completed](Redactor::report), and again when it is read from a spool. A profile is redacted when it is put
//! together. Text that is only logged goes through [`told`].

mod brackets;
mod code;
mod constraints;
mod found;
mod headers;
mod looks;
mod names;
#[cfg(test)]
mod ordinary;
mod pairs;
mod paths;
#[cfg(test)]
pub(crate) mod planted;
mod redactor;
mod report;
mod scan;
mod shapes;
mod sql;
mod uri;
mod values;

#[cfg(any(feature = "pyroscope", feature = "webhook"))]
pub(crate) use found::REDACTED;
pub(crate) use headers::TRACEPARENT;
#[cfg(any(feature = "pyroscope", feature = "webhook"))]
pub(crate) use names::decode;
pub(crate) use redactor::{Redactor, code, header_value, told};
pub(in crate::report) use report::MAX_THREAD;
pub(super) use report::again;
