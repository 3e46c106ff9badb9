//! One sink, and what is logged of its failures.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::escape::escape;
use super::log_safely;
use super::model::Report;
use super::sink::{Failure, Remote, Sink, TARGET};
use crate::sync::lock_std;

/// A sink that fails is logged this often at most.
pub(super) const LOG_FAILURES_EVERY: Duration = Duration::from_secs(60);

/// A sink, and how it fares.
pub(super) struct Slot {
    pub(super) name: String,
    sink: Outlet,
    failures: Mutex<Failures>,
}

/// The two kinds of sinks.
pub(super) enum Outlet {
    Sink(Box<dyn Sink>),
    Remote(Box<dyn Remote>),
}

impl Outlet {
    fn deliver(&self, report: &Report) -> Result<(), Failure> {
        match self {
            Self::Sink(sink) => sink.deliver(report).map_err(Failure::transient),
            Self::Remote(remote) => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.map_err(Failure::transient)?.block_on(remote.deliver(report))
            }
        }
    }
}

#[derive(Default)]
struct Failures {
    logged_at: Option<Instant>,
    /// Failures that were not logged.
    unlogged: u64,
}

impl Slot {
    pub(super) fn new(sink: Outlet) -> Self {
        let name = match &sink {
            Outlet::Sink(sink) => sink.name(),
            Outlet::Remote(remote) => remote.name(),
        };
        Self { name: escape(name, 64).into_owned(), sink, failures: Mutex::default() }
    }

    /// Whether the report arrived.
    pub(super) fn deliver(&self, report: &Report, now: Instant) -> bool {
        let outcome =
            catch_unwind(AssertUnwindSafe(|| self.sink.deliver(report).map_err(|error| chain(&*error.cause))));
        let error = match outcome {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => error,
            Err(panic) => {
                let message = panic.downcast_ref::<&str>().copied();
                let message = message.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
                format!("it panicked: {}", message.unwrap_or("without a message"))
            }
        };
        log_safely(|| self.log_failure(&error, now));
        false
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
