//! Reports about work that has not ended, as far as is known.

use std::collections::{HashMap, VecDeque};

use crate::report::model::{Ending, Report};

/// How many are remembered. How the work of the oldest ends is not reported then.
const MAX_REPORTS: usize = 4096;

/// The last report of each piece of work that was sent, without its stacks.
#[derive(Debug, Default)]
pub(in crate::report) struct Unended {
    reports: HashMap<String, Report>,
    order: VecDeque<String>,
}

impl Unended {
    /// Remembers a report that is sent.
    pub(super) fn sent(&mut self, report: &mut Report) {
        if self.reports.insert(report.id.clone(), report.without_stacks()).is_some() {
            return;
        }
        self.order.push_back(report.id.clone());
        if self.order.len() > MAX_REPORTS
            && let Some(oldest) = self.order.pop_front()
        {
            self.reports.remove(&oldest);
        }
    }

    /// Returns the last update of a report, if the report was sent. No other is held back by the throttle for it.
    pub(super) fn end(&mut self, id: &str, ending: Ending) -> Option<Report> {
        let mut report = self.reports.remove(id)?;
        self.order.retain(|known| known != id);
        report.update = report.update.saturating_add(1);
        report.ending = Some(ending);
        Some(report)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::inflight::Ended;
    use crate::report::testing::report;

    fn finished() -> Ending {
        Ending { how: Ended::Finished, status: Some(200), after: Duration::from_millis(2_600) }
    }

    /// Guards: the ending continues the last report that was sent, once, and leaves that as it was.
    #[test]
    fn an_ending_follows_the_last_update() {
        let mut unended = Unended::default();
        assert!(unended.end("8f14e45fceea167a-17", finished()).is_none(), "its report was held back");
        for update in [0, 2] {
            let mut sent = Report { update, notes: vec!["a note".to_owned()], ..report() };
            let before = format!("{sent:?}");
            unended.sent(&mut sent);
            assert_eq!(format!("{sent:?}"), before);
        }
        let last = unended.end(&report().id, finished()).unwrap();
        assert_eq!((last.update, last.ending.as_ref()), (3, Some(&finished())));
        assert!(last.stacks.is_empty() && last.timeline.is_empty() && last.spans.is_empty() && last.notes.is_empty());
        assert_eq!((&last.request.unwrap().uri, last.elapsed), (&report().request.unwrap().uri, report().elapsed));
        assert!(unended.end(&report().id, finished()).is_none());
        assert!(unended.order.is_empty());
    }

    /// Guards: work that never ends takes bounded memory.
    #[test]
    fn reports_that_never_end_are_forgotten() {
        let mut unended = Unended::default();
        for id in 0..2 * MAX_REPORTS {
            unended.sent(&mut Report { id: id.to_string(), ..report() });
        }
        assert_eq!((unended.reports.len(), unended.order.len()), (MAX_REPORTS, MAX_REPORTS));
        assert!(unended.end("0", finished()).is_none() && unended.end(&MAX_REPORTS.to_string(), finished()).is_some());
    }
}
