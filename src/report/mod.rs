//! What heeler has to say, and where it says it.
//!
//! A [`Report`] is about one slow piece of work: what it is, where it is stuck (its stacks), and where its time went. It
//! reads as one [sentence](Report::sentence), as a [page of text](Report::to_text), as a [flamegraph](Report::to_svg) and
//! as [JSON](Report::to_json).
//!
//! [`Reports`] is where reports go: to the log unless told otherwise.
//!
//! ```
//! let reports = heeler::Reports::default();
//! # let _ = reports;
//! ```
//!
//! A directory keeps them for later, and a [`Sink`] of your own takes them anywhere:
//!
//! ```
//! use heeler::{Report, Reports, Sink};
//!
//! struct Pager;
//!
//! impl Sink for Pager {
//!     fn name(&self) -> &str {
//!         "pager"
//!     }
//!
//!     fn deliver(&self, report: &Report) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//!         // Page somebody: report.sentence()
//!         Ok(())
//!     }
//! }
//!
//! # let directory = tempfile::tempdir()?;
//! # let slow = directory.path();
//! // let slow = "/var/log/my-service/slow";
//! let reports = Reports::builder().directory(slow).sink(Pager).service("my-service", "1.2.0").build()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How many
//!
//! Reports about the same place on the same route have the same [fingerprint](Report::fingerprint); of those, one goes out
//! a minute ([`repeat_after`](ReportsBuilder::repeat_after)), and the next one says how many were held back.
//! [`Reports::stats`] counts everything that was made, held back, dropped or not taken.
//!
//! # Privacy
//!
//! A report never holds a body. It holds the headers that are [allowed by name](ReportsBuilder::allow_headers), never
//! credentials or cookies, and the URI with the values of secret-looking parameters replaced. What a heuristic cannot see
//! is a secret that is a segment of a path (`/reset/<token>`). Control characters, text-direction overrides and invisible
//! characters are escaped everywhere.
//!
//! # Where the ideas come from
//!
//! Text, file a report and logger are after Python's [dogslow](https://pypi.org/project/dogslow/), which reports what a
//! slow Django request is doing.

mod around;
mod assemble;
mod builder;
mod by_sink;
// Without a feature that reaches over a network, parts of it wait for one.
#[cfg_attr(not(any(feature = "email", feature = "webhook")), allow(dead_code))]
mod delivery;
#[cfg_attr(not(any(feature = "email", feature = "webhook")), allow(dead_code))]
mod digest;
mod escape;
mod evidence;
mod fingerprint;
mod inbox;
mod location;
mod logging;
#[cfg(feature = "metrics")]
mod meters;
mod model;
#[cfg(any(feature = "email", feature = "otel", feature = "sentry", feature = "webhook"))]
mod outlets;

mod process;
mod progress;
mod publish;
mod redact;
mod render;
mod reporter;
mod reports;
mod route;
mod secrets;
mod self_check;
mod sink;
mod source;
mod stats;
#[cfg(test)]
mod testing;
mod throttle;
mod time;
mod waits;
mod words;

pub use builder::ReportsBuilder;
pub use model::{Interval, Location, Process, Report, Request, SCHEMA, Span, Stack, Thread};
pub use reports::Reports;
#[cfg(feature = "otel")]
#[cfg_attr(docsrs, doc(cfg(feature = "otel")))]
pub use sink::OpenTelemetry;
#[cfg(feature = "sentry")]
#[cfg_attr(docsrs, doc(cfg(feature = "sentry")))]
pub use sink::Sentry;
pub use sink::Sink;
#[cfg(feature = "webhook")]
#[cfg_attr(docsrs, doc(cfg(feature = "webhook")))]
pub use sink::Webhook;
#[cfg(feature = "email")]
#[cfg_attr(docsrs, doc(cfg(feature = "email")))]
pub use sink::email;
pub use stats::Stats;
pub use words::{Activity, Kind, StackKind, Verdict};

pub use crate::capture::Frame;

pub(crate) use digest::Digest;
pub(crate) use evidence::{ChildEvidence, Culprit, Evidence, ThreadEvidence};
pub(crate) use logging::log_safely;
pub(crate) use reporter::{self_check, send, start};
pub(crate) use stats::total;
