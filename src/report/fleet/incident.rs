//! What this instance knows of one incident.

use tokio::time::Instant;

use super::records::{Count, Told};
use crate::report::FleetIncident;
use crate::report::Report;
use crate::report::delivery::Question;

/// How far people have been told, as this instance knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing is known.
    New,
    /// The store is being asked, or another instance is about to tell people.
    Asking,
    /// This instance tells people on behalf of all.
    Telling,
    /// Another instance has told people.
    Told,
    /// This instance has told people on behalf of all, and the store says so.
    ToldHere,
    /// This instance has told people for itself.
    Alone,
}

/// One incident of the fleet.
pub(super) struct Incident {
    /// The number of this occurrence, from 1. `None` until the store has said so.
    pub(super) number: Option<u64>,
    pub(super) stage: Stage,
    /// This instance's reports of that time.
    counted: Count,
    /// How many of these are in the store.
    written: u64,
    /// Reports since it is not known whether it is still the same time.
    fresh: Option<Count>,
    /// When the last report was counted.
    pub(super) noted: Instant,
    /// When the store was last asked how it goes on.
    pub(super) looked: Instant,
    /// The report to tell people about.
    pub(super) question: Option<Question>,
    /// What people have been told by this instance, if the store does not say so yet.
    pub(super) unsaved: Option<Told>,
    /// The last report of that time that was sent, without its stacks, for news of the incident. If none was sent, the first one
    /// that was held back.
    example: Option<Box<Report>>,
    /// The same of the reports in `fresh`.
    fresh_example: Option<Box<Report>>,
    /// How often people were told of it by this instance.
    pub(super) messages: u32,
}

/// Counts of an occurrence that is over, which are not in the store yet.
#[derive(Debug, Clone)]
pub(super) struct Late {
    pub(super) key: String,
    pub(super) number: u64,
    pub(super) count: Count,
}

impl Incident {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            number: None,
            stage: Stage::New,
            counted: Count::default(),
            written: 0,
            fresh: Some(Count::default()),
            noted: now,
            looked: now,
            question: None,
            unsaved: None,
            example: None,
            fresh_example: None,
            messages: 0,
        }
    }

    /// Counts a report.
    pub(super) fn note(&mut self, report: &mut Report, sent: bool, now: Instant) {
        self.noted = now;
        let (count, example) = match &mut self.fresh {
            Some(fresh) => (fresh, &mut self.fresh_example),
            None => (&mut self.counted, &mut self.example),
        };
        count.note(report);
        if sent || example.is_none() {
            *example = Some(Box::new(report.without_stacks()));
        }
    }

    /// Returns a report of this occurrence, if there is one here. One of the next occurrence would mislead people.
    pub(super) fn example_of(&self, number: u64) -> Option<&Report> {
        self.example.as_deref().filter(|_| self.number == Some(number))
    }

    /// Notes that it may have ended since the last report: the store will say the number of this occurrence.
    pub(super) fn begin_again(&mut self) {
        // A claim that is on its way finds out by itself.
        if self.stage != Stage::Asking {
            self.fresh.get_or_insert_default();
            (self.stage, self.messages) = (Stage::New, 0);
        }
    }

    /// Notes the number of this occurrence. `stored` is what the store has of this instance's counts, if this instance does not remember
    /// it. Returns the counts of an earlier time that are not in the store yet.
    pub(super) fn assign(&mut self, key: &str, number: u64, stored: Option<Count>) -> Option<Late> {
        let (fresh, example) = (self.fresh.take().unwrap_or_default(), self.fresh_example.take());
        if self.number == Some(number) {
            self.counted.merge(fresh);
            self.example = example.or(self.example.take());
            return None;
        }
        self.example = example;
        let is_late = self.counted.reports > self.written;
        let before = std::mem::replace(&mut self.counted, fresh);
        let late = self.number.filter(|_| is_late);
        let late = late.map(|number| Late { key: key.to_owned(), number, count: before });
        (self.number, self.written) = (Some(number), 0);
        if let Some(stored) = stored {
            self.written = stored.reports;
            self.counted.merge(stored);
        }
        late
    }

    /// Returns whether the store has to say the number of this occurrence.
    pub(super) fn is_unassigned(&self) -> bool {
        self.fresh.as_ref().is_some_and(|fresh| fresh.reports > 0 || self.number.is_none())
    }

    /// Returns how many reports are not in the store.
    pub(super) fn unwritten(&self) -> u64 {
        self.counted.reports.saturating_sub(self.written) + self.fresh.as_ref().map_or(0, |fresh| fresh.reports)
    }

    /// Returns the counts to write, if the store does not have them.
    pub(super) fn to_write(&self) -> Option<(u64, Count)> {
        let number = self.number.filter(|_| self.counted.reports > self.written)?;
        Some((number, self.counted.clone()))
    }

    /// Notes that the store has these counts.
    pub(super) fn wrote(&mut self, number: u64, reports: u64) {
        if self.number == Some(number) {
            self.written = self.written.max(reports);
        }
    }

    pub(super) fn counted(&self) -> &Count {
        &self.counted
    }

    /// Returns all reports, whether or not it is known which occurrence they belong to.
    pub(super) fn all(&self) -> Count {
        let mut all = self.counted.clone();
        all.merge(self.fresh.clone().unwrap_or_default());
        all
    }

    /// Returns whether this is the message with which this instance tells people of the incident.
    pub(super) fn is_on_its_way(&self, message: &FleetIncident) -> bool {
        match self.stage {
            Stage::Telling => !message.alone && self.number == Some(message.number),
            // If the store is back some time, it should know of a message that this instance has sent for itself.
            Stage::Alone => message.alone,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::report;

    fn noted(incident: &mut Incident, reports: u64) {
        (0..reports).for_each(|_| incident.note(&mut report(), true, Instant::now()));
    }

    /// Guards: each report counts for one occurrence of the incident, no matter when the store says which.
    #[test]
    fn every_report_is_counted_once() {
        let mut incident = Incident::new(Instant::now());
        noted(&mut incident, 3);
        assert!(incident.is_unassigned() && incident.to_write().is_none());
        assert!(incident.assign("k", 1, None).is_none());
        noted(&mut incident, 1);
        assert_eq!(incident.to_write().map(|(number, count)| (number, count.reports)), Some((1, 4)));
        incident.wrote(1, 4);
        assert!(incident.to_write().is_none() && incident.unwritten() == 0);

        incident.begin_again();
        noted(&mut incident, 2);
        assert_eq!(incident.unwritten(), 2);
        assert!(incident.assign("k", 1, None).is_none(), "others had reports meanwhile: it is the same time");
        assert_eq!(incident.to_write().unwrap().1.reports, 6);

        incident.begin_again();
        noted(&mut incident, 5);
        let late = incident.assign("k", 2, None).unwrap();
        assert_eq!((late.number, late.count.reports), (1, 6));
        assert_eq!(incident.to_write().map(|(number, count)| (number, count.reports)), Some((2, 5)));
    }

    /// Guards: news of an occurrence come with a report of that one, and never of the next. A report that was held back is better
    /// than none.
    #[test]
    fn an_example_is_of_the_same_occurrence() {
        let of = |id: &str| Report { id: id.to_owned(), ..report() };
        let id = |incident: &Incident, number| incident.example_of(number).map(|report| report.id.clone());
        let mut incident = Incident::new(Instant::now());
        for (report, sent) in [("a", false), ("b", true), ("c", false)] {
            incident.note(&mut of(report), sent, Instant::now());
        }
        assert_eq!(id(&incident, 1), None, "nobody knows yet which occurrence it is");
        incident.assign("k", 1, None);
        assert_eq!(id(&incident, 1).as_deref(), Some("b"));
        incident.begin_again();
        incident.note(&mut of("d"), false, Instant::now());
        assert_eq!(id(&incident, 1).as_deref(), Some("b"));
        incident.assign("k", 2, None);
        assert_eq!((id(&incident, 1), id(&incident, 2).as_deref()), (None, Some("d")));
        incident.begin_again();
        incident.assign("k", 2, None);
        assert_eq!(id(&incident, 2).as_deref(), Some("d"), "it has gone on");
    }

    /// Guards: a count that was forgotten here is not written over by a smaller one.
    #[test]
    fn what_the_store_has_counts_too() {
        let mut incident = Incident::new(Instant::now());
        noted(&mut incident, 3);
        incident.assign("k", 1, Some(Count { reports: 10, ..Count::default() }));
        assert_eq!((incident.unwritten(), incident.to_write().unwrap().1.reports), (3, 13));
    }
}
