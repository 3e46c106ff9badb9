//! Whether a request that is looked at again is still where it was.

use std::collections::{HashMap, VecDeque};

use super::model::Report;
use super::render::{duration, place};

/// Requests that are remembered; the oldest are forgotten first.
const MAX_REQUESTS: usize = 4096;

/// Where each reported request was last seen.
#[derive(Debug, Default)]
pub(super) struct Progress {
    seen: HashMap<String, Seen>,
    order: VecDeque<String>,
}

#[derive(Debug)]
struct Seen {
    fingerprint: String,
    elapsed_ms: f64,
    place: Option<String>,
}

impl Progress {
    /// Remembers where the request is, and if it was seen before, says how that compares. The report is complete but for
    /// the note.
    pub(super) fn note(&mut self, report: &Report) -> Option<String> {
        let here = report.location.as_ref().map(place);
        let seen = Seen { fingerprint: report.fingerprint.clone(), elapsed_ms: report.elapsed_ms, place: here };
        let before = self.seen.insert(report.id.clone(), seen);
        if before.is_none() {
            self.order.push_back(report.id.clone());
            if self.order.len() > MAX_REQUESTS
                && let Some(oldest) = self.order.pop_front()
            {
                self.seen.remove(&oldest);
            }
        }
        let before = before.filter(|_| report.update > 0)?;
        let then = duration(before.elapsed_ms);
        Some(match before.place {
            _ if before.fingerprint == report.fingerprint => format!("at the same place as {then} after its start"),
            Some(place) => format!("it moves: {then} after its start it was in {place}"),
            None => format!("it moves: {then} after its start it was elsewhere"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::report;

    /// An update says whether the request is stuck or moving; a first report says nothing.
    #[test]
    fn updates_compare_with_what_was_seen_before() {
        let mut progress = Progress::default();
        let mut seen = report();
        seen.fingerprint = "one".into();
        assert_eq!(progress.note(&seen), None);
        seen.update = 1;
        assert_eq!(progress.note(&seen).unwrap(), "at the same place as 2.51 s after its start");
        seen.fingerprint = "two".into();
        assert!(progress.note(&seen).unwrap().starts_with("it moves: 2.51 s after its start it was"));
    }

    /// Only so many requests are remembered.
    #[test]
    fn memory_is_bounded() {
        let mut progress = Progress::default();
        let mut seen = report();
        for id in 0..2 * MAX_REQUESTS {
            seen.id = id.to_string();
            progress.note(&seen);
        }
        assert_eq!((progress.seen.len(), progress.order.len()), (MAX_REQUESTS, MAX_REQUESTS));
    }
}
