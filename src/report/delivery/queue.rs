//! The queue of one sink: in which order reports are sent, how often, and when again. It doesn't depend on sinks,
//! threads or clocks.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::backoff::pause;
use super::receipt::Entry;
use crate::report::sink::Batch;
use crate::report::{Digest, Report};

/// The period of most limits.
pub(super) const HOUR: Duration = Duration::from_secs(60 * 60);

/// How often a sink may be called.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    /// The number of attempts in each period. Beyond that, reports are gathered. With zero all of them are, and there is
    /// one digest per period.
    pub(super) attempts: u32,
    pub(super) period: Duration,
}

impl Limit {
    const fn gathers_all(self) -> bool {
        self.attempts == 0
    }
}

/// The limits of a queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// How many reports may wait in memory.
    pub(super) capacity: usize,
    /// How many reports may wait, including those that are only in the spool. As many again may be gathered.
    pub(super) spooled: usize,
    /// How long a report is tried again.
    pub(super) retry_for: Duration,
    /// How many attempts may be made.
    pub(super) limit: Option<Limit>,
    /// Whether several are sent at once.
    pub(super) batch: Option<Batch>,
}

/// The reports that wait for one sink.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: VecDeque<Waiting>,
    gathered: Option<Gathered>,
    /// The number of failures in a row, and how long the sink is left alone because of them.
    failures: u32,
    not_before: Option<Instant>,
    /// How long nothing is gathered, because a report could not be read.
    unreadable_until: Option<Instant>,
    /// When the limit's period began, and how much was sent in it.
    window: Option<(Instant, u32)>,
    /// A caller wants everything to be sent now.
    hurry: bool,
    /// The queue is being driven.
    driven: bool,
}

/// A report that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) entry: Entry,
    /// Since when it waits, for a batch.
    since: Option<Instant>,
    /// When it was first tried.
    tried: Option<Instant>,
}

/// Reports beyond the limit.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) digest: Digest,
    /// Without the reports themselves.
    pub(super) entries: Vec<Entry>,
    tried: Option<Instant>,
}

/// What to do next.
#[derive(Debug)]
pub(super) enum Next {
    /// Send it, then report the outcome.
    Send(Waiting),
    /// Send them together, then report the outcome.
    Batch(Vec<Waiting>),
    /// [`Queue::gather`] it.
    Gather(Waiting),
    /// Send the digest, then report the outcome.
    Digest(Gathered),
}

/// What could not be sent for now.
#[derive(Debug)]
pub(super) enum Failed {
    Send(Waiting),
    Batch(Vec<Waiting>),
    /// It could not even be read.
    Gather(Waiting),
    Digest(Gathered),
}

impl Queue {
    /// Returns the number of reports in here, including those that are gathered.
    fn len(&self) -> usize {
        self.waiting.len() + self.gathered.as_ref().map_or(0, |gathered| gathered.entries.len())
    }

    /// Adds a report. Returns the oldest if it had to make room.
    #[must_use]
    pub(super) fn push(&mut self, entry: Entry, rules: &Rules) -> Option<Entry> {
        self.waiting.push_back(Waiting { entry, since: None, tried: None });
        if self.waiting.len() > rules.capacity {
            // Reports in the spool are read from there when their turn comes. The newest has the longest to wait.
            let in_spool = |waiting: &&mut Waiting| waiting.entry.receipt.file.is_some();
            if let Some(newest) = self.waiting.back_mut().filter(in_spool) {
                newest.entry.report = None;
            } else if self.waiting.iter().filter(|waiting| waiting.entry.report.is_some()).count() > rules.capacity {
                // The disk may be full. Reports that are on it make room in memory for those that aren't.
                let mut others = self.waiting.iter_mut().rev().filter(in_spool);
                match others.find(|other| other.entry.report.is_some()) {
                    Some(other) => other.entry.report = None,
                    None => return self.drop_oldest(|waiting| waiting.entry.receipt.file.is_none()),
                }
            }
        }
        if self.waiting.len() > rules.spooled { self.drop_oldest(|_| true) } else { None }
    }

    /// Returns the number of the oldest report that waits in memory.
    pub(super) fn oldest_in_memory(&self) -> Option<u64> {
        let in_memory = self.waiting.iter().filter(|waiting| waiting.entry.report.is_some());
        in_memory.map(|waiting| waiting.entry.receipt.number).min()
    }

    /// Returns the number of the newest report that waits in memory and is also in the spool.
    pub(super) fn newest_in_both(&self) -> Option<u64> {
        let in_both = |entry: &&Entry| entry.report.is_some() && entry.receipt.file.is_some();
        self.waiting.iter().map(|waiting| &waiting.entry).filter(in_both).map(|entry| entry.receipt.number).max()
    }

    /// Removes the report with that number from memory. The spool has it.
    pub(super) fn leave_to_spool(&mut self, number: u64) {
        let which = |waiting: &&mut Waiting| waiting.entry.receipt.number == number;
        self.waiting.iter_mut().filter(which).for_each(|waiting| waiting.entry.report = None);
    }

    /// Drops the report with that number, if it waits in here.
    #[must_use]
    pub(super) fn drop_number(&mut self, number: u64) -> Option<Entry> {
        self.drop_oldest(|waiting| waiting.entry.receipt.number == number)
    }

    fn drop_oldest(&mut self, which: impl Fn(&Waiting) -> bool) -> Option<Entry> {
        let at = self.waiting.iter().position(which)?;
        self.waiting.remove(at).map(|waiting| waiting.entry)
    }

    /// Returns whether there is something to do now and nothing drives the queue.
    pub(super) fn is_to_be_driven(&self, now: Instant, rules: &Rules) -> bool {
        !self.driven && self.is_due(now, rules)
    }

    /// Like [`is_to_be_driven`](Self::is_to_be_driven). If it returns true, the caller must [`drive`](Self::next) the
    /// queue.
    pub(super) fn begin_driving(&mut self, now: Instant, rules: &Rules) -> bool {
        let taken = self.is_to_be_driven(now, rules);
        self.driven |= taken;
        taken
    }

    /// Ends the caller's driving, whatever is in the queue.
    pub(super) fn end_driving(&mut self) {
        self.driven = false;
        // The hurry lasts until nothing is left, so that what failed meanwhile doesn't wait for the end of the hour.
        self.hurry &= self.len() > 0;
    }

    fn is_due(&self, now: Instant, rules: &Rules) -> bool {
        let is_digest_due =
            |gathered: &Gathered| self.hurry || !self.is_in_period(now, rules) || gathered.tried.is_some();
        let sends = match &self.gathered {
            Some(gathered) => is_digest_due(gathered),
            None => !self.waiting.is_empty() && !self.is_used_up(now, rules) && self.is_ripe(now, rules),
        };
        self.gathers(now, rules) || (sends && self.not_before.is_none_or(|not_before| now >= not_before))
    }

    /// Returns whether waiting reports are gathered now. This goes on while the sink is left alone, because it only
    /// reads.
    fn gathers(&self, now: Instant, rules: &Rules) -> bool {
        let readable = self.unreadable_until.is_none_or(|until| now >= until);
        !self.waiting.is_empty() && readable && self.is_used_up(now, rules)
    }

    /// Returns whether enough reports wait, or wait for long enough.
    fn is_ripe(&self, now: Instant, rules: &Rules) -> bool {
        let Some(batch) = rules.batch else { return true };
        let has_waited = |waiting: &Waiting| {
            waiting.tried.is_some()
                || waiting.since.is_some_and(|since| now.saturating_duration_since(since) >= batch.age)
        };
        // Otherwise the oldest would be dropped for want of a batch.
        let is_half_full = 2 * self.waiting.len() > rules.capacity;
        self.hurry
            || is_half_full
            || self.waiting.front().is_some_and(has_waited)
            || self.fits(batch) < self.waiting.len()
    }

    /// Returns how many of those that wait are sent together. One is, whatever it takes.
    fn fits(&self, batch: Batch) -> usize {
        let mut bytes = 0_usize;
        let fits = |waiting: &&Waiting| {
            bytes = bytes.saturating_add(waiting.entry.bytes());
            bytes <= batch.bytes
        };
        self.waiting.iter().take(batch.reports).take_while(fits).count().max(1)
    }

    /// Puts back what did not fit into a batch after all. It is sent next.
    pub(super) fn put_back(&mut self, several: Vec<Waiting>) {
        several.into_iter().rev().for_each(|waiting| self.waiting.push_front(waiting));
    }

    /// Notes when what is new has come.
    pub(super) fn note_time(&mut self, now: Instant) {
        if let Some(last) = self.waiting.back_mut() {
            last.since.get_or_insert(now);
        }
    }

    fn is_in_period(&self, now: Instant, rules: &Rules) -> bool {
        let period = rules.limit.map_or(HOUR, |limit| limit.period);
        self.window.is_some_and(|(began, _)| now.saturating_duration_since(began) < period)
    }

    fn is_used_up(&self, now: Instant, rules: &Rules) -> bool {
        let Some(limit) = rules.limit else { return false };
        // The gathered reports are sent before anything that came later.
        self.gathered.is_some()
            || limit.gathers_all()
            || (self.is_in_period(now, rules) && self.window.is_some_and(|(_, sent)| sent >= limit.attempts))
    }

    /// Returns what to do next. After `None` the caller no longer drives the queue.
    pub(super) fn next(&mut self, now: Instant, rules: &Rules) -> Option<Next> {
        if !self.is_due(now, rules) {
            self.end_driving();
            return None;
        }
        if self.gathers(now, rules)
            && let Some(mut waiting) = self.waiting.pop_front()
        {
            waiting.tried.get_or_insert(now);
            if self.gathered.is_none() && !self.is_in_period(now, rules) {
                // The first of a digest. The period begins with it.
                self.window = Some((now, 0));
            }
            return Some(Next::Gather(waiting));
        }
        if !self.is_in_period(now, rules) {
            self.window = Some((now, 0));
        }
        if let Some(mut gathered) = self.gathered.take() {
            gathered.tried.get_or_insert(now);
            self.count(1);
            return Some(Next::Digest(gathered));
        }
        if let Some(batch) = rules.batch {
            let mut several: Vec<Waiting> = self.waiting.drain(..self.fits(batch)).collect();
            several.iter_mut().for_each(|waiting| _ = waiting.tried.get_or_insert(now));
            self.count(1);
            return Some(Next::Batch(several));
        }
        let mut waiting = self.waiting.pop_front()?;
        waiting.tried.get_or_insert(now);
        self.count(1);
        Some(Next::Send(waiting))
    }

    /// Notes that the last report had nothing new for the sink, and wasn't sent.
    pub(super) fn not_sent(&mut self) {
        self.count(-1);
    }

    fn count(&mut self, by: i32) {
        if let Some((_, sent)) = &mut self.window {
            *sent = sent.saturating_add_signed(by);
        }
    }

    /// Adds a report to those beyond the limit. Returns its entry if there was no room.
    #[must_use]
    pub(super) fn gather(&mut self, waiting: Waiting, report: &Report, rules: &Rules) -> Option<Entry> {
        let entry = Entry { report: None, ..waiting.entry };
        let gathered = match &mut self.gathered {
            // For example, a server that is down for days.
            Some(gathered) if gathered.entries.len() >= rules.spooled => return Some(entry),
            Some(gathered) => {
                gathered.digest.add(report);
                gathered.entries.push(entry);
                gathered
            }
            None => {
                let digest = Digest::of(report);
                self.gathered.insert(Gathered { digest, entries: vec![entry], tried: None })
            }
        };
        if rules.limit.is_some_and(Limit::gathers_all) {
            gathered.digest.add_timeline(report);
        }
        None
    }

    /// Notes that the last attempt arrived, or was refused for good: the sink works.
    pub(super) fn works(&mut self) {
        (self.failures, self.not_before, self.unreadable_until) = (0, None, None);
    }

    /// Puts back what the last attempt could not deliver, behind the others. If its time is up, returns it instead.
    #[must_use]
    pub(super) fn failed(&mut self, failed: Failed, now: Instant, rules: &Rules, random: f64) -> Vec<Entry> {
        self.failures = self.failures.saturating_add(1);
        let pause = Some(now + pause(self.failures, random));
        if matches!(failed, Failed::Gather(_)) {
            self.unreadable_until = pause;
        } else {
            self.not_before = pause;
            // A failed attempt doesn't count against the limit.
            self.count(-1);
        }
        let is_over =
            |tried: Option<Instant>| tried.is_some_and(|tried| now.saturating_duration_since(tried) >= rules.retry_for);
        match failed {
            Failed::Send(waiting) | Failed::Gather(waiting) if is_over(waiting.tried) => vec![waiting.entry],
            Failed::Send(waiting) | Failed::Gather(waiting) => {
                self.waiting.push_back(waiting);
                Vec::new()
            }
            Failed::Batch(several) => {
                let (over, again): (Vec<_>, Vec<_>) = several.into_iter().partition(|waiting| is_over(waiting.tried));
                // In front, because those that wait longest decide when the next attempt is due.
                again.into_iter().rev().for_each(|waiting| self.waiting.push_front(waiting));
                over.into_iter().map(|waiting| waiting.entry).collect()
            }
            Failed::Digest(gathered) if is_over(gathered.tried) => gathered.entries,
            Failed::Digest(gathered) => {
                self.gathered = Some(gathered);
                Vec::new()
            }
        }
    }

    /// Makes everything due now, without waiting for pauses and hours, once.
    pub(super) fn hurry(&mut self) {
        self.works();
        // What is just being sent or gathered isn't in the queue.
        self.hurry = self.driven || self.len() > 0;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::report::delivery::kept::Memory;
    use crate::report::delivery::spool::SpoolFile;
    use crate::report::testing::report;

    const RULES: Rules =
        Rules { capacity: 3, spooled: 10, retry_for: Duration::from_secs(100), limit: None, batch: None };

    const fn per_hour(attempts: u32) -> Option<Limit> {
        Some(Limit { attempts, period: HOUR })
    }

    fn entry(number: u64) -> Entry {
        let receipt = crate::report::delivery::receipt::Receipt::new(number, [0].into(), None);
        Entry { receipt: Arc::new(receipt), report: Some(Memory::default().keep(report())), fleet: None }
    }

    fn filled(numbers: std::ops::Range<u64>) -> Queue {
        let mut queue = Queue::default();
        numbers.for_each(|number| assert!(queue.push(entry(number), &RULES).is_none()));
        queue
    }

    fn sent(next: Option<Next>) -> Waiting {
        match next {
            Some(Next::Send(waiting)) => waiting,
            other => panic!("{other:?}"),
        }
    }

    fn at(seconds: u64) -> Instant {
        use std::sync::LazyLock;
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        *START + Duration::from_secs(seconds)
    }

    #[test]
    fn reports_leave_in_order_and_the_oldest_is_dropped() {
        let mut queue = filled(0..3);
        let dropped = queue.push(entry(3), &RULES).unwrap();
        assert_eq!((dropped.receipt.number, queue.len()), (0, 3));
        for number in 1..4 {
            assert_eq!(sent(queue.next(at(0), &RULES)).entry.receipt.number, number);
            queue.works();
        }
        assert!(queue.next(at(0), &RULES).is_none());
    }

    /// Guards: only one driver runs, and nothing that arrives while it stops is forgotten.
    #[test]
    fn only_one_driver_runs_at_a_time() {
        let mut queue = filled(0..1);
        assert!(queue.begin_driving(at(0), &RULES));
        assert!(!queue.begin_driving(at(0), &RULES));
        let _ = sent(queue.next(at(0), &RULES));
        assert!(queue.push(entry(1), &RULES).is_none());
        assert!(!queue.begin_driving(at(0), &RULES), "still driven");
        let _ = sent(queue.next(at(0), &RULES));
        assert!(queue.next(at(0), &RULES).is_none());
        assert!(queue.push(entry(2), &RULES).is_none());
        assert!(queue.begin_driving(at(0), &RULES));
    }

    /// Guards: after a failure the whole queue pauses, and the report that failed goes to the end and expires in time.
    /// A refused report doesn't hold the others up.
    #[test]
    fn a_failed_report_waits_and_goes_last() {
        let mut queue = filled(0..2);
        let first = sent(queue.next(at(0), &RULES));
        assert!(queue.failed(Failed::Send(first), at(0), &RULES, 0.5).is_empty());
        assert!(queue.next(at(0), &RULES).is_none(), "after a pause");
        let second = sent(queue.next(at(1), &RULES));
        assert_eq!(second.entry.receipt.number, 1);
        queue.works();
        let again = sent(queue.next(at(1), &RULES));
        assert_eq!(again.entry.receipt.number, 0);
        let over = queue.failed(Failed::Send(again), at(100), &RULES, 0.5);
        assert_eq!(over.iter().map(|entry| entry.receipt.number).collect::<Vec<_>>(), [0]);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn a_flush_skips_one_pause() {
        let mut queue = filled(0..1);
        let one = sent(queue.next(at(0), &RULES));
        assert!(queue.failed(Failed::Send(one), at(0), &RULES, 1.0).is_empty());
        queue.hurry();
        let one = sent(queue.next(at(0), &RULES));
        assert!(queue.failed(Failed::Send(one), at(0), &RULES, 1.0).is_empty());
        assert!(queue.next(at(0), &RULES).is_none());
    }

    /// Guards: two reports, then a digest at the end of the hour, tried again if it fails, and then reports again.
    #[test]
    fn reports_beyond_the_limit_become_a_digest() {
        let rules = Rules { limit: per_hour(2), capacity: 100, ..RULES };
        let mut queue = Queue::default();
        (0..5).for_each(|number| assert!(queue.push(entry(number), &rules).is_none()));
        for _ in 0..2 {
            let _ = sent(queue.next(at(0), &rules));
            queue.works();
        }
        let gather = |queue: &mut Queue, now: Instant| {
            while let Some(next) = queue.next(now, &rules) {
                match next {
                    Next::Gather(waiting) => assert!(queue.gather(waiting, &report(), &rules).is_none()),
                    Next::Digest(gathered) => return Some(gathered),
                    other => panic!("{other:?}"),
                }
            }
            None
        };
        assert!(gather(&mut queue, at(10)).is_none());
        assert_eq!(queue.len(), 3, "gathered, not gone");
        assert!(!queue.begin_driving(at(3599), &rules));
        assert!(queue.push(entry(5), &rules).is_none());
        assert!(queue.begin_driving(at(3600), &rules));
        let digest = gather(&mut queue, at(3600)).expect("the hour is over");
        assert_eq!((digest.entries.len(), digest.digest.reports), (4, 4), "what came just before, too");
        assert!(queue.failed(Failed::Digest(digest), at(3600), &rules, 0.5).is_empty());
        assert!(gather(&mut queue, at(3600)).is_none(), "after a pause");
        let digest = gather(&mut queue, at(3601)).expect("not an hour later");
        queue.works();
        drop(digest);
        assert!(queue.push(entry(6), &rules).is_none());
        let _ = sent(queue.next(at(3602), &rules));
        queue.works();
        assert!(queue.push(entry(7), &rules).is_none());
        assert!(matches!(queue.next(at(3603), &rules), Some(Next::Gather(_))), "the digest was one of two");
        let mut digest = filled(0..1);
        digest.window = Some((at(0), 2));
        assert!(gather(&mut digest, at(1)).is_none());
        digest.hurry();
        assert!(gather(&mut digest, at(2)).is_some(), "at the end of the process");
    }

    fn beyond(next: Option<Next>) -> Waiting {
        match next {
            Some(Next::Gather(waiting)) => waiting,
            other => panic!("{other:?}"),
        }
    }

    /// Guards: a sink that wants everything together gets one digest per period, with all that came in it, and a flush does
    /// not wait for the end of the period.
    #[test]
    fn a_sink_of_digests_gets_one_per_period() {
        let period = Duration::from_secs(15);
        let rules = Rules { limit: Some(Limit { attempts: 0, period }), capacity: 100, ..RULES };
        let digest = |queue: &mut Queue, now: Instant| {
            while let Some(next) = queue.next(now, &rules) {
                match next {
                    Next::Gather(waiting) => assert!(queue.gather(waiting, &report(), &rules).is_none()),
                    Next::Digest(gathered) => return Some(gathered.entries.len()),
                    next @ (Next::Send(_) | Next::Batch(_)) => panic!("{next:?}"),
                }
            }
            None
        };
        let mut queue = Queue::default();
        for (now, numbers, sent) in [(0, 0..2, None), (14, 2..3, None), (15, 3..4, Some(4)), (16, 4..5, None)] {
            numbers.for_each(|number| assert!(queue.push(entry(number), &rules).is_none()));
            assert_eq!(digest(&mut queue, at(now)), sent, "at {now} s");
            if sent.is_some() {
                queue.works();
                assert_eq!(digest(&mut queue, at(now)), None, "nothing is left");
            }
        }
        assert!(!queue.begin_driving(at(29), &rules) && queue.is_to_be_driven(at(30), &rules));
        queue.hurry();
        assert_eq!(digest(&mut queue, at(17)), Some(1));
    }

    /// Guards: asking for the next report would never end if one that cannot be read came up again at once.
    #[test]
    fn an_unreadable_report_is_not_retried_at_once() {
        let rules = Rules { limit: per_hour(1), ..RULES };
        let mut queue = filled(0..2);
        let _ = sent(queue.next(at(0), &rules));
        queue.works();
        let unreadable = beyond(queue.next(at(0), &rules));
        assert!(queue.failed(Failed::Gather(unreadable), at(0), &rules, 0.5).is_empty());
        assert!(queue.next(at(0), &rules).is_none(), "neither read at once nor sent beyond the limit");
        let again = beyond(queue.next(at(1), &rules));
        assert!(queue.gather(again, &report(), &rules).is_none());
        assert!(queue.push(entry(2), &rules).is_none());
        let over = beyond(queue.next(at(100), &rules));
        assert_eq!(queue.failed(Failed::Gather(over), at(200), &rules, 0.5).len(), 1);
        queue.hurry();
        assert!(matches!(queue.next(at(200), &rules), Some(Next::Digest(_))), "what is gathered does not wait for it");
    }

    /// Guards: gathering ever more while a server is down for days takes bounded memory.
    #[test]
    fn gathered_reports_take_bounded_memory() {
        let rules = Rules { limit: per_hour(1), ..RULES };
        let mut queue = Queue { window: Some((at(0), 1)), ..Queue::default() };
        let mut given_up = Vec::new();
        for number in 0..15 {
            assert!(queue.push(entry(number), &rules).is_none());
            let waiting = beyond(queue.next(at(0), &rules));
            given_up.extend(queue.gather(waiting, &report(), &rules).map(|entry| entry.receipt.number));
        }
        assert_eq!((queue.len(), given_up), (10, vec![10, 11, 12, 13, 14]));
    }

    fn batch(next: Option<Next>) -> Vec<u64> {
        match next {
            Some(Next::Batch(several)) => several.iter().map(|waiting| waiting.entry.receipt.number).collect(),
            other => panic!("{other:?}"),
        }
    }

    /// Guards: reports leave together when they have waited for long enough, or when there are enough of them, and none waits
    /// for others until it is dropped.
    #[test]
    fn a_batch_leaves_when_it_is_old_or_full() {
        let several = Batch { age: Duration::from_secs(30), reports: 3, bytes: 1 << 30 };
        let rules = Rules { batch: Some(several), capacity: 100, ..RULES };
        let mut queue = Queue::default();
        let push = |queue: &mut Queue, number, now| {
            assert!(queue.push(entry(number), &rules).is_none());
            queue.note_time(now);
        };
        push(&mut queue, 0, at(0));
        push(&mut queue, 1, at(20));
        assert!(!queue.begin_driving(at(29), &rules));
        assert_eq!(batch(queue.next(at(30), &rules)), [0, 1]);
        queue.works();
        (2..6).for_each(|number| push(&mut queue, number, at(31)));
        assert_eq!(batch(queue.next(at(31), &rules)), [2, 3, 4], "as many as there may be");
        assert!(queue.next(at(31), &rules).is_none(), "the last one waits for others");
        queue.hurry();
        assert_eq!(batch(queue.next(at(31), &rules)), [5]);

        let small = Rules { batch: Some(Batch { bytes: 1, ..several }), ..rules };
        (6..8).for_each(|number| push(&mut queue, number, at(40)));
        assert_eq!(batch(queue.next(at(40), &small)), [6], "one is sent, whatever it takes");
        let short = Rules { capacity: 2, ..rules };
        push(&mut queue, 8, at(40));
        assert_eq!(batch(queue.next(at(40), &short)), [7, 8], "there is no room to wait");
    }

    /// Guards: reports that are in the spool alone take room in a batch, too. What did not fit leaves next.
    #[test]
    fn reports_in_the_spool_take_room_in_a_batch() {
        let rules = Rules {
            batch: Some(Batch { age: Duration::from_secs(30), reports: 100, bytes: 10 << 20 }),
            capacity: 1_000,
            ..RULES
        };
        let mut queue = Queue::default();
        for number in 0..8 {
            let file = SpoolFile { path: "spool/1-a/1.json".into(), bytes: 3 << 20 };
            let receipt = crate::report::delivery::receipt::Receipt::new(number, [0].into(), Some(file));
            let entry = Entry { receipt: Arc::new(receipt), report: None, fleet: None };
            assert!(queue.push(entry, &rules).is_none());
        }
        let Some(Next::Batch(mut several)) = queue.next(at(0), &rules) else { panic!("no batch") };
        assert_eq!(several.len(), 3);
        queue.put_back(several.split_off(1));
        assert_eq!([batch(queue.next(at(0), &rules)), batch(queue.next(at(0), &rules))], [[1, 2, 3], [4, 5, 6]]);
    }

    /// Guards: a batch that fails is tried again as it was, after a pause, and its reports expire in time.
    #[test]
    fn a_failed_batch_is_tried_again_first() {
        let several = Batch { age: Duration::from_secs(30), reports: 3, bytes: 1 << 30 };
        let rules = Rules { batch: Some(several), capacity: 100, ..RULES };
        let mut queue = filled(0..2);
        queue.hurry();
        let Some(Next::Batch(failed)) = queue.next(at(0), &rules) else { panic!("no batch") };
        assert!(queue.push(entry(2), &rules).is_none());
        assert!(queue.failed(Failed::Batch(failed), at(0), &rules, 0.5).is_empty());
        assert!(queue.next(at(0), &rules).is_none(), "after a pause");
        let Some(Next::Batch(failed)) = queue.next(at(1), &rules) else { panic!("no batch") };
        let numbers: Vec<_> = failed.iter().map(|waiting| waiting.entry.receipt.number).collect();
        assert_eq!(numbers, [0, 1, 2]);
        let over = queue.failed(Failed::Batch(failed), at(100), &rules, 0.5);
        assert_eq!(over.iter().map(|entry| entry.receipt.number).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(queue.len(), 1, "it was tried for a shorter time");
    }

    /// Guards: a flush during an attempt that fails also speeds up what follows.
    #[test]
    fn a_flush_lasts_until_nothing_is_left() {
        let rules = Rules { limit: per_hour(1), ..RULES };
        let mut queue = filled(0..2);
        assert!(queue.begin_driving(at(0), &rules));
        let first = sent(queue.next(at(0), &rules));
        queue.hurry();
        assert!(queue.failed(Failed::Send(first), at(0), &rules, 0.5).is_empty());
        assert!(queue.next(at(0), &rules).is_none(), "after a pause");
        let _ = sent(queue.next(at(1), &rules));
        queue.works();
        let rest = beyond(queue.next(at(1), &rules));
        assert!(queue.gather(rest, &report(), &rules).is_none());
        assert!(matches!(queue.next(at(1), &rules), Some(Next::Digest(_))));
        queue.works();
        assert!(queue.next(at(1), &rules).is_none());
        assert!(queue.push(entry(2), &rules).is_none());
        let later = beyond(queue.next(at(2), &rules));
        assert!(queue.gather(later, &report(), &rules).is_none());
        assert!(queue.next(at(2), &rules).is_none(), "nobody is in a hurry any more");
    }
}
