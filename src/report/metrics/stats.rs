//! Counts what happened to all reports.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use crate::capture::PerProcess;
use crate::monitor::Verdict;
use crate::report::model::Report;
use crate::sync::lock_std;
pub(crate) use crate::sync::{add, count};

/// How many reports there were, and what happened to them, since these [`Reports`](crate::Reports) were built.
///
/// `made` and `recovered` together are the sum of `delivered`, `undelivered`, `suppressed` and `queued`, whenever no
/// report is being handed over. `dropped` and `not_captured` come on top. [`Reports::sinks`](crate::Reports::sinks)
/// says what each sink has taken.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Reports (and updates) that were put together.
    pub made: u64,
    /// Reports that every sink has taken. While one sink is down this stands still, and `deliveries` goes on.
    pub delivered: u64,
    /// How often a sink has taken a report: with four sinks, up to four times for each report.
    /// [`Reports::sinks`](crate::Reports::sinks) says which sink did.
    pub deliveries: u64,
    /// Reports that at least one sink has not taken and never will: it refused them, was down for too long, or had too
    /// many to take.
    pub undelivered: u64,
    /// Reports that are on their way to at least one sink, or wait to be tried again.
    pub queued: u64,
    /// Reports that an earlier or another process left in the spool, and that this one has taken over.
    pub recovered: u64,
    /// Reports in the spool that a later version of heeler wrote. They wait for a process of that version. Reports that
    /// wait in vain for as long as [reports are tried again](crate::ReportsBuilder::retry_for), an hour at least, are
    /// removed, and then count as `recovered` and `undelivered`. So do the oldest beyond 256 MiB. Each process that
    /// shares the spool counts all of them, so take the largest of these numbers, not their sum.
    pub left_to_later_version: u64,
    /// Reports that the spool had no room for, or that could not be written to it. They were kept in memory alone.
    pub not_spooled: u64,
    /// Reports that were held back because one about the same had just been sent.
    pub suppressed: u64,
    /// Captures dropped before they became a report, because too many waited for the reporter.
    pub dropped: u64,
    /// Attempts to hand a report to a sink that failed or panicked. One report may fail many times, and still arrive.
    pub failed_deliveries: u64,
    /// Captures that were due and have not been taken, because the budget of captures per second was used up or the
    /// work ended first. Goes down again if one is taken later.
    pub not_captured: u64,
    pub(in crate::report) by_verdict: [u64; Verdict::ALL.len()],
}

/// The state of one sink: see [`Reports::sinks`](crate::Reports::sinks).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SinkStats {
    /// The sink's name in the log: `email`, `email 2`.
    pub name: String,
    /// Reports (and updates) that it has taken.
    pub delivered: u64,
    /// Reports that it has not taken and never will: see [`Stats::undelivered`].
    pub undelivered: u64,
    /// Reports that are on their way to it, or wait to be tried again.
    pub queued: u64,
    /// Attempts that failed or panicked.
    pub failed_deliveries: u64,
}

impl Stats {
    /// Returns how many of the reports made (updates included) have this verdict.
    ///
    /// ```
    /// use heeler::report::Verdict;
    ///
    /// let reports = heeler::Reports::default();
    /// assert_eq!(reports.stats().with_verdict(Verdict::Blocking), 0);
    /// ```
    #[must_use]
    pub const fn with_verdict(&self, verdict: Verdict) -> u64 {
        self.by_verdict[verdict as usize]
    }

    /// Adds two sums. Every field is named, so that none is forgotten.
    fn plus(self, other: Self) -> Self {
        Self {
            made: self.made + other.made,
            delivered: self.delivered + other.delivered,
            deliveries: self.deliveries + other.deliveries,
            undelivered: self.undelivered + other.undelivered,
            queued: self.queued + other.queued,
            recovered: self.recovered + other.recovered,
            left_to_later_version: self.left_to_later_version + other.left_to_later_version,
            not_spooled: self.not_spooled + other.not_spooled,
            suppressed: self.suppressed + other.suppressed,
            dropped: self.dropped + other.dropped,
            failed_deliveries: self.failed_deliveries + other.failed_deliveries,
            not_captured: self.not_captured + other.not_captured,
            by_verdict: std::array::from_fn(|at| self.by_verdict[at] + other.by_verdict[at]),
        }
    }

    /// Returns the numbers without the verdicts, for tests that compare the rest.
    #[cfg(test)]
    pub(crate) fn totals(self) -> Self {
        Self { by_verdict: Default::default(), ..self }
    }
}

impl fmt::Debug for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Every field is named, so that none is forgotten.
        let Self {
            made,
            delivered,
            deliveries,
            undelivered,
            queued,
            recovered,
            left_to_later_version,
            not_spooled,
            suppressed,
            dropped,
            failed_deliveries,
            not_captured,
            by_verdict,
        } = self;
        f.debug_struct("Stats")
            .field("made", made)
            .field("delivered", delivered)
            .field("deliveries", deliveries)
            .field("undelivered", undelivered)
            .field("queued", queued)
            .field("recovered", recovered)
            .field("left_to_later_version", left_to_later_version)
            .field("not_spooled", not_spooled)
            .field("suppressed", suppressed)
            .field("dropped", dropped)
            .field("failed_deliveries", failed_deliveries)
            .field("not_captured", not_captured)
            .field("by_verdict", &ByVerdict(by_verdict))
            .finish()
    }
}

/// Prints the verdicts that occurred, by name.
struct ByVerdict<'a>(&'a [u64; Verdict::ALL.len()]);

impl fmt::Debug for ByVerdict<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = Verdict::ALL.iter().zip(self.0).filter(|(_, count)| **count > 0);
        f.debug_map().entries(counts.map(|(verdict, count)| (verdict.as_str(), count))).finish()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) made: AtomicU64,
    pub(crate) delivered: AtomicU64,
    pub(crate) deliveries: AtomicU64,
    pub(crate) undelivered: AtomicU64,
    queued: AtomicU64,
    pub(crate) recovered: AtomicU64,
    left_to_later_version: AtomicU64,
    pub(crate) not_spooled: AtomicU64,
    pub(crate) suppressed: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) failed_deliveries: AtomicU64,
    pub(crate) not_captured: AtomicU64,
    /// Those that a report has mentioned.
    pub(crate) not_captured_before: AtomicU64,
    by_verdict: [AtomicU64; Verdict::ALL.len()],
}

/// The counters of all [`Reports`](crate::Reports) that may still count, and the sums of those that are gone.
#[derive(Default)]
struct All {
    counters: Vec<Arc<Counters>>,
    gone: Option<Stats>,
}

static ALL: PerProcess<Mutex<All>> = PerProcess::new(Mutex::default);

impl All {
    /// Adds up the counters that nothing else holds any more. These are final, because what isn't shared cannot be
    /// shared again.
    fn settle(&mut self) -> Stats {
        let mut gone = self.gone.unwrap_or_default();
        self.counters.retain_mut(|counters| {
            // `get_mut` never waits, and sees everything that was counted before the others let go. Reports that were
            // on their way then no longer are.
            let last = Arc::get_mut(counters).map(|last| Stats { queued: 0, left_to_later_version: 0, ..last.read() });
            gone = last.map_or(gone, |last| gone.plus(last));
            last.is_none()
        });
        *self.gone.insert(gone)
    }
}

/// Returns what happened to all reports of the process.
pub(crate) fn total() -> Stats {
    let mut all = lock_std(ALL.get());
    let gone = all.settle();
    all.counters.iter().fold(gone, |sum, counters| sum.plus(counters.read()))
}

impl Counters {
    /// Sets how many reports are on their way.
    pub(crate) fn set_queued(&self, reports: usize) {
        self.queued.store(reports as u64, Relaxed);
    }

    /// Sets how many reports of a later version are in the spool. Returns how many there were.
    pub(crate) fn set_left_to_later(&self, reports: usize) -> u64 {
        self.left_to_later_version.swap(reports as u64, Relaxed)
    }

    /// Creates counters that [`total`] knows of.
    pub(crate) fn registered() -> Arc<Self> {
        let counters = Arc::new(Self::default());
        let mut all = lock_std(ALL.get());
        if all.counters.len() == all.counters.capacity() {
            all.settle();
        }
        all.counters.push(Arc::clone(&counters));
        counters
    }

    /// Counts a report that was put together.
    pub(crate) fn count_made(&self, report: &Report) {
        count(&self.made);
        count(&self.by_verdict[report.verdict as usize]);
        #[cfg(feature = "metrics")]
        super::meters::reported(report);
    }

    pub(crate) fn read(&self) -> Stats {
        Stats {
            made: self.made.load(Relaxed),
            delivered: self.delivered.load(Relaxed),
            deliveries: self.deliveries.load(Relaxed),
            undelivered: self.undelivered.load(Relaxed),
            queued: self.queued.load(Relaxed),
            recovered: self.recovered.load(Relaxed),
            left_to_later_version: self.left_to_later_version.load(Relaxed),
            not_spooled: self.not_spooled.load(Relaxed),
            suppressed: self.suppressed.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            failed_deliveries: self.failed_deliveries.load(Relaxed),
            not_captured: self.not_captured.load(Relaxed),
            by_verdict: std::array::from_fn(|at| self.by_verdict[at].load(Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: the output says which verdict each number belongs to.
    #[test]
    fn debug_output_names_the_verdicts() {
        let mut stats = Stats { made: 3, ..Stats::default() };
        stats.by_verdict[Verdict::NoWaker as usize] = 3;
        let text = format!("{stats:?}");
        assert!(text.starts_with("Stats { made: 3, ") && text.ends_with(r#"by_verdict: {"no_waker": 3} }"#), "{text}");
    }

    /// Guards: each verdict is counted in its place, and ended work still counts, once.
    #[test]
    fn ended_work_still_counts() {
        for (at, verdict) in Verdict::ALL.into_iter().enumerate() {
            assert_eq!(verdict as usize, at);
        }
        let (one, other) = (Counters::registered(), Counters::registered());
        // No real report has this verdict, so tests that run at the same time don't count.
        let verdict = Verdict::Interrupted;
        let report = Report { verdict, ..crate::report::testing::report() };
        one.count_made(&report);
        other.count_made(&report);
        assert_eq!(total().with_verdict(verdict), 2);
        assert_eq!(one.read().made, 1);
        drop(one);
        assert_eq!(total().with_verdict(verdict), 2);
        other.count_made(&report);
        assert_eq!((total().with_verdict(verdict), total().with_verdict(verdict)), (3, 3));
    }
}
