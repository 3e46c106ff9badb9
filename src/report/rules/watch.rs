//! Which rules fire, and how often one has.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::Rule;
use crate::monitor::Kind;
use crate::report::Report;
use crate::report::assemble::route::request_line;
use crate::sync::lock_std;
use crate::text::units::duration;

/// Routes whose slow requests are counted at a time. Of more, those that were quiet for longest are forgotten.
const MAX_ROUTES: usize = 1_000;
/// Reports whose notes are remembered.
const MAX_NOTED: usize = 256;
const HOUR: Duration = Duration::from_secs(3_600);

/// All rules of one [`Reports`](crate::Reports).
#[derive(Debug, Default)]
pub(in crate::report) struct Rules {
    all: Vec<Counter>,
    /// What was noted in the last reports for which one has fired, by their ids: their updates say it, too.
    noted: Mutex<VecDeque<(String, Vec<String>)>>,
}

/// A rule that has fired.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::report) struct Fired {
    /// Why, and how often it has, as a part of a sentence.
    pub(in crate::report) reason: String,
    pub(in crate::report) dump: bool,
    pub(in crate::report) profile: bool,
}

/// How often a rule may fire in an hour. A console may change it.
#[derive(Debug)]
pub(crate) struct RuleBudget {
    /// The rule, in words.
    #[cfg_attr(not(feature = "console"), allow(dead_code, reason = "the console alone shows it"))]
    pub(crate) rule: String,
    at_most: AtomicU32,
    fired: Mutex<VecDeque<Instant>>,
}

#[derive(Debug)]
struct Counter {
    rule: Rule,
    budget: Arc<RuleBudget>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// When requests on each route were slow, of those that still count.
    routes: HashMap<String, VecDeque<Instant>>,
    /// How often the budget did not allow it since it last did.
    left_out: u64,
}

impl Rules {
    pub(in crate::report) fn new(rules: &[Rule]) -> Self {
        let watch = |rule: &Rule| Counter {
            rule: rule.clone(),
            budget: Arc::new(RuleBudget {
                rule: rule.words(),
                at_most: AtomicU32::new(rule.at_most),
                fired: Mutex::default(),
            }),
            seen: Mutex::default(),
        };
        Self { all: rules.iter().map(watch).collect(), noted: Mutex::default() }
    }

    /// Counts a report. Returns the rules that fire for it.
    pub(in crate::report) fn note(&self, report: &Report, now: Instant) -> Vec<Fired> {
        let is_slow = report.kind == Kind::SlowRequest && report.update == 0;
        match report.request.as_ref().filter(|_| is_slow && !self.all.is_empty()) {
            Some(request) => {
                let route = request_line(request);
                self.all.iter().filter_map(|watch| watch.note(&route, now)).collect()
            }
            None => Vec::new(),
        }
    }

    /// Remembers what a report says about rules.
    pub(in crate::report) fn remember(&self, report: &Report, notes: Vec<String>) {
        let mut noted = lock_std(&self.noted);
        if noted.len() >= MAX_NOTED {
            noted.pop_front();
        }
        noted.push_back((report.id.clone(), notes));
    }

    /// Returns what the report that this one updates has said about rules.
    pub(in crate::report) fn noted(&self, report: &Report) -> Vec<String> {
        if report.update == 0 || self.all.is_empty() {
            return Vec::new();
        }
        let noted = lock_std(&self.noted);
        noted.iter().find(|(id, _)| *id == report.id).map(|(_, notes)| notes.clone()).unwrap_or_default()
    }

    #[cfg(feature = "console")]
    pub(in crate::report) fn budgets(&self) -> Vec<Arc<RuleBudget>> {
        self.all.iter().map(|watch| Arc::clone(&watch.budget)).collect()
    }
}

impl Counter {
    fn note(&self, route: &str, now: Instant) -> Option<Fired> {
        let Rule { requests, within, dump, profile, .. } = self.rule;
        let mut seen = lock_std(&self.seen);
        if !seen.routes.contains_key(route) && seen.routes.len() >= MAX_ROUTES {
            seen.make_room(within, now);
        }
        let slow = seen.routes.entry(route.to_owned()).or_default();
        slow.push_back(now);
        while slow.front().is_some_and(|then| now.saturating_duration_since(*then) > within) {
            slow.pop_front();
        }
        if slow.len() < requests {
            return None;
        }
        seen.routes.remove(route);
        let Some((times, at_most)) = self.budget.spend(now) else {
            seen.left_out += 1;
            return None;
        };
        let slow = match requests {
            1 => format!("a request on {route} was slow"),
            _ => format!("{requests} requests on {route} were slow within {}", duration(within)),
        };
        let mut reason = format!("{slow} (time {times} of {at_most} in an hour");
        let left_out = std::mem::take(&mut seen.left_out);
        if left_out > 0 {
            reason.push_str(&format!(", {left_out} more left out before"));
        }
        reason.push(')');
        Some(Fired { reason, dump, profile })
    }
}

impl Seen {
    /// Forgets the routes that have no slow requests left, or else the one that was quiet for longest.
    fn make_room(&mut self, within: Duration, now: Instant) {
        let last = |slow: &VecDeque<Instant>| slow.back().copied();
        self.routes.retain(|_, slow| last(slow).is_some_and(|then| now.saturating_duration_since(then) <= within));
        if self.routes.len() >= MAX_ROUTES
            && let Some(quiet) = self.routes.iter().min_by_key(|(_, slow)| last(slow)).map(|(route, _)| route.clone())
        {
            self.routes.remove(&quiet);
        }
    }
}

impl RuleBudget {
    /// Returns how often it has fired in this hour, this time included, and how often it may. Returns `None` if it may not.
    fn spend(&self, now: Instant) -> Option<(usize, u32)> {
        let at_most = self.at_most();
        let mut fired = lock_std(&self.fired);
        while fired.front().is_some_and(|then| now.saturating_duration_since(*then) >= HOUR) {
            fired.pop_front();
        }
        if fired.len() >= at_most as usize {
            return None;
        }
        fired.push_back(now);
        Some((fired.len(), at_most))
    }

    pub(crate) fn at_most(&self) -> u32 {
        self.at_most.load(Ordering::Relaxed)
    }

    #[cfg(feature = "console")]
    pub(crate) fn set_at_most(&self, times: u32) {
        self.at_most.store(times, Ordering::Relaxed);
    }

    /// Returns how often the rule has fired in the last hour.
    #[cfg(feature = "console")]
    pub(crate) fn spent(&self) -> usize {
        lock_std(&self.fired).iter().filter(|then| then.elapsed() < HOUR).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::report;

    const MINUTE: Duration = Duration::from_secs(60);

    /// A report of a slow request on that route.
    fn slow(route: &str) -> Report {
        let mut report = Report { kind: Kind::SlowRequest, update: 0, ..report() };
        report.request.as_mut().unwrap().route = Some(route.to_owned());
        report
    }

    fn fires(rules: &Rules, report: &Report, now: Instant) -> bool {
        !rules.note(report, now).is_empty()
    }

    #[test]
    fn fires_when_so_many_on_one_route_were_slow_within_the_time() {
        let rules = Rules::new(&[Rule::slow(3, MINUTE).profile_next()]);
        let (began, second) = (Instant::now(), Duration::from_secs(1));
        assert!(!fires(&rules, &slow("/a"), began));
        assert!(!fires(&rules, &slow("/b"), began + second));
        assert!(!fires(&rules, &slow("/a"), began + 2 * second));
        assert!(!fires(&rules, &slow("/a"), began + MINUTE + second), "the first is too long ago");
        let fired = rules.note(&slow("/a"), began + MINUTE + 2 * second);
        let reason = "3 requests on GET /a were slow within 1 min 00 s (time 1 of 6 in an hour)";
        assert_eq!(fired, [Fired { reason: reason.to_owned(), dump: false, profile: true }]);
        assert!(!fires(&rules, &slow("/a"), began + MINUTE + 3 * second), "it counts anew");
    }

    #[test]
    fn counts_each_slow_request_once() {
        let rules = Rules::new(&[Rule::slow(1, MINUTE).dump()]);
        let now = Instant::now();
        assert!(!fires(&rules, &Report { update: 1, ..slow("/a") }, now));
        assert!(!fires(&rules, &Report { kind: Kind::BlockingPoll, ..slow("/a") }, now));
        assert!(!fires(&rules, &Report { request: None, ..slow("/a") }, now));
        assert!(fires(&rules, &slow("/a"), now));
    }

    #[test]
    fn a_budget_is_for_an_hour_and_says_what_it_has_left_out() {
        let rules = Rules::new(&[Rule::slow(1, MINUTE).dump().at_most(2)]);
        let began = Instant::now();
        let fired = (0..5).filter(|_| fires(&rules, &slow("/a"), began)).count();
        assert_eq!(fired, 2);
        let later = rules.note(&slow("/b"), began + HOUR);
        let reason = "a request on GET /b was slow (time 1 of 2 in an hour, 3 more left out before)";
        assert_eq!(later[0].reason, reason);
    }

    #[test]
    fn routes_are_counted_in_bounded_memory() {
        let rules = Rules::new(&[Rule::slow(2, MINUTE).dump()]);
        let now = Instant::now();
        for number in 0..3 * MAX_ROUTES {
            let now = now + Duration::from_millis(number as u64);
            assert!(!fires(&rules, &slow(&format!("/{number}/x")), now));
        }
        assert_eq!(lock_std(&rules.all[0].seen).routes.len(), MAX_ROUTES);
        assert!(fires(&rules, &slow(&format!("/{}/x", 3 * MAX_ROUTES - 1)), now + MINUTE), "the last are remembered");
    }
}
