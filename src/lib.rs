//! Tower layers that say where a slow request is stuck.
//!
//! Requests hang, the metrics say that p99 is high, and nobody can say *where*. Put a [`WatchdogLayer`] around an axum,
//! hyper or tonic service. A request that runs longer than its threshold is caught in the act, and a report says on
//! which `.await` it waits, or which function holds its thread.
//!
//! ```no_run
//! use std::time::Duration;
//! use heeler::{Reports, WatchdogLayer};
//!
//! # async fn home() {}
//! # fn app() -> Result<axum::Router, heeler::Error> {
//! let reports = Reports::builder()
//!     .directory("/var/log/my-service/slow") // a .txt, a .json and a .svg per report, besides the log
//!     .build()?;
//!
//! let app = axum::Router::new()
//!     .route("/", axum::routing::get(home))
//!     .layer(WatchdogLayer::new(Duration::from_secs(5)).reports(reports));
//! # Ok(app)
//! # }
//! ```
//!
//! The [timebox](mod@timebox) stops work in time and says where it was: a [`TimeboxLayer`] around a service, a
//! [`DeadlineLayer`] around a client, [`timebox()`] around any future, [`checkpoint`] in plain code.
//!
//! ```
//! # async fn resize() -> u32 { 7 }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! use std::time::Duration;
//! use heeler::TimeboxExt;
//!
//! if let Err(interrupted) = resize().timebox(Duration::from_secs(2)).label("thumbnails").await {
//!     // the timebox "thumbnails" of 2s was up after 2.001s, in app::resize at src/photos.rs:41
//!     eprintln!("{interrupted}");
//! }
//! # }
//! ```
//!
//! When the service does not answer any more, a [`dump`](dump()) says what is in flight and where each of it is: on a page of
//! its own with the feature `console`, at a signal, before a panic ends the process, or in code.
//!
//! ```
//! let dump = heeler::blocking_dump();
//! // 90 in flight: 87 waiting for a connection of the pool in app::load_invoice at src/invoice.rs:41, ..
//! println!("{dump}");
//! ```
//!
//! heeler needs no annotations, no `cfg` flags and no nightly compiler. For names of inlined async functions, keep
//! `debug = "limited"` in `[profile.release]`. What a report shows in which build is listed [below](#builds).
//!
//! The [`guide`] says what to do with each verdict, and how to run this in production.
//!
//! # How it works
//!
//! A request that ends in time pays for a row in a [table](crate#cost) and a few plain stores per poll. One OS thread,
//! the monitor, watches the rows. When a request is late, the monitor wakes its task. The next poll gets a waker that
//! copies the stack at each clone, which happens exactly where the leaf future registers to be woken. If a poll does
//! not return, heeler copies the stack of its thread, either while it sleeps in a system call or in a signal handler. A
//! third thread, the reporter, unwinds and symbolizes the copies and writes the reports. A runtime whose workers are
//! all blocked is therefore still reported.
//!
//! | verdict | the report shows |
//! |---|---|
//! | *waiting* | the await stacks, one per branch |
//! | *churning* | how many short waits took most of the time, and where |
//! | *blocking* | the stack of the thread, and whether it is running or which system call it is in |
//! | *starved* | the stacks of the polls that hold the runtime's workers |
//! | *throttled* | for how long the host denied the process the CPU, and why |
//! | *yielding* | where it yields again and again |
//! | *no waker* | that its last poll kept no waker, and where it was |
//! | *abandoned* | the last known stacks of a request whose client has left |
//! | *interrupted* | where it was when its timebox expired |
//!
//! # Cost
//!
//! A request takes one clock read, one row of at most 256 bytes (rows are recycled; the table never gives memory back),
//! and no allocation. From an eighth of its threshold on, its polls are traced, which takes a fraction of a microsecond
//! each. The benchmarks in `benches/` compare this with tower's and tower-http's layers.
//!
//! # Switching it off
//!
//! With `HEELER_DISABLE=1` in the environment of the process, heeler does nothing: layers pass requests through as they
//! are, [`watch`] and [`timebox()`] only poll, no thread is started and no signal handler installed. Only
//! [`timebox::exclusive`] still keeps a job from running twice, because the application relies on that.
//! `HEELER_DISABLE_TIMEBOXES=1` switches off timeboxes alone.
//!
//! # Platforms
//!
//! Linux is tested on x86_64, and on aarch64 in an emulator. Elsewhere the `backtrace` crate walks await stacks, and
//! thread stacks are not available. Reports say so, and so does one log line at the start.
//!
//! The system calls that heeler makes are [listed below](#system-calls) for seccomp filters.
//!
//! # Features
//!
//! Each tool has a feature. `default-features = false` with one of them leaves out the dependencies that only the
//! others need.
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `watchdog` | yes | [`WatchdogLayer`] and [`watch`] |
//! | `timebox` | yes | [`TimeboxLayer`], [`DeadlineLayer`], and all of [timebox](mod@timebox) |
//! | `profile` | yes | [`ProfileLayer`], and [`authorize`], which says who may use it |
//! | `axum` | no | the route's template (`/users/{id}`) in reports |
//! | `console` | no | [`console`](console()): a page about what is in flight, also while the service is stuck |
//! | `sentry` | no | [`Sentry`]: one event per report, with its stacks |
//! | `metrics` | no | the [metrics](metrics()) of the process through the `metrics` facade, from the reporter's thread |
//! | `otel` | no | [`OpenTelemetry`]: one log record per report, an event on the request's span, and instruments |
//! | `callgraph` | no | profiles as call graphs, in DOT and PDF |
//! | `fleet` | no | [`Fleet`](https://docs.rs/heeler/latest/heeler/struct.Fleet.html): one message per incident for all instances of a service |
//! | `firefox` | no | profiles for the Firefox Profiler |
//! | `object-store` | no | [`profile::ProfileStore`] in a directory or bucket that many instances share |
//! | `pprof` | no | profiles for pprof and Pyroscope, and what the rest of the process did during them |
//! | `process` | no | [`timebox::Process`] also for children of `tokio::process` |
//! | `pyroscope` | no | [`Pyroscope`]: profiles, and where the time of slow requests went, on a Pyroscope server |
//! | `reqwest` | no | [`DeadlineLayer`] also around a `reqwest::Client` |
//! | `portable` | no | nothing that a service needs: see `build.rs` |
//! | `email` | no | [`Email`]: reports as messages, by SMTP, by `sendmail` or into files |
//! | `spans` | no | [`SpanLayer`]: names and fields of the `tracing` spans that the request is in |
//! | `systemd` | no | [`notify_systemd`](https://docs.rs/heeler/latest/heeler/fn.notify_systemd.html): systemd's watchdog, and a dump before it kills |
//! | `test-util` | no | [`test::hang_guard`](https://docs.rs/heeler/latest/heeler/test/fn.hang_guard.html): where a test waits that hangs |
//! | `webhook` | no | [`Webhook`]: reports by HTTP, signed, or as messages for Slack and similar services |
//!
#![cfg_attr(not(feature = "spans"), doc = "[`SpanLayer`]: https://docs.rs/heeler/latest/heeler/struct.SpanLayer.html")]
#![cfg_attr(
    not(feature = "pyroscope"),
    doc = "[`Pyroscope`]: https://docs.rs/heeler/latest/heeler/struct.Pyroscope.html"
)]
#![cfg_attr(not(feature = "sentry"), doc = "[`Sentry`]: https://docs.rs/heeler/latest/heeler/struct.Sentry.html")]
#![cfg_attr(not(feature = "webhook"), doc = "[`Webhook`]: https://docs.rs/heeler/latest/heeler/struct.Webhook.html")]
#![cfg_attr(
    not(feature = "otel"),
    doc = "[`OpenTelemetry`]: https://docs.rs/heeler/latest/heeler/struct.OpenTelemetry.html"
)]
#![cfg_attr(not(feature = "email"), doc = "[`Email`]: https://docs.rs/heeler/latest/heeler/struct.Email.html")]
#![doc = include_str!("../docs/builds.md")]
//!
#![doc = include_str!("../docs/system-calls.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(all(feature = "watchdog", feature = "timebox", feature = "profile")),
    allow(dead_code, unused_imports, reason = "the tools share what is below them, and none needs all of it"),
    allow(rustdoc::broken_intra_doc_links, reason = "what is below the tools links to each of them")
)]

#[cfg(any(feature = "console", feature = "profile"))]
#[cfg_attr(docsrs, doc(cfg(any(feature = "console", feature = "profile"))))]
pub mod authorize;
mod capture;
mod children;
mod clock;
#[cfg(feature = "console")]
#[cfg_attr(docsrs, doc(cfg(feature = "console")))]
pub mod console;
mod counts;
mod disabled;
mod error;
#[cfg(any(feature = "profile", feature = "timebox"))]
mod flag;
mod flamegraph;
/// Running heeler in production: what to do with each verdict, where it runs, who may profile.
///
#[doc = include_str!("../docs/operations.md")]
#[doc = include_str!("../docs/scale.md")]
pub mod guide {}
mod inflight;
mod log;
#[cfg(any(feature = "profile", feature = "timebox", feature = "watchdog"))]
mod macros;
mod monitor;
mod parts;
mod private;
#[cfg(feature = "profile")]
#[cfg_attr(docsrs, doc(cfg(feature = "profile")))]
pub mod profile;
pub mod report;
mod resource;
mod sync;
#[cfg(feature = "test-util")]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
pub mod test;
mod text;
#[cfg(feature = "timebox")]
#[cfg_attr(docsrs, doc(cfg(feature = "timebox")))]
pub mod timebox;
mod tries;
#[cfg(feature = "watchdog")]
#[cfg_attr(docsrs, doc(cfg(feature = "watchdog")))]
pub mod watchdog;

pub use children::{WatchChild, spawn, spawn_blocking, watch_child};
#[cfg(feature = "console")]
#[cfg_attr(docsrs, doc(cfg(feature = "console")))]
pub use console::{Console, console};
pub use error::Error;
#[cfg(feature = "spans")]
#[cfg_attr(docsrs, doc(cfg(feature = "spans")))]
pub use inflight::spans::SpanLayer;
pub use inflight::{Current, Resource, ResourceId, Usage, current};
pub use monitor::use_signal;
#[cfg(feature = "profile")]
#[cfg_attr(docsrs, doc(cfg(feature = "profile")))]
pub use profile::ProfileLayer;
#[cfg(feature = "otel")]
#[cfg_attr(docsrs, doc(cfg(feature = "otel")))]
pub use report::OpenTelemetry;
#[cfg(feature = "pyroscope")]
#[cfg_attr(docsrs, doc(cfg(feature = "pyroscope")))]
pub use report::Pyroscope;
#[cfg(feature = "sentry")]
#[cfg_attr(docsrs, doc(cfg(feature = "sentry")))]
pub use report::Sentry;
#[cfg(feature = "webhook")]
#[cfg_attr(docsrs, doc(cfg(feature = "webhook")))]
pub use report::Webhook;
#[cfg(feature = "email")]
#[cfg_attr(docsrs, doc(cfg(feature = "email")))]
pub use report::email::Email;
#[cfg(feature = "fleet")]
#[cfg_attr(docsrs, doc(cfg(feature = "fleet")))]
pub use report::fleet::Fleet;
pub use report::metrics::{Metrics, metrics};
#[cfg(feature = "systemd")]
#[cfg_attr(docsrs, doc(cfg(feature = "systemd")))]
pub use report::notify_systemd;
pub use report::threads::{ThreadDump, ThreadGroup, register_thread, threads};
pub use report::{
    AsyncSink, Dump, Report, Reports, ReportsBuilder, Rule, Sink, SinkError, Stats, blocking_dump, dump, liveness,
    runtimes, shutdown, watch_runtime,
};
pub use resource::{
    Acquire, Acquired, Held, Initialize, WaitFor, acquire, acquire_blocking, acquire_shared, initialize, wait_for,
};
#[cfg(feature = "timebox")]
#[cfg_attr(docsrs, doc(cfg(feature = "timebox")))]
pub use timebox::deadline::DeadlineLayer;
#[cfg(feature = "timebox")]
#[cfg_attr(docsrs, doc(cfg(feature = "timebox")))]
pub use timebox::{Interrupted, Quota, TimeboxExt, TimeboxLayer, checkpoint, timebox};
#[cfg(feature = "watchdog")]
#[cfg_attr(docsrs, doc(cfg(feature = "watchdog")))]
pub use watchdog::{Actor, WatchdogHandle, WatchdogLayer, upgrade, watch};

/// README's code, compiled with the doc tests. It uses all tools, the console, email, and a fleet.
#[cfg(all(
    doctest,
    feature = "console",
    feature = "email",
    feature = "fleet",
    feature = "profile",
    feature = "timebox",
    feature = "watchdog"
))]
#[doc = include_str!("../README.md")]
mod readme {}
