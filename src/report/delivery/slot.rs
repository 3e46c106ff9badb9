//! One sink, its counts, and the log of its failures.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::queue::{HOUR, Limit};
use super::receipt::Outcome;
use crate::log::TARGET;
use crate::log::log_safely;
use crate::report::metrics::by_sink::BySink;
use crate::report::metrics::stats::count;
use crate::report::privacy::told;
use crate::report::sink::{Batch, DynAsyncSink, Sink, SinkError};
use crate::report::{Report, SinkStats};
use crate::sync::lock_std;
use crate::text::escape::escape;

/// How often a sink's failures are logged at most.
pub(in crate::report) const LOG_FAILURES_EVERY: Duration = Duration::from_secs(60);

/// A sink and its state.
pub(in crate::report) struct Slot<S = AnySink> {
    pub(in crate::report) name: String,
    pub(in crate::report) sink: S,
    /// What it gets: `a report`.
    what: &'static str,
    failures: Mutex<Failures>,
    counts: &'static BySink,
    accepted: AtomicU64,
    taken: AtomicU64,
    given_up: AtomicU64,
    failed: AtomicU64,
}

/// The two kinds of sinks. Shared, because a child of `fork` has the same ones.
#[derive(Clone)]
pub(in crate::report) enum AnySink {
    Blocking(Arc<dyn Sink>),
    Async(Arc<dyn DynAsyncSink>),
}

#[derive(Default)]
struct Failures {
    logged_at: Option<Instant>,
    /// Failures that were not logged.
    unlogged: u64,
}

impl Slot {
    pub(super) fn of_reports(sink: AnySink) -> Self {
        let name = match &sink {
            AnySink::Blocking(sink) => sink.name(),
            AnySink::Async(sink) => sink.name(),
        };
        let name = escape(name, 64).into_owned();
        Self::new(name, sink, "a report")
    }

    /// Returns how often the sink may be called.
    pub(super) fn limit(&self) -> Option<Limit> {
        let AnySink::Async(sink) = &self.sink else { return None };
        let batches = sink.digest_every().map(|period| Limit { attempts: 0, period });
        batches.or_else(|| sink.per_hour().map(|attempts| Limit { attempts, period: HOUR }))
    }

    /// Returns whether people read what the sink sends.
    pub(super) fn tells_people(&self) -> bool {
        match &self.sink {
            AnySink::Blocking(sink) => sink.tells_people(),
            AnySink::Async(sink) => sink.tells_people(),
        }
    }

    /// Returns how reports are put together, if several are sent at once.
    pub(super) fn batch(&self) -> Option<Batch> {
        match &self.sink {
            AnySink::Blocking(_) => None,
            AnySink::Async(sink) => sink.batch(),
        }
    }
}

impl<S> Slot<S> {
    /// `what` it gets begins a line of the log: `a report`.
    pub(in crate::report) fn new(name: String, sink: S, what: &'static str) -> Self {
        let counts = BySink::named(&name);
        let [accepted, taken, given_up, failed] = [const { AtomicU64::new(0) }; 4];
        Self { name, sink, what, failures: Mutex::default(), counts, accepted, taken, given_up, failed }
    }

    /// Returns what happened to the reports for this sink.
    pub(in crate::report) fn stats(&self) -> SinkStats {
        // Read in the opposite order of counting, so that no report is settled before it is accepted.
        let (delivered, undelivered) = (self.taken.load(Acquire), self.given_up.load(Acquire));
        let queued = self.accepted.load(Relaxed).saturating_sub(delivered + undelivered);
        let failed_deliveries = self.failed.load(Relaxed);
        SinkStats { name: self.name.clone(), delivered, undelivered, queued, failed_deliveries }
    }

    /// Counts a report that is on its way to the sink.
    pub(in crate::report) fn count_accepted(&self) {
        count(&self.accepted);
    }

    /// Counts a report that the sink is done with.
    pub(in crate::report) fn count_settled(&self, outcome: Outcome) {
        match outcome {
            Outcome::Taken => {
                self.taken.fetch_add(1, Release);
                self.counts.count_taken();
            }
            Outcome::GivenUp => {
                self.given_up.fetch_add(1, Release);
            }
        }
    }

    /// Counts and logs a failed attempt.
    pub(in crate::report) fn failed(&self, error: &SinkError, now: Instant) {
        count(&self.failed);
        self.counts.count_failed();
        self.log(error, now);
    }

    /// Logs a failure, unless one was logged a moment ago.
    pub(in crate::report) fn log(&self, error: &SinkError, now: Instant) {
        log_safely(|| self.log_failure(&chain(error.cause()), now));
    }

    fn log_failure(&self, error: &str, now: Instant) {
        let mut failures = lock_std(&self.failures);
        if failures.logged_at.is_some_and(|at| now.saturating_duration_since(at) < LOG_FAILURES_EVERY) {
            failures.unlogged += 1;
            return;
        }
        failures.logged_at = Some(now);
        let before = std::mem::take(&mut failures.unlogged);
        drop(failures);
        let (what, sink, error) = (self.what, &*self.name, &*told(error, 1024));
        tracing::error!(target: TARGET, sink, error, unlogged_failures = before, "{what} did not arrive: {sink}: {error}");
    }
}

/// Turns a panic into a permanent error, because the sink would panic again.
pub(super) fn panicked(panic: Box<dyn Any + Send>) -> SinkError {
    let message = panic.downcast_ref::<&str>().copied();
    let message = message.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let failure = SinkError::permanent(format!("it panicked: {}", message.unwrap_or("without a message")));
    // The panic's value is other people's code, too.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(panic)));
    failure
}

/// Hands a report to a blocking sink.
pub(super) fn call(sink: &dyn Sink, report: &Report) -> Result<(), SinkError> {
    let outcome = catch_unwind(AssertUnwindSafe(|| sink.deliver(report)));
    outcome.unwrap_or_else(|panic| Err(panicked(panic)))
}

/// Returns an error and its causes in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    // Bounded, because an error's causes could form a cycle.
    for _ in 0..16 {
        let Some(error) = cause else { break };
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
