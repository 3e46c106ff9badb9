//! What became of all reports.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How many reports there were, and what became of them, since these [`Reports`](crate::Reports) were built.
///
/// `made` and `recovered` together are the sum of `delivered`, `undelivered`, `suppressed` and `queued`, whenever nothing is
/// being handed over at that moment; `dropped` and `not_captured` come on top.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Reports (and updates) that were put together.
    pub made: u64,
    /// Those that every sink has taken.
    pub delivered: u64,
    /// Those that at least one sink has not taken and never will: it refused them, was out of order for too long, or had
    /// too many to take.
    pub undelivered: u64,
    /// Those that are on their way to at least one sink, or wait for another try.
    pub queued: u64,
    /// Reports that an earlier or another process left in the spool, and that this one has taken over.
    pub recovered: u64,
    /// Reports that the spool had no room for, or that could not be written to it: they were kept in memory alone.
    pub not_spooled: u64,
    /// Those that were held back because one about the same had just gone out.
    pub suppressed: u64,
    /// Captures thrown away before they were a report, because too many waited for the reporter.
    pub dropped: u64,
    /// Attempts to hand a report to a sink that failed or panicked. One report may fail many times, and arrive.
    pub failed_deliveries: u64,
    /// Captures that were due and have not been taken, because the budget of captures a second was used up or the work
    /// ended first. Goes down again where one is taken later.
    pub not_captured: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) made: AtomicU64,
    pub(crate) delivered: AtomicU64,
    pub(crate) undelivered: AtomicU64,
    queued: AtomicU64,
    pub(crate) recovered: AtomicU64,
    pub(crate) not_spooled: AtomicU64,
    pub(crate) suppressed: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) failed_deliveries: AtomicU64,
    pub(crate) not_captured: AtomicU64,
    /// Those that a report has spoken of.
    pub(crate) not_captured_before: AtomicU64,
}

impl Counters {
    /// So many reports are on their way.
    pub(crate) fn set_queued(&self, reports: usize) {
        self.queued.store(reports as u64, Relaxed);
    }

    pub(crate) fn read(&self) -> Stats {
        Stats {
            made: self.made.load(Relaxed),
            delivered: self.delivered.load(Relaxed),
            undelivered: self.undelivered.load(Relaxed),
            queued: self.queued.load(Relaxed),
            recovered: self.recovered.load(Relaxed),
            not_spooled: self.not_spooled.load(Relaxed),
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
