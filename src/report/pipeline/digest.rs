//! Many reports in one: what a sink with a limit per hour sends about the reports beyond it, and what a sink gets that takes
//! all reports of an interval together.

use std::time::{Duration, SystemTime};

#[cfg(feature = "pyroscope")]
use super::timelines::Timelines;
use crate::monitor::Verdict;
use crate::report::assemble::location::place;
use crate::report::assemble::route::route_line;
use crate::report::model::Report;

/// How many different fingerprints are listed; the others are counted together.
const MAX_ENTRIES: usize = 100;

/// The reports gathered beyond a limit: one line per fingerprint.
#[derive(Debug, Clone)]
pub(crate) struct Digest {
    /// When the first report was captured, and the last.
    pub(crate) since: SystemTime,
    pub(crate) until: SystemTime,
    /// Reports that are gathered here, and those like them that were held back.
    pub(crate) reports: u64,
    pub(crate) held_back: u64,
    /// By fingerprint, in the order of their first report.
    entries: Vec<Entry>,
    /// Reports whose fingerprints had no room.
    pub(crate) others: u64,
    /// Reports that were lost on the way to this sink, and that it hasn't been told about.
    pub(crate) lost: u64,
    pub(crate) hostname: String,
    pub(crate) service: Option<String>,
    /// Where the time of the reports' work went, for a sink that sends nothing but digests.
    #[cfg(feature = "pyroscope")]
    pub(crate) timelines: Option<Box<Timelines>>,
}

/// The reports with one fingerprint.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) fingerprint: String,
    /// The number of reports, including those that were held back.
    pub(crate) count: u64,
    /// `GET /photos/{id}`, or the job's name.
    pub(crate) what: String,
    pub(crate) verdict: Verdict,
    /// `photos::load at src/photos.rs:41`, where known.
    pub(crate) place: Option<String>,
    /// Of the slowest.
    pub(crate) worst: Duration,
    /// Its report's id.
    pub(crate) worst_id: String,
}

impl Digest {
    /// Starts a digest with its first report.
    pub(crate) fn of(report: &Report) -> Self {
        let mut digest = Self {
            since: report.captured_at,
            until: report.captured_at,
            reports: 0,
            held_back: 0,
            entries: Vec::new(),
            others: 0,
            lost: 0,
            hostname: report.process.hostname.clone(),
            service: report.process.service.clone(),
            #[cfg(feature = "pyroscope")]
            timelines: None,
        };
        digest.add(report);
        digest
    }

    /// Gathers another report. An update counts only if nothing like it was gathered.
    pub(crate) fn add(&mut self, report: &Report) {
        // The clock may have been set back meanwhile.
        self.since = self.since.min(report.captured_at);
        self.until = self.until.max(report.captured_at);
        // A report may have been read back from a file, which can contain any number.
        self.held_back = self.held_back.saturating_add(report.suppressed);
        let room = self.entries.len() < MAX_ENTRIES;
        let known = self.entries.iter_mut().find(|entry| entry.fingerprint == report.fingerprint);
        let new = u64::from(report.update == 0 || known.is_none());
        self.reports += new;
        let count = report.suppressed.saturating_add(new);
        match known {
            Some(entry) => {
                entry.count = entry.count.saturating_add(count);
                if report.elapsed > entry.worst {
                    (entry.worst, entry.worst_id) = (report.elapsed, report.id.clone());
                }
            }
            None if room => self.entries.push(Entry {
                fingerprint: report.fingerprint.clone(),
                count,
                what: route_line(report),
                verdict: report.verdict,
                place: report.location.as_ref().map(place),
                worst: report.elapsed,
                worst_id: report.id.clone(),
            }),
            None => self.others = self.others.saturating_add(count),
        }
    }

    /// Gathers where the time of a report's work went, too.
    pub(crate) fn add_timeline(&mut self, report: &Report) {
        #[cfg(feature = "pyroscope")]
        self.timelines.get_or_insert_default().add(report);
        #[cfg(not(feature = "pyroscope"))]
        let _ = report;
    }

    /// Returns the entries, the most frequent first.
    pub(crate) fn entries(&self) -> Vec<&Entry> {
        let mut entries: Vec<&Entry> = self.entries.iter().collect();
        entries.sort_by(|a, b| b.count.cmp(&a.count).then(b.worst.cmp(&a.worst)));
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::report;

    fn like(fingerprint: u32, elapsed_ms: u64, suppressed: u64) -> Report {
        let (id, elapsed) = (elapsed_ms.to_string(), Duration::from_millis(elapsed_ms));
        Report { fingerprint: fingerprint.to_string(), id, elapsed, suppressed, ..report() }
    }

    #[test]
    fn lists_the_most_frequent_with_the_worst_report() {
        let mut digest = Digest::of(&like(1, 10, 0));
        digest.add(&like(2, 20, 7));
        digest.add(&like(1, 30, 0));
        digest.add(&like(1, 5, 0));
        let seen: Vec<_> = digest
            .entries()
            .iter()
            .map(|entry| (entry.fingerprint.clone(), entry.count, entry.worst_id.clone()))
            .collect();
        assert_eq!(seen, [("2".to_owned(), 8, "20".to_owned()), ("1".to_owned(), 3, "30".to_owned())]);
        assert_eq!((digest.reports, digest.held_back, digest.others), (4, 7, 0));
        assert_eq!(digest.entries()[1].what, "GET /slow/{what}");
    }

    /// Guards: with a clock that is set back, and reports from an earlier process, the digest still spans from the
    /// first to the last time.
    #[test]
    fn a_clock_set_back_keeps_the_right_period() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let mut digest = Digest::of(&Report { captured_at: at(5_000), ..report() });
        digest.add(&Report { captured_at: at(1_000), ..report() });
        digest.add(&Report { captured_at: at(9_000_000_000), ..report() });
        digest.add(&Report { captured_at: at(2_000), ..report() });
        assert_eq!((digest.since, digest.until, digest.reports), (at(1_000), at(9_000_000_000), 4));
    }

    /// Guards: one request that is looked at four times counts once.
    #[test]
    fn updates_are_not_counted_as_reports() {
        let mut digest = Digest::of(&like(1, 10, 0));
        (1..4).for_each(|update| digest.add(&Report { update, ..like(1, 20, 0) }));
        digest.add(&Report { update: 1, ..like(2, 30, 0) });
        assert_eq!(digest.entries().iter().map(|entry| entry.count).collect::<Vec<_>>(), [1, 1]);
        assert_eq!((digest.reports, digest.entries()[1].worst), (2, Duration::from_millis(20)));
    }

    /// Guards: an hour of reports from ever new places takes bounded memory, and every report is counted.
    #[test]
    fn a_digest_takes_bounded_memory() {
        let mut digest = Digest::of(&like(0, 1, 0));
        (1..1_000).for_each(|number| digest.add(&like(number, 1, 0)));
        let told: u64 = digest.entries().iter().map(|entry| entry.count).sum();
        assert_eq!((digest.entries().len(), told + digest.others), (MAX_ENTRIES, 1_000));
    }

    /// Guards: numbers that only a damaged file contains don't cause a panic.
    #[test]
    fn absurd_numbers_do_not_overflow() {
        let mut digest = Digest::of(&like(1, 1, u64::MAX));
        digest.add(&like(1, u64::MAX, u64::MAX));
        assert_eq!((digest.held_back, digest.entries()[0].count), (u64::MAX, u64::MAX));
    }
}
