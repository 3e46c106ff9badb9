//! Lets through one report per minute about the same thing, and counts the others.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

/// How many fingerprints are remembered at a time. Beyond that, the oldest quarter is given up: their places may be
/// reported again early, after the counts of what was held back.
const MAX_FINGERPRINTS: usize = 4096;

/// For how many sent reports updates are let through.
const MAX_REPORTS: usize = 4096;

/// What to do with a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It goes out, and says how many like it were held back since the last one.
    Send { suppressed: u64 },
    /// It is held back.
    Hold,
}

/// Held-back reports that no later report will mention.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Overdue {
    pub(crate) fingerprint: String,
    pub(crate) count: u64,
    /// The sentence of the last of them.
    pub(crate) sentence: String,
}

/// Decides which reports go out. Every report that is held back is either in the count of a later one or in
/// [`Throttle::overdue`], once.
#[derive(Debug)]
pub(crate) struct Throttle {
    repeat_after: Duration,
    windows: HashMap<String, Window>,
    /// The ids of the reports that were sent, oldest first, and the same as a set.
    sent: VecDeque<String>,
    sent_set: HashSet<String>,
    /// Counts of windows that were given up.
    evicted: Vec<Overdue>,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    held: u64,
    sentence: String,
}

impl Throttle {
    /// Lets one report of a fingerprint pass per `repeat_after`; all of them if that is zero.
    pub(crate) fn new(repeat_after: Duration) -> Self {
        Self {
            repeat_after,
            windows: HashMap::new(),
            sent: VecDeque::new(),
            sent_set: HashSet::new(),
            evicted: Vec::new(),
        }
    }

    /// Decides about a report. `sentence` is called if the report is held back.
    ///
    /// An update is sent if its report was, whatever its own fingerprint. Otherwise it is held back without being
    /// counted, because its report was. An update never carries a count, because the next update would replace it, and
    /// sinks that only send news never send it.
    pub(crate) fn decide(
        &mut self,
        id: &str,
        update: u32,
        fingerprint: &str,
        now: Instant,
        sentence: impl FnOnce() -> String,
    ) -> Decision {
        if self.repeat_after.is_zero() {
            return Decision::Send { suppressed: 0 };
        }
        let is_update = update > 0;
        if is_update && !self.sent_set.contains(id) {
            return Decision::Hold;
        }
        match self.windows.get_mut(fingerprint) {
            Some(window) if now.saturating_duration_since(window.since) < self.repeat_after => {
                if !is_update {
                    window.held += 1;
                    window.sentence = sentence();
                    return Decision::Hold;
                }
                // An update doesn't extend the window. Otherwise a place where many are stuck would never be repeated.
                Decision::Send { suppressed: 0 }
            }
            Some(window) => {
                window.since = now;
                let suppressed = if is_update { 0 } else { std::mem::take(&mut window.held) };
                self.remember(id);
                Decision::Send { suppressed }
            }
            None => {
                self.make_room(now);
                let window = Window { since: now, held: 0, sentence: String::new() };
                self.windows.insert(fingerprint.to_owned(), window);
                self.remember(id);
                Decision::Send { suppressed: 0 }
            }
        }
    }

    /// Lets a report through, whatever was sent before, and its updates.
    pub(crate) fn pass(&mut self, id: &str) -> Decision {
        self.remember(id);
        Decision::Send { suppressed: 0 }
    }

    /// Takes out the counts of windows that have ended, which no report would mention because nothing like it came
    /// since. Sorted by fingerprint.
    pub(crate) fn overdue(&mut self, now: Instant) -> Vec<Overdue> {
        let repeat_after = self.repeat_after;
        self.take(|window| now.saturating_duration_since(window.since) >= repeat_after)
    }

    /// Takes out all counts, at the end.
    pub(crate) fn flush(&mut self) -> Vec<Overdue> {
        self.take(|_| true)
    }

    fn take(&mut self, ended: impl Fn(&Window) -> bool) -> Vec<Overdue> {
        let mut overdue = std::mem::take(&mut self.evicted);
        self.windows.retain(|fingerprint, window| {
            let ended = ended(window);
            if ended && window.held > 0 {
                overdue.push(window.take(fingerprint));
            }
            !ended
        });
        overdue.sort_by(|a, b| a.fingerprint.cmp(&b.fingerprint));
        overdue
    }

    fn remember(&mut self, id: &str) {
        if !self.sent_set.insert(id.to_owned()) {
            return;
        }
        self.sent.push_back(id.to_owned());
        if self.sent.len() > MAX_REPORTS
            && let Some(oldest) = self.sent.pop_front()
        {
            self.sent_set.remove(&oldest);
        }
    }

    /// Keeps the number of windows bounded, without losing a count.
    fn make_room(&mut self, now: Instant) {
        if self.windows.len() < MAX_FINGERPRINTS {
            return;
        }
        let ended = self.overdue(now);
        self.evicted = ended;
        if self.windows.len() < MAX_FINGERPRINTS {
            return;
        }
        let mut ages: Vec<Instant> = self.windows.values().map(|window| window.since).collect();
        ages.sort_unstable();
        let (limit, mut spare) = (ages[MAX_FINGERPRINTS / 4], MAX_FINGERPRINTS / 4);
        let evicted = &mut self.evicted;
        self.windows.retain(|fingerprint, window| {
            if window.since > limit || spare == 0 {
                return true;
            }
            spare -= 1;
            if window.held > 0 {
                evicted.push(window.take(fingerprint));
            }
            false
        });
        // Nobody has taken the counts for a long time, so fold the oldest into one.
        while evicted.len() > MAX_FINGERPRINTS {
            let rest = evicted.split_off(MAX_FINGERPRINTS / 2);
            let count = rest.iter().map(|overdue| overdue.count).sum();
            evicted.push(Overdue { fingerprint: "various".to_owned(), count, sentence: String::new() });
        }
    }
}

impl Window {
    fn take(&mut self, fingerprint: &str) -> Overdue {
        Overdue {
            fingerprint: fingerprint.to_owned(),
            count: std::mem::take(&mut self.held),
            sentence: std::mem::take(&mut self.sentence),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn send(throttle: &mut Throttle, id: &str, fingerprint: &str, now: Instant) -> Decision {
        throttle.decide(id, 0, fingerprint, now, || format!("{id} is slow"))
    }

    #[test]
    fn sends_one_a_minute_and_then_a_count() {
        let (mut throttle, start) = (Throttle::new(MINUTE), Instant::now());
        assert_eq!(send(&mut throttle, "1", "a", start), Decision::Send { suppressed: 0 });
        assert_eq!(send(&mut throttle, "2", "a", start), Decision::Hold);
        assert_eq!(send(&mut throttle, "3", "b", start), Decision::Send { suppressed: 0 });
        assert_eq!(send(&mut throttle, "4", "a", start + MINUTE - Duration::from_nanos(1)), Decision::Hold);
        assert_eq!(throttle.overdue(start + MINUTE / 2), []);
        assert_eq!(send(&mut throttle, "5", "a", start + MINUTE), Decision::Send { suppressed: 2 });
        assert_eq!(send(&mut throttle, "6", "a", start + 2 * MINUTE), Decision::Send { suppressed: 0 });
    }

    /// Guards: a count is reported even if nothing of the kind ever comes again, and only once.
    #[test]
    fn the_last_count_is_not_lost() {
        let (mut throttle, start) = (Throttle::new(MINUTE), Instant::now());
        send(&mut throttle, "1", "a", start);
        send(&mut throttle, "2", "a", start);
        send(&mut throttle, "3", "a", start);
        let said = Overdue { fingerprint: "a".to_owned(), count: 2, sentence: "3 is slow".to_owned() };
        assert_eq!(throttle.overdue(start + MINUTE), std::slice::from_ref(&said));
        assert_eq!(throttle.overdue(start + 2 * MINUTE), []);
        assert!(throttle.windows.is_empty());
        assert_eq!(send(&mut throttle, "4", "a", start + 2 * MINUTE), Decision::Send { suppressed: 0 });
        send(&mut throttle, "3", "a", start + 2 * MINUTE);
        assert_eq!(throttle.flush(), [Overdue { count: 1, ..said }]);
        assert_eq!(throttle.flush(), []);
    }

    /// Guards: updates follow their report, and leave the count to the next report. No update replaces that.
    #[test]
    fn updates_follow_their_report() {
        let (mut throttle, start) = (Throttle::new(MINUTE), Instant::now());
        let update = |throttle: &mut Throttle, id, fingerprint| {
            throttle.decide(id, 1, fingerprint, start, || unreachable!("an update is not counted"))
        };
        send(&mut throttle, "1", "a", start);
        send(&mut throttle, "2", "a", start);
        assert_eq!(update(&mut throttle, "1", "a"), Decision::Send { suppressed: 0 });
        assert_eq!(update(&mut throttle, "1", "elsewhere"), Decision::Send { suppressed: 0 });
        assert_eq!(update(&mut throttle, "2", "a"), Decision::Hold);
        assert_eq!(update(&mut throttle, "2", "elsewhere"), Decision::Hold);
        assert_eq!(update(&mut throttle, "nobody", "a"), Decision::Hold);
        let late = throttle.decide("1", 2, "a", start + MINUTE, String::new);
        assert_eq!(late, Decision::Send { suppressed: 0 }, "nor after the minute");
        assert_eq!(send(&mut throttle, "3", "a", start + 2 * MINUTE), Decision::Send { suppressed: 1 });
        assert_eq!(throttle.flush(), []);
    }

    #[test]
    fn a_window_of_zero_holds_nothing_back() {
        let mut throttle = Throttle::new(Duration::ZERO);
        let now = Instant::now();
        for _ in 0..3 {
            assert_eq!(send(&mut throttle, "1", "a", now), Decision::Send { suppressed: 0 });
            assert_eq!(throttle.decide("2", 1, "a", now, String::new), Decision::Send { suppressed: 0 });
        }
        assert!(throttle.windows.is_empty() && throttle.sent.is_empty());
    }

    #[test]
    fn the_throttle_takes_bounded_memory() {
        let (mut throttle, start) = (Throttle::new(MINUTE), Instant::now());
        let total = 10 * MAX_FINGERPRINTS;
        let mut held = 0;
        for at in 0..total {
            let name = at.to_string();
            for id in [format!("{at}a"), format!("{at}b")] {
                held += u64::from(send(&mut throttle, &id, &name, start) == Decision::Hold);
            }
            assert!(throttle.windows.len() <= MAX_FINGERPRINTS && throttle.sent.len() <= MAX_REPORTS);
            assert!(throttle.evicted.len() <= MAX_FINGERPRINTS + 1);
        }
        assert_eq!(throttle.sent.len(), throttle.sent_set.len());
        assert_eq!(throttle.flush().iter().map(|overdue| overdue.count).sum::<u64>(), held);
        assert_eq!(held, total as u64);
    }

    proptest! {
        /// Guards: each first report is sent or counted exactly once, whatever comes.
        #[test]
        fn every_report_is_accounted_for(
            steps in proptest::collection::vec((0u64..40, 0usize..5, 0u32..2, 0u8..8), 0..200)
        ) {
            let (mut throttle, start) = (Throttle::new(MINUTE), Instant::now());
            let (mut now, mut held, mut said) = (start, 0, 0);
            for (at, (seconds, fingerprint, update, tick)) in steps.into_iter().enumerate() {
                now += Duration::from_secs(seconds);
                let id = if update > 0 { (at / 2).to_string() } else { at.to_string() };
                match throttle.decide(&id, update, &fingerprint.to_string(), now, String::new) {
                    Decision::Hold => held += u64::from(update == 0),
                    Decision::Send { suppressed } => said += suppressed,
                }
                if tick == 0 {
                    said += throttle.overdue(now).iter().map(|overdue| overdue.count).sum::<u64>();
                }
            }
            said += throttle.flush().iter().map(|overdue| overdue.count).sum::<u64>();
            prop_assert_eq!(held, said);
        }
    }
}
