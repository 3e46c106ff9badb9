//! The queue of one sink: in which order reports are sent, how often, and when again. It doesn't depend on sinks,
//! threads or clocks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backoff::pause;
use super::receipt::{Entry, Receipt};
use crate::report::{Digest, Report};

/// The period of a limit.
const HOUR: Duration = Duration::from_secs(60 * 60);

/// The limits of a queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// How many reports may wait in memory.
    pub(super) capacity: usize,
    /// How many reports may wait, including those that are only in the spool. As many again may be gathered.
    pub(super) spooled: usize,
    /// How long a report is tried again.
    pub(super) retry_for: Duration,
    /// How many attempts may be made per hour. Beyond that, reports are gathered.
    pub(super) per_hour: Option<u32>,
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
    /// When the hour began, and how much was sent in it.
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
    /// When it was first tried.
    tried: Option<Instant>,
}

/// Reports beyond the hour's limit.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) digest: Digest,
    pub(super) receipts: Vec<Arc<Receipt>>,
    tried: Option<Instant>,
}

/// What to do next.
#[derive(Debug)]
pub(super) enum Next {
    /// Send it, then report the outcome.
    Send(Waiting),
    /// [`Queue::gather`] it.
    Gather(Waiting),
    /// Send the digest, then report the outcome.
    Digest(Gathered),
}

/// What could not be sent for now.
#[derive(Debug)]
pub(super) enum Failed {
    Send(Waiting),
    /// It could not even be read.
    Gather(Waiting),
    Digest(Gathered),
}

impl Queue {
    /// Returns the number of reports in here, including those that are gathered.
    fn len(&self) -> usize {
        self.waiting.len() + self.gathered.as_ref().map_or(0, |gathered| gathered.receipts.len())
    }

    /// Adds a report. Returns the oldest if it had to make room.
    #[must_use]
    pub(super) fn push(&mut self, entry: Entry, rules: &Rules) -> Option<Arc<Receipt>> {
        self.waiting.push_back(Waiting { entry, tried: None });
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
    pub(super) fn drop_number(&mut self, number: u64) -> Option<Arc<Receipt>> {
        self.drop_oldest(|waiting| waiting.entry.receipt.number == number)
    }

    fn drop_oldest(&mut self, which: impl Fn(&Waiting) -> bool) -> Option<Arc<Receipt>> {
        let at = self.waiting.iter().position(which)?;
        self.waiting.remove(at).map(|waiting| waiting.entry.receipt)
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
        let is_digest_due = |gathered: &Gathered| self.hurry || !self.is_in_hour(now) || gathered.tried.is_some();
        let sends = match &self.gathered {
            Some(gathered) => is_digest_due(gathered),
            None => !self.waiting.is_empty() && !self.is_used_up(now, rules),
        };
        self.gathers(now, rules) || (sends && self.not_before.is_none_or(|not_before| now >= not_before))
    }

    /// Returns whether waiting reports are gathered now. This goes on while the sink is left alone, because it only
    /// reads.
    fn gathers(&self, now: Instant, rules: &Rules) -> bool {
        let readable = self.unreadable_until.is_none_or(|until| now >= until);
        !self.waiting.is_empty() && readable && self.is_used_up(now, rules)
    }

    fn is_in_hour(&self, now: Instant) -> bool {
        self.window.is_some_and(|(began, _)| now.saturating_duration_since(began) < HOUR)
    }

    fn is_used_up(&self, now: Instant, rules: &Rules) -> bool {
        let Some(limit) = rules.per_hour else { return false };
        // The gathered reports are sent before anything that came later.
        self.gathered.is_some() || (self.is_in_hour(now) && self.window.is_some_and(|(_, sent)| sent >= limit))
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
            return Some(Next::Gather(waiting));
        }
        if !self.is_in_hour(now) {
            self.window = Some((now, 0));
        }
        if let Some(mut gathered) = self.gathered.take() {
            gathered.tried.get_or_insert(now);
            self.count(1);
            return Some(Next::Digest(gathered));
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

    /// Adds a report to those beyond the hour's limit. Returns its receipt if there was no room.
    #[must_use]
    pub(super) fn gather(&mut self, waiting: Waiting, report: &Report, rules: &Rules) -> Option<Arc<Receipt>> {
        let receipt = waiting.entry.receipt;
        match &mut self.gathered {
            // For example, a server that is down for days.
            Some(gathered) if gathered.receipts.len() >= rules.spooled => return Some(receipt),
            Some(gathered) => {
                gathered.digest.add(report);
                gathered.receipts.push(receipt);
            }
            None => self.gathered = Some(Gathered { digest: Digest::of(report), receipts: vec![receipt], tried: None }),
        }
        None
    }

    /// Notes that the last attempt arrived, or was refused for good: the sink works.
    pub(super) fn works(&mut self) {
        (self.failures, self.not_before, self.unreadable_until) = (0, None, None);
    }

    /// Puts back what the last attempt could not deliver, behind the others. If its time is up, returns it instead.
    #[must_use]
    pub(super) fn failed(&mut self, failed: Failed, now: Instant, rules: &Rules, random: f64) -> Vec<Arc<Receipt>> {
        self.failures = self.failures.saturating_add(1);
        let pause = Some(now + pause(self.failures, random));
        if matches!(failed, Failed::Gather(_)) {
            self.unreadable_until = pause;
        } else {
            self.not_before = pause;
            // A failed attempt doesn't count against the hour's limit.
            self.count(-1);
        }
        let is_over =
            |tried: Option<Instant>| tried.is_some_and(|tried| now.saturating_duration_since(tried) >= rules.retry_for);
        match failed {
            Failed::Send(waiting) | Failed::Gather(waiting) if is_over(waiting.tried) => vec![waiting.entry.receipt],
            Failed::Send(waiting) | Failed::Gather(waiting) => {
                self.waiting.push_back(waiting);
                Vec::new()
            }
            Failed::Digest(gathered) if is_over(gathered.tried) => gathered.receipts,
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
    use super::*;
    use crate::report::delivery::kept::Memory;
    use crate::report::testing::report;

    const RULES: Rules = Rules { capacity: 3, spooled: 10, retry_for: Duration::from_secs(100), per_hour: None };

    fn entry(number: u64) -> Entry {
        let receipt = Receipt::new(number, [0].into(), None);
        Entry { receipt: Arc::new(receipt), report: Some(Memory::default().keep(report())) }
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
        assert_eq!((dropped.number, queue.len()), (0, 3));
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
        assert_eq!(over.iter().map(|receipt| receipt.number).collect::<Vec<_>>(), [0]);
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
        let rules = Rules { per_hour: Some(2), capacity: 100, ..RULES };
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
                    Next::Send(waiting) => panic!("{waiting:?}"),
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
        assert_eq!((digest.receipts.len(), digest.digest.reports), (4, 4), "what came just before, too");
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

    /// Guards: asking for the next report would never end if one that cannot be read came up again at once.
    #[test]
    fn an_unreadable_report_is_not_retried_at_once() {
        let rules = Rules { per_hour: Some(1), ..RULES };
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
        let rules = Rules { per_hour: Some(1), ..RULES };
        let mut queue = Queue { window: Some((at(0), 1)), ..Queue::default() };
        let mut given_up = Vec::new();
        for number in 0..15 {
            assert!(queue.push(entry(number), &rules).is_none());
            let waiting = beyond(queue.next(at(0), &rules));
            given_up.extend(queue.gather(waiting, &report(), &rules).map(|receipt| receipt.number));
        }
        assert_eq!((queue.len(), given_up), (10, vec![10, 11, 12, 13, 14]));
    }

    /// Guards: a flush during an attempt that fails also speeds up what follows.
    #[test]
    fn a_flush_lasts_until_nothing_is_left() {
        let rules = Rules { per_hour: Some(1), ..RULES };
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
