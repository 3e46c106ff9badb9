//! What a sink has already sent, for sinks that people read: an update that repeats it is noise.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use crate::report::{Location, Report, Verdict};

/// How many keys are remembered.
const REMEMBERED: usize = 1_000;

/// A map that forgets the oldest entries.
#[derive(Debug)]
pub(crate) struct Bounded<K, V> {
    map: HashMap<K, V>,
    order: VecDeque<K>,
}

impl<K: Hash + Eq + Clone, V> Bounded<K, V> {
    pub(crate) fn new() -> Self {
        Self { map: HashMap::new(), order: VecDeque::new() }
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.map.get(key)
    }

    /// Returns the value of `key`, and creates it if it is missing. The oldest key makes room.
    pub(crate) fn entry(&mut self, key: &K, make: impl FnOnce() -> V) -> &mut V {
        if !self.map.contains_key(key) {
            if self.order.len() >= REMEMBERED
                && let Some(oldest) = self.order.pop_front()
            {
                self.map.remove(&oldest);
            }
            self.order.push_back(key.clone());
        }
        self.map.entry(key.clone()).or_insert_with(make)
    }

    #[cfg(feature = "email")]
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let removed = self.map.remove(key);
        if removed.is_some() {
            self.order.retain(|known| known != key);
        }
        removed
    }
}

/// What was last sent about each report.
#[derive(Debug)]
pub(crate) struct News(Bounded<String, Told>);

#[derive(Debug)]
struct Told {
    update: u32,
    verdict: Verdict,
    location: Option<Location>,
}

impl News {
    pub(crate) fn new() -> Self {
        Self(Bounded::new())
    }

    /// Returns whether the report differs from what was last sent about it. A report that is tried again after a later
    /// update arrived is old news, unless it carries the count of held-back reports. How the work has ended is none: it
    /// would be one more message about each report.
    pub(crate) fn are_in(&self, report: &Report) -> bool {
        // The fleet has decided that people are to be told of it, and by this instance.
        if report.fleet.is_some() {
            return true;
        }
        if report.ending.is_some() {
            return false;
        }
        self.0.get(&report.id).is_none_or(|told| {
            report.update == told.update
                || report.suppressed > 0
                || told.location != report.location
                // Not to know any more is no news.
                || (told.verdict != report.verdict && report.verdict != Verdict::Unknown)
        })
    }

    /// Records that the report has been sent.
    pub(crate) fn told(&mut self, report: &Report) {
        // News of an incident are counted among themselves, and only borrow a report.
        if report.fleet.as_ref().is_some_and(|fleet| fleet.is_update()) {
            return;
        }
        let now = || Told { update: report.update, verdict: report.verdict, location: report.location.clone() };
        let told = self.0.entry(&report.id, now);
        // A retried report may arrive after a later update.
        if report.update >= told.update {
            *told = now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::report;

    /// Guards: an update is news if its place or verdict differs from that of the last one sent, whatever came between.
    #[test]
    fn another_place_or_verdict_is_news() {
        let of = |update: u32, verdict: Verdict| Report { update, verdict, ..report() };
        let mut news = News::new();
        assert!(news.are_in(&of(0, Verdict::Waiting)));
        news.told(&of(0, Verdict::Waiting));
        assert!(news.are_in(&of(0, Verdict::Waiting)), "sent once more, after a doubt whether it arrived");
        assert!(!news.are_in(&of(1, Verdict::Waiting)));
        assert!(news.are_in(&of(1, Verdict::Starved)));
        news.told(&of(2, Verdict::Starved));
        news.told(&of(1, Verdict::Waiting));
        assert!(!news.are_in(&of(3, Verdict::Starved)), "the later of the two");
        assert!(!news.are_in(&of(3, Verdict::Unknown)), "it says less");
        let place = Location { function: None, file: Some("a.rs".to_owned()), line: Some(1) };
        assert!(news.are_in(&Report { location: Some(place), ..of(3, Verdict::Starved) }));
    }

    /// Guards: after an outage, each report waits for its own pause, so it may come after its update. Older reports are
    /// not sent again.
    #[test]
    fn older_reports_are_not_news() {
        let mut news = News::new();
        news.told(&Report { update: 2, ..report() });
        assert!(!news.are_in(&Report { update: 0, ..report() }) && !news.are_in(&Report { update: 1, ..report() }));
        assert!(news.are_in(&Report { update: 0, suppressed: 7, ..report() }), "nobody else says that there were more");
        assert!(news.are_in(&Report { update: 1, verdict: Verdict::Starved, ..report() }));
    }

    /// Guards: the message that an incident has begun is sent although news of the one before it had the same report.
    #[test]
    fn a_fleet_decides_what_is_news() {
        use crate::report::{FleetIncident, FleetNews};

        let of = |update: u32, news: FleetNews| {
            let fleet = FleetIncident { news, ..FleetIncident::default() };
            Report { update, fleet: Some(Box::new(fleet)), ..report() }
        };
        let mut news = News::new();
        news.told(&of(1, FleetNews::Ended { quiet_seconds: 900 }));
        assert!(news.are_in(&of(0, FleetNews::Began)));
        assert!(news.are_in(&report()), "the report itself was not sent");
        news.told(&Report { update: 2, ..report() });
        assert!(news.are_in(&of(0, FleetNews::Began)) && news.are_in(&of(1, FleetNews::Doubled)));
    }

    /// Guards: an endless stream of new requests takes bounded memory.
    #[test]
    fn remembers_only_the_latest_reports() {
        let mut news = News::new();
        (0..3 * REMEMBERED).for_each(|number| news.told(&Report { id: number.to_string(), ..report() }));
        assert_eq!((news.0.map.len(), news.0.order.len()), (REMEMBERED, REMEMBERED));
        assert!(news.0.get(&(3 * REMEMBERED - 1).to_string()).is_some(), "the oldest go");
    }
}
