//! What reports were about in the last day, for a console.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::report::{Report, Verdict};

/// At most this many places are remembered, and this many bytes of their reports.
const MAX_INCIDENTS: usize = 500;
const MAX_BYTES: usize = 8 << 20;
/// Of a larger report, only the line is kept.
const MAX_REPORT_BYTES: usize = 1 << 20;
/// The hours of the trend.
pub(crate) const HOURS: usize = 24;

/// Reports of one fingerprint.
#[derive(Debug, Clone)]
pub(crate) struct Incident {
    pub(crate) fingerprint: String,
    /// Of the last report.
    pub(crate) sentence: String,
    pub(crate) verdict: Verdict,
    /// How many reports there were, updates included, and how many of them were sent.
    pub(crate) count: u64,
    pub(crate) sent: u64,
    pub(crate) first: SystemTime,
    pub(crate) last: SystemTime,
    /// The longest time that the work had taken.
    pub(crate) worst: Duration,
    pub(crate) trace_url: Option<String>,
    /// How many there were in each of the last 24 hours, the last one last.
    pub(crate) hours: [u32; HOURS],
    /// The hour of the last entry, counted from 1970.
    hour: u64,
    /// The last one that was sent, unless it is too large.
    pub(crate) report: Option<Box<Report>>,
    bytes: usize,
}

#[derive(Debug, Default)]
pub(in crate::report) struct History {
    incidents: HashMap<String, Incident>,
    bytes: usize,
}

fn hour_of(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 3_600
}

impl Incident {
    fn new(report: &Report) -> Self {
        Self {
            fingerprint: report.fingerprint.clone(),
            sentence: String::new(),
            verdict: report.verdict,
            count: 0,
            sent: 0,
            first: report.captured_at,
            last: report.captured_at,
            worst: Duration::ZERO,
            trace_url: None,
            hours: [0; HOURS],
            hour: hour_of(report.captured_at),
            report: None,
            bytes: 0,
        }
    }

    /// Returns whether its last report is kept.
    pub(crate) const fn has_report(&self) -> bool {
        self.bytes > 0
    }

    /// Moves the trend on to that hour.
    fn move_on(&mut self, hour: u64) {
        let passed = usize::try_from(hour.saturating_sub(self.hour)).unwrap_or(HOURS).min(HOURS);
        self.hours.rotate_left(passed);
        self.hours[HOURS - passed..].fill(0);
        self.hour = self.hour.max(hour);
    }
}

impl History {
    /// Notes a report, which is `sent` or held back.
    pub(super) fn note(&mut self, report: &Report, sent: bool) {
        if !self.incidents.contains_key(&report.fingerprint) && self.incidents.len() >= MAX_INCIDENTS {
            self.forget_oldest();
        }
        let incident = self.incidents.entry(report.fingerprint.clone()).or_insert_with(|| Incident::new(report));
        incident.move_on(hour_of(report.captured_at));
        incident.hours[HOURS - 1] = incident.hours[HOURS - 1].saturating_add(1);
        incident.count += 1;
        incident.last = incident.last.max(report.captured_at);
        incident.worst = incident.worst.max(report.elapsed);
        (incident.sentence, incident.verdict) = (report.sentence(), report.verdict);
        incident.trace_url.clone_from(&report.trace_url);
        if sent {
            incident.sent += 1;
            let bytes = report.size();
            // One must not drive out all others. A dump of 10,000 requests is in the files.
            let kept = (bytes <= MAX_REPORT_BYTES).then(|| Box::new(report.clone()));
            let bytes = if kept.is_some() { bytes } else { 0 };
            self.bytes = self.bytes + bytes - incident.bytes;
            (incident.report, incident.bytes) = (kept, bytes);
        }
        while self.bytes > MAX_BYTES && self.incidents.len() > 1 {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let oldest = self.incidents.values().min_by_key(|incident| incident.last);
        let oldest = oldest.map(|incident| incident.fingerprint.clone());
        if let Some(incident) = oldest.and_then(|oldest| self.incidents.remove(&oldest)) {
            self.bytes -= incident.bytes;
        }
    }

    /// Returns all of them without their reports, the last one first.
    pub(super) fn list(&self, now: SystemTime) -> Vec<Incident> {
        let mut all: Vec<Incident> = self
            .incidents
            .values()
            .map(|incident| {
                // Reports are large.
                let Incident { sentence, hours, .. } = incident;
                let mut copy = Incident {
                    fingerprint: incident.fingerprint.clone(),
                    sentence: sentence.clone(),
                    trace_url: incident.trace_url.clone(),
                    hours: *hours,
                    report: None,
                    ..*incident
                };
                copy.move_on(hour_of(now));
                copy
            })
            .collect();
        all.sort_by_key(|incident| std::cmp::Reverse(incident.last));
        all
    }

    pub(super) fn report(&self, fingerprint: &str) -> Option<Report> {
        self.incidents.get(fingerprint)?.report.as_deref().cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::report;

    fn at(hours: u64, fingerprint: &str) -> Report {
        let captured_at = UNIX_EPOCH + Duration::from_secs(1_735_689_600 + hours * 3_600);
        Report { fingerprint: fingerprint.to_owned(), captured_at, ..report() }
    }

    #[test]
    fn a_large_report_leaves_its_line_and_the_others() {
        let mut history = History::default();
        history.note(&at(0, "a"), true);
        history.note(&Report { notes: vec!["x".repeat(MAX_REPORT_BYTES)], ..at(1, "b") }, true);
        let all = history.list(at(2, "").captured_at);
        let kept = all.iter().map(|incident| (&*incident.fingerprint, incident.has_report())).collect::<Vec<_>>();
        assert_eq!(kept, [("b", false), ("a", true)]);
        assert!(history.report("b").is_none() && history.report("a").is_some());
    }

    #[test]
    fn reports_of_one_fingerprint_are_one_incident() {
        let mut history = History::default();
        history.note(&at(0, "a"), true);
        history.note(&at(0, "a"), false);
        let worst = Duration::from_secs(60);
        history.note(&Report { elapsed: worst, ..at(2, "a") }, false);
        history.note(&at(1, "b"), true);
        let all = history.list(at(3, "").captured_at);
        assert_eq!(all.iter().map(|incident| &*incident.fingerprint).collect::<Vec<_>>(), ["a", "b"]);
        let first = &all[0];
        assert_eq!((first.count, first.sent, first.worst), (3, 1, worst));
        assert_eq!(first.hours[HOURS - 4..], [2, 0, 1, 0]);
        assert_eq!(history.report("a").unwrap().captured_at, at(0, "a").captured_at, "the one that was sent");
        assert!(first.report.is_none() && history.report("c").is_none());
        let later = history.list(at(200, "").captured_at);
        assert!(later.iter().all(|incident| incident.hours == [0; HOURS]));
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut history = History::default();
        for number in 0..MAX_INCIDENTS as u64 + 10 {
            history.note(&at(number, &number.to_string()), true);
        }
        let all = history.list(at(1_000, "").captured_at);
        assert_eq!((all.len(), &*all[MAX_INCIDENTS - 1].fingerprint), (MAX_INCIDENTS, "10"));
        for number in 0..20 {
            let notes = vec!["x".repeat(MAX_REPORT_BYTES / 2)];
            history.note(&Report { notes, ..at(2_000 + number, &format!("large {number}")) }, true);
        }
        assert!(history.bytes <= MAX_BYTES, "{}", history.bytes);
        assert!(history.report("large 19").is_some() && history.report("large 0").is_none());
    }
}
