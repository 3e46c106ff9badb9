//! The path of a report from its evidence to the sinks.

pub(in crate::report) mod builder;
pub(in crate::report) mod charge;
mod deliver;
#[cfg_attr(not(any(feature = "email", feature = "webhook")), allow(dead_code))]
pub(in crate::report) mod digest;
#[cfg(any(feature = "email", feature = "otel", feature = "pyroscope", feature = "sentry", feature = "webhook"))]
pub(in crate::report) mod feature_sinks;
pub(in crate::report) mod fingerprint;
pub(in crate::report) mod flush;
#[cfg(feature = "console")]
pub(crate) mod history;
pub(in crate::report) mod inbox;
pub(in crate::report) mod ledger;
pub(in crate::report) mod progress;
pub(in crate::report) mod reporter;
pub(in crate::report) mod reports;
pub(in crate::report) mod self_check;
pub(in crate::report) mod throttle;
#[cfg(feature = "pyroscope")]
pub(in crate::report) mod timelines;
pub(in crate::report) mod trace_url;
mod unended;
pub(in crate::report) mod watching;
