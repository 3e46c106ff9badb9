//! What heeler reports, and where the reports go.
//!
//! A [`Report`] describes one slow piece of work: what it is, where it is stuck (its stacks), and where its time went.
//! You can read it as one [sentence](Report::sentence), as a [page of text](Report::to_text) or of
//! [HTML](Report::to_html) for a mail, as a [flamegraph](Report::to_svg) and as [JSON](Report::to_json).
//!
//! [`Reports`] decides where reports go. By default they go to the log.
//!
//! ```
//! let reports = heeler::Reports::default();
//! # let _ = reports;
//! ```
//!
//! A directory keeps them for later, and your own [`Sink`] can take them anywhere:
//!
//! ```
//! use heeler::{Report, Reports, Sink, SinkError};
//!
//! struct Pager;
//!
//! impl Sink for Pager {
//!     fn name(&self) -> &str {
//!         "pager"
//!     }
//!
//!     fn deliver(&self, report: &Report) -> Result<(), SinkError> {
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
//! Reports about the same place on the same route have the same [fingerprint](Report::fingerprint). Of those, one goes
//! out per minute ([`repeat_after`](ReportsBuilder::repeat_after)). The next one says how many were held back. If none
//! follows, a line in the log says it. [`Reports::stats`] counts all reports that were made, held back, dropped or not
//! delivered.
//!
//! If a service has many instances, a [fleet](https://docs.rs/heeler/latest/heeler/report/fleet/index.html) (feature `fleet`) tells
//! people once of an incident that hits many of them.
//!
//! # What happens when
//!
//! | | what happens to reports | what you see | test |
//! |---|---|---|---|
//! | a server is down for a while | they wait, and are tried again after a second, then with pauses that double up to five minutes; each arrives once | an error in the log, once a minute at most; [`queued`](Stats::queued), [`failed_deliveries`](Stats::failed_deliveries) | `faults::down` |
//! | it is down for longer than [`retry_for`](ReportsBuilder::retry_for) | they are given up one by one; the other sinks have had them long since | `undelivered`; a note in the next report that arrives there | `dispatch::a_dead_sink_does_not_disturb_another` |
//! | it accepts connections and never answers | the same as if it were down, after the sink's timeout; other sinks don't wait | [`flush`](Reports::flush) returns false after its timeout | `faults::shutdown`, `dispatch::an_endless_attempt_is_given_up` |
//! | it refuses a report for good | the report is given up for this sink | `undelivered`, a note in the next report | `dispatch::refusals_and_panics_give_up_and_count` |
//! | a sink panics | the report is given up for this sink; the others get it | `undelivered`, `failed_deliveries`, an error in the log | `faults::sinks` |
//! | the disk is full | reports that don't fit in the [spool](ReportsBuilder::spool) wait in memory and are sent; the report directory is tried again | [`not_spooled`](Stats::not_spooled), an error in the log; no partial files | `faults::disk` |
//! | files in the spool are damaged or too long | they are moved to `unreadable`; the others are sent | `undelivered`, an error in the log | `faults::spool::corrupted_spool_files_are_set_aside` |
//! | a later version wrote reports in the spool | they wait for a process of that version, for as long as others are tried again | [`left_to_later_version`](Stats::left_to_later_version), a warning in the log; `undelivered` in the end | `dispatch::reports_of_a_later_version_are_counted_and_expire` |
//! | the clock is set back or forward | nothing: reports from the future and from long ago are sent like others, alone or in a digest | | `faults::spool::a_wrong_clock_does_not_stop_reports` |
//! | the process is killed (`kill -9`) between two attempts | with a spool, the next process sends them, or another process that shares the spool does within half a minute; without a spool, they are lost | [`recovered`](Stats::recovered) in that process | `faults::killed`, `dispatch::a_sibling_takes_over` |
//! | ten thousand requests are slow at once | the newest arrive, as many as [may wait](ReportsBuilder::max_queued); the others are dropped | `undelivered`, [`dropped`](Stats::dropped), [`not_captured`](Stats::not_captured), and a note in the next report with their number | `faults::flood` |
//! | every worker of the application's runtime is blocked | they are sent: heeler's thread doesn't need a worker | | `faults::sinks` |
//!
//! The tests are in `tests/faults` and `src/report/delivery/dispatch.rs`. As long as the process lives, no report is
//! lost without being counted. Whenever no report is being handed over, this holds:
//!
//! ```
//! # let reports = heeler::Reports::default();
//! let stats = reports.stats();
//! let became = stats.delivered + stats.undelivered + stats.suppressed + stats.queued;
//! assert_eq!(stats.made + stats.recovered, became);
//! ```
//!
//! `dropped` and `not_captured` come on top, because those were lost before they became reports. With a spool, the
//! reports that were still queued when the process ended count in the next process, as `recovered`.
//!
//! # Privacy
//!
//! A report never contains a body. Everything else that comes from a request or from the application passes through one
//! filter first: the URI, the route, headers, the fields of spans, names of jobs, boxes and threads, notes. So do the
//! errors of sinks in the log, reports that are read back from a spool, and
//! [profiles](crate::profile#who-may-see-what). The filter replaces these with `[redacted]`:
//!
//! | what | for example |
//! |---|---|
//! | headers that are not [allowed by name](ReportsBuilder::allow_headers); credentials and cookies always | `authorization`, `set-cookie` |
//! | values whose name looks like a secret's, or is one of [`secret_params`](ReportsBuilder::secret_params): in queries, fragments and matrix parameters, `name=value`, `name: value`, `name => value`, JSON, what `Debug` prints, also of types and variants with such a name, pairs in tuples and lists, XML, options of a command line, columns of SQL; percent-encoded and nested, too | `?access_token=..`, `Request { password: ".." }`, `InvalidToken("..")`, `("password", "..")`, `--api-key ..`, `INSERT INTO users (name, password) VALUES ('a', '..')` |
//! | user and password of a URI, or of the address of a database (left out) | `postgres://me:..@db/x` |
//! | what follows `Bearer` and `Basic` | |
//! | signed and encrypted tokens: JWT, PASETO | `eyJ..` |
//! | PEM blocks | `-----BEGIN PRIVATE KEY-----` |
//! | keys with the prefix of AWS, Google, GitHub, GitLab, Slack, Stripe, Azure, OpenAI, SendGrid, Telegram and others | `AKIA..`, `ghp_..`, `xoxb-..`, `sk_live_..` |
//! | random strings of 40 characters and more in both cases, unless they name a file or are base64 of readable text without a secret | |
//! | segments of a path that look like a token, after one that says so | `/reset/4f9c..`, `/sessions/67e5..` |
//! | segments of a path that [`secret_paths`](ReportsBuilder::secret_paths) names | `/reset/{token}` |
//! | all of these in the strings and comments of quoted lines of source code, and strings that the code calls a secret | `let password = "..";`, `.header("authorization", "..")` |
//!
//! Some secrets cannot be recognized, because they look like anything else:
//!
//! - a secret without a name that is short, in one case, or hexadecimal, in a path (`/d/4f9c..`): list it with
//!   [`secret_paths`](ReportsBuilder::secret_paths);
//! - one whose name says nothing (`?x=hunter2`), or that is named in prose ("the password is hunter2"): list its name
//!   with [`secret_params`](ReportsBuilder::secret_params);
//! - a plain word after `token: ` and the like, which is more often an error ("token: expired"), and several words in
//!   `Token("..")`; after `password: ` only a word that begins an error ("must not be empty");
//! - a secret that is compressed, encrypted, or encoded in a way other than percent-encoding and, where it is JSON or
//!   similar, base64;
//! - the names of functions, files, hosts and processes, which are shown as they are.
//!
//! Some values may be hidden although they aren't secret: long ids of random characters (those of Google's documents,
//! hashes in base58), ids and hashes right after a segment like `sessions` or `verify`, and values whose name sounds
//! like a secret's.
//!
//! Control characters, text-direction overrides and invisible characters are escaped everywhere.
//!
//! # Where the ideas come from
//!
//! The text, the file per report and the logger follow Python's [dogslow](https://pypi.org/project/dogslow/), which
//! reports what a slow Django request is doing.

mod assemble;
// Parts of it are unused without a feature that reaches over a network.
#[cfg_attr(not(any(feature = "email", feature = "fleet", feature = "webhook")), allow(dead_code))]
mod delivery;
mod dump;
#[cfg(feature = "fleet")]
#[cfg_attr(docsrs, doc(cfg(feature = "fleet")))]
pub mod fleet;
mod log_later;
pub mod metrics;
mod model;
mod pipeline;
#[cfg(test)]
mod planted;
mod privacy;
#[cfg(feature = "console")]
pub(crate) mod profiles;
pub(crate) mod render;
pub(crate) mod rules;
mod runtimes;
#[cfg(feature = "console")]
pub(crate) mod shared;
mod sink;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod threads;
mod usage;

pub(crate) use model::process::complete;
#[cfg(heeler_remote)]
pub(crate) use model::process::hostname;
#[cfg(feature = "profile")]
pub(crate) use privacy::TRACEPARENT;
#[cfg(test)]
pub(crate) use privacy::planted as secrets;
pub(crate) use privacy::{Redactor, told};

pub use dump::{
    DUMP_SCHEMA, Dump, DumpClaim, DumpGroup, DumpKind, DumpPath, DumpResource, DumpState, DumpWork, Shutdown,
    blocking_dump, dump, shutdown,
};
pub use metrics::stats::{SinkStats, Stats};
pub use model::fleet::{FleetIncident, FleetInstance, FleetNews};
pub use model::others::{BlockingPool, BusyThreads, Contended, Finding, Holder, OtherPlace, Others};
pub use model::words::{Activity, StackKind};
pub use model::{
    Denied, Ending, Interval, Location, ProcessInfo, Repeats, Report, RequestInfo, SCHEMA, Span, Stack, Thread,
};
pub use pipeline::builder::ReportsBuilder;
pub use pipeline::reports::Reports;
pub use rules::Rule;
#[cfg(feature = "systemd")]
#[cfg_attr(docsrs, doc(cfg(feature = "systemd")))]
pub use runtimes::notify_systemd;
pub use runtimes::{Liveness, RuntimeHealth, liveness, runtimes, watch_runtime};
#[cfg(feature = "otel")]
#[cfg_attr(docsrs, doc(cfg(feature = "otel")))]
pub use sink::OpenTelemetry;
#[cfg(feature = "pyroscope")]
#[cfg_attr(docsrs, doc(cfg(feature = "pyroscope")))]
pub use sink::Pyroscope;
#[cfg(feature = "sentry")]
#[cfg_attr(docsrs, doc(cfg(feature = "sentry")))]
pub use sink::Sentry;
#[cfg(feature = "webhook")]
#[cfg_attr(docsrs, doc(cfg(feature = "webhook")))]
pub use sink::Webhook;
#[cfg(feature = "email")]
#[cfg_attr(docsrs, doc(cfg(feature = "email")))]
pub use sink::email;
pub use sink::{AsyncSink, Sink, SinkError};

pub use crate::capture::Frame;
pub use crate::inflight::Ended;
pub use crate::monitor::{DeniedBy, Kind, Verdict};

pub(crate) use assemble::described::Described;
#[cfg(feature = "console")]
pub(crate) use assemble::location::place as place_text;
#[cfg(feature = "watchdog")]
pub(crate) use dump::expect_pile_up;
#[cfg(feature = "console")]
pub(crate) use dump::{cheap_dump, is_shutting_down};
pub(crate) use log_later::log_later;
pub(crate) use metrics::stats::total;
pub(crate) use pipeline::digest::Digest;
#[cfg(feature = "console")]
pub(crate) use pipeline::history::Incident;
pub(crate) use pipeline::reporter::send;
pub(crate) use pipeline::watching::{expect, expect_box, start_watching};
#[cfg(feature = "pprof")]
pub(crate) use render::pprof;
pub(crate) use render::significant;
#[cfg(feature = "pyroscope")]
pub(crate) use sink::pyroscope;
