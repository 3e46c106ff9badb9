//! What heeler has to say, and where it says it.
//!
//! A [`Report`] is about one slow piece of work: what it is, where it is stuck (its stacks), and where its time went. It
//! reads as one [sentence](Report::sentence), as a [page of text](Report::to_text) or of [HTML](Report::to_html) for a mail, as
//! a [flamegraph](Report::to_svg) and as [JSON](Report::to_json).
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
//! a minute ([`repeat_after`](ReportsBuilder::repeat_after)), and the next one says how many were held back, or a line of the
//! log does if none comes.
//! [`Reports::stats`] counts everything that was made, held back, dropped or not taken.
//!
//! # What happens when
//!
//! | | what becomes of reports | what you see | test |
//! |---|---|---|---|
//! | a server is down for a while | they wait, and are tried again after a second, then with pauses that double up to five minutes; each arrives once | an error in the log, once a minute at most; [`queued`](Stats::queued), [`failed_deliveries`](Stats::failed_deliveries) | `faults::down` |
//! | it is down for longer than [`retry_for`](ReportsBuilder::retry_for) | given up one by one; other sinks have them long since | `undelivered`; a note in the next report that arrives there | `dispatch::one_of_two_is_down` |
//! | it accepts and never answers | as if it were down, after the sink's timeout; other sinks do not wait | [`flush`](Reports::flush) is false in time | `faults::shutdown`, `dispatch::never_ends` |
//! | it refuses a report for good | given up for this sink | `undelivered`, a note in the next report | `dispatch::refused_and_panics` |
//! | a sink panics | given up for this sink; the others get it | `undelivered`, `failed_deliveries`, an error in the log | `faults::sinks` |
//! | the disk is full | those that the [spool](ReportsBuilder::spool) cannot take wait in memory, and are sent; the report directory is tried again | [`not_spooled`](Stats::not_spooled), an error in the log; no half a file | `faults::disk` |
//! | files in the spool are damaged, or of another version | moved to `unreadable`; the others are sent | `undelivered`, an error in the log | `faults::spool::corrupted` |
//! | the clock is set back or forward | nothing: reports from the future and from long ago are sent like others, alone or gathered | | `faults::spool::clock_set_back` |
//! | the process is killed (`kill -9`) between two attempts | with a spool, the next process sends them, or another with the same spool within half a minute; without, they are lost | [`recovered`](Stats::recovered) in that process | `faults::killed`, `dispatch::a_sibling_takes_over` |
//! | ten thousand are slow at once | as many as [may wait](ReportsBuilder::queue) arrive, the newest; the others are dropped | `undelivered`, [`dropped`](Stats::dropped), [`not_captured`](Stats::not_captured), and a note in the next report with their number | `faults::flood` |
//! | every worker of the application's runtime is blocked | they are sent: heeler's thread needs none | | `faults::sinks` |
//!
//! The tests are in `tests/faults` and `src/report/delivery/dispatch.rs`. As long as the process lives, no report is lost
//! without being counted. Whenever nothing is being handed over at that moment:
//!
//! ```
//! # let reports = heeler::Reports::default();
//! let stats = reports.stats();
//! let became = stats.delivered + stats.undelivered + stats.suppressed + stats.queued;
//! assert_eq!(stats.made + stats.recovered, became);
//! ```
//!
//! `dropped` and `not_captured` come on top: those were lost before they were reports. What the process had queued when it
//! ended counts in the next one, as `recovered`, if there is a spool.
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
mod described;
#[cfg_attr(not(any(feature = "email", feature = "webhook")), allow(dead_code))]
mod digest;
pub(crate) mod escape;
mod evidence;
mod fingerprint;
mod inbox;
mod location;
mod logging;
#[cfg(feature = "metrics")]
mod meters;
mod model;
mod namer;
#[cfg(any(feature = "email", feature = "otel", feature = "sentry", feature = "webhook"))]
mod outlets;
mod private;
mod process;
mod progress;
mod publish;
mod redact;
pub(crate) mod render;
mod reporter;
mod reports;
mod route;
mod secrets;
mod self_check;
mod sink;
mod source;
mod stats;
#[cfg(test)]
pub(crate) mod testing;
mod throttle;
pub(crate) mod time;
mod waits;
mod words;

pub(crate) use process::complete;
pub(crate) use redact::Redactor;
pub(crate) use time::rfc3339;

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

pub(crate) use described::Described;
pub(crate) use digest::Digest;
pub(crate) use escape::escape;
pub(crate) use evidence::{ChildEvidence, Culprit, Evidence, ThreadEvidence};
pub(crate) use logging::log_safely;
pub(crate) use render::{at, duration, telling};
pub(crate) use reporter::{self_check, send, start};
pub(crate) use stats::total;
