//! What became of all reports.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How many reports there were, and what became of them, since these [`Reports`](crate::Reports) were built.
///
/// `made` is the sum of `delivered` and `suppressed`; `dropped` and `not_captured` come on top.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Reports (and updates) that were put together.
    pub made: u64,
    /// Those that went out to the sinks.
    pub delivered: u64,
    /// Those that were held back because one about the same had just gone out.
    pub suppressed: u64,
    /// Captures thrown away before they were a report, because too many waited for the reporter.
    pub dropped: u64,
    /// Deliveries to a single sink that failed or panicked.
    pub failed_deliveries: u64,
    /// Captures that were due and have not been taken, because the budget of captures a second was used up or the work
    /// ended first. Goes down again where one is taken later.
    pub not_captured: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) made: AtomicU64,
    pub(crate) delivered: AtomicU64,
    pub(crate) suppressed: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) failed_deliveries: AtomicU64,
    pub(crate) not_captured: AtomicU64,
    /// Those that a report has spoken of.
    pub(crate) not_captured_before: AtomicU64,
}

impl Counters {
    pub(crate) fn read(&self) -> Stats {
        Stats {
            made: self.made.load(Relaxed),
            delivered: self.delivered.load(Relaxed),
            suppressed: self.suppressed.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            failed_deliveries: self.failed_deliveries.load(Relaxed),
            not_captured: self.not_captured.load(Relaxed),
        }
    }
}

/// One more of something.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
