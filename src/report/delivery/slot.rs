//! One sink, and what is logged of its failures.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::report::Report;
use crate::report::by_sink::BySink;
use crate::report::escape::escape;
use crate::report::log_safely;
use crate::report::sink::{Failure, Remote, Sink, TARGET};
use crate::sync::lock_std;

/// A sink that fails is logged this often at most.
pub(in crate::report) const LOG_FAILURES_EVERY: Duration = Duration::from_secs(60);

/// A sink, and how it fares.
pub(super) struct Slot {
    pub(super) name: String,
    pub(super) outlet: Outlet,
    failures: Mutex<Failures>,
    counts: &'static BySink,
}

/// The two kinds of sinks.
pub(in crate::report) enum Outlet {
    Sink(Box<dyn Sink>),
    Remote(Box<dyn Remote>),
}

#[derive(Default)]
struct Failures {
    logged_at: Option<Instant>,
    /// Failures that were not logged.
    unlogged: u64,
}

impl Slot {
    pub(super) fn new(outlet: Outlet) -> Self {
        let name = match &outlet {
            Outlet::Sink(sink) => sink.name(),
            Outlet::Remote(remote) => remote.name(),
        };
        let name = escape(name, 64).into_owned();
        Self { counts: BySink::named(&name), name, outlet, failures: Mutex::default() }
    }

    /// How many reports may go out in an hour.
    pub(super) fn per_hour(&self) -> Option<u32> {
        match &self.outlet {
            Outlet::Sink(_) => None,
            Outlet::Remote(remote) => remote.per_hour(),
        }
    }

    /// An attempt failed: counted, and logged.
    pub(super) fn failed(&self, failure: &Failure, now: Instant) {
        self.counts.count_failed();
        self.log(failure, now);
    }

    /// Logs a failure, unless one was logged a moment ago.
    pub(super) fn log(&self, failure: &Failure, now: Instant) {
        log_safely(|| self.log_failure(&chain(&*failure.cause), now));
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
        let (sink, error) = (&*self.name, &*escape(error, 1024));
        tracing::error!(target: TARGET, sink, error, unlogged_failures = before, "a report did not arrive: {sink}: {error}");
    }
}

/// A sink that panics does so again: the report is given up.
pub(super) fn panicked(panic: Box<dyn Any + Send>) -> Failure {
    let message = panic.downcast_ref::<&str>().copied();
    let message = message.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let failure = Failure::permanent(format!("it panicked: {}", message.unwrap_or("without a message")));
    // What it panicked with is other people's, too.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(panic)));
    failure
}

/// Hands a report to a sink that is waited for.
pub(super) fn call(sink: &dyn Sink, report: &Report) -> Result<(), Failure> {
    let outcome = catch_unwind(AssertUnwindSafe(|| sink.deliver(report)));
    outcome.map_err(panicked)?.map_err(Failure::transient)
}

/// An error and its causes in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    // An error whose causes go in circles is not worth hanging for.
    for _ in 0..16 {
        let Some(error) = cause else { break };
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
