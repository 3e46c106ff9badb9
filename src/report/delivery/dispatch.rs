//! Hands reports to the sinks, and tracks the outcome.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::gate::{Decision, Gate, Question};
use super::guard::attempt;
use super::kept::{Kept, Memory};
use super::left_behind::{Bounds, Found};
use super::outbox::Outbox;
use super::pending::Pending;
use super::queue::{Next, Rules, Waiting};
use super::receipt::{Entry, Outcome, Receipt, Standing};
use super::slot::{AnySink, Slot, call};
use super::spool::Spool;
use crate::log::TARGET;
use crate::log::log_safely;
use crate::report::metrics::stats::{Counters, add, count};
use crate::report::sink::SinkError;
use crate::report::{Report, SinkStats};
use crate::sync::lock_std;

/// How often the spool is searched for what other processes left behind.
const TAKE_OVER_EVERY: Duration = Duration::from_secs(30);

/// How often it is logged at most that reports are not spooled. Each is counted.
const LOG_NOT_SPOOLED_EVERY: Duration = Duration::from_secs(60);

/// How many reports in the spool may wait for one sink.
const MAX_SPOOLED: usize = 10_000;

/// The shortest time that a report of a later version waits in the spool, even if others are tried again for less,
/// because a deployment takes a while.
const LATER_WAIT: Duration = Duration::from_secs(60 * 60);

/// The most bytes of reports of a later version in the spool. Ten thousand usually have about as many.
const LATER_BYTES: u64 = 256 << 20;

/// How long blocking sinks may keep the reporter from everything else, unless a single report takes longer.
const TURN: Duration = Duration::from_millis(100);

/// How much may wait, and for how long.
#[derive(Debug, Clone, Copy)]
pub(in crate::report) struct Limits {
    /// How many reports may wait for one sink in memory.
    pub(in crate::report) queue: usize,
    /// How long a report that a sink did not take is tried again.
    pub(in crate::report) retry_for: Duration,
    /// How many bytes may wait in memory: half of them evidence, half of them reports.
    pub(in crate::report) memory: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { queue: 1_000, retry_for: Duration::from_secs(3 * 24 * 60 * 60), memory: 64 << 20 }
    }
}

/// All sinks of one [`Reports`](crate::Reports), and the reports on their way to them.
pub(in crate::report) struct Dispatch {
    pub(super) outboxes: Vec<Outbox>,
    /// Who decides what the sinks get that tell people. Without one, they get everything.
    pub(super) gate: Option<Arc<dyn Gate>>,
    spool: Option<Spool>,
    taken_over: Mutex<Option<Instant>>,
    not_spooled_logged: Mutex<Option<Instant>>,
    later: Bounds,
    pub(super) counters: Arc<Counters>,
    pub(super) pending: Pending,
    memory: Memory,
    max_memory: usize,
}

/// Returns the runtime's time.
pub(in crate::report) fn clock() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Returns whether a periodic task is due. If so, it counts as done.
fn due(last: &Mutex<Option<Instant>>, every: Duration, now: Instant) -> bool {
    let mut last = lock_std(last);
    let due = last.is_none_or(|last| now.saturating_duration_since(last) >= every);
    if due {
        *last = Some(now);
    }
    due
}

impl Dispatch {
    pub(in crate::report) fn new(
        sinks: Vec<AnySink>,
        spool: Option<Spool>,
        limits: Limits,
        counters: Arc<Counters>,
        gate: Option<Arc<dyn Gate>>,
    ) -> Self {
        let mut names = HashSet::new();
        let outbox = |sink| {
            let mut slot = Slot::of_reports(sink);
            // The spool identifies sinks by name.
            let (name, mut number) = (slot.name.clone(), 1);
            while !names.insert(slot.name.clone()) {
                number += 1;
                slot.name = format!("{name} {number}");
            }
            let rules = Rules {
                capacity: limits.queue,
                spooled: limits.queue.max(MAX_SPOOLED),
                retry_for: limits.retry_for,
                limit: slot.limit(),
                batch: slot.batch(),
            };
            Outbox::new(slot, rules)
        };
        Self {
            outboxes: sinks.into_iter().map(outbox).collect(),
            gate,
            spool,
            taken_over: Mutex::default(),
            not_spooled_logged: Mutex::default(),
            later: Bounds {
                reports: limits.queue.max(MAX_SPOOLED),
                bytes: LATER_BYTES,
                time: limits.retry_for.max(LATER_WAIT),
            },
            counters,
            pending: Pending::default(),
            memory: Memory::default(),
            max_memory: limits.memory,
        }
    }

    /// Returns how many bytes of evidence may wait to become reports.
    pub(in crate::report) fn evidence_bytes(&self) -> usize {
        self.max_memory / 2
    }

    /// Returns the names of the sinks, in order.
    pub(in crate::report) fn names(&self) -> impl Iterator<Item = &str> {
        self.outboxes.iter().map(|outbox| &*outbox.slot.name)
    }

    /// Returns the state of each sink, in order.
    pub(in crate::report) fn sinks(&self) -> impl Iterator<Item = SinkStats> {
        self.outboxes.iter().map(|outbox| outbox.slot.stats())
    }

    /// Returns whether reports are on their way.
    pub(in crate::report) fn is_busy(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Returns whether it keeps reports on disk.
    pub(in crate::report) fn has_spool(&self) -> bool {
        self.spool.is_some()
    }

    /// Notes for every sink that evidence was lost before it became a report.
    pub(in crate::report) fn lost(&self) {
        self.outboxes.iter().for_each(|outbox| outbox.lost(1));
    }

    /// Accepts a report and hands it to the blocking sinks. The others get it with the next
    /// [`start_async_sinks`](Self::start_async_sinks).
    pub(in crate::report) fn accept(&self, report: Report, now: Instant) {
        let file = self.spool.as_ref().and_then(|spool| match spool.write(&report) {
            Ok(file) => Some(file),
            Err(error) => {
                count(&self.counters.not_spooled);
                // A disk stays full for a while, and there may be hundreds of reports per second.
                if due(&self.not_spooled_logged, LOG_NOT_SPOOLED_EVERY, now) {
                    let report = &*report.id;
                    log_safely(|| {
                        tracing::error!(target: TARGET, %error, report, "a report was not spooled, and is kept in memory alone");
                    });
                }
                None
            }
        });
        let number = self.pending.open(&self.counters);
        let sinks = (0..self.outboxes.len()).collect();
        self.enqueue(Receipt::new(number, sinks, file), Some(self.memory.keep(report)), now);
        self.make_room(number, now);
        self.call_sinks(now);
    }

    /// Accepts news of an incident, for the sinks that tell people. They get it when their turn comes.
    #[cfg(feature = "fleet")]
    pub(in crate::report) fn accept_news(&self, news: Report) {
        self.counters.count_made(&news);
        let number = self.pending.open(&self.counters);
        let sinks = (0..self.outboxes.len()).filter(|at| self.outboxes[*at].slot.tells_people()).collect();
        self.enqueue(Receipt::new(number, sinks, None), Some(self.memory.keep(news)), clock());
    }

    /// Does what a gate has decided about a report.
    pub(in crate::report) fn decide(&self, question: Question, decision: Decision) {
        let Question { entry, sinks, .. } = question;
        for at in sinks {
            match &decision {
                Decision::Tell(incident) => {
                    self.push(at, Entry { fleet: Some(Arc::clone(incident)), ..entry.clone() }, clock());
                }
                Decision::LeaveToOthers => self.settle(at, &entry, Outcome::Taken),
            }
        }
    }

    /// Keeps the reports in memory within their bound. The newest stays.
    fn make_room(&self, newest: u64, now: Instant) {
        while self.memory.bytes() > self.max_memory - self.max_memory / 2 {
            // Reports in the spool are read from there when their turn comes, the newest last.
            let spooled = self.outboxes.iter().filter_map(|outbox| outbox.queue().newest_in_both()).max();
            if let Some(number) = spooled {
                self.outboxes.iter().for_each(|outbox| outbox.queue().leave_to_spool(number));
                continue;
            }
            let oldest = self.outboxes.iter().filter_map(|outbox| outbox.queue().oldest_in_memory()).min();
            let Some(number) = oldest.filter(|oldest| *oldest < newest) else { return };
            for (at, outbox) in self.outboxes.iter().enumerate() {
                let dropped = outbox.queue().drop_number(number);
                if let Some(dropped) = dropped {
                    let failure = "what waits for it takes too much memory: the oldest report is dropped";
                    outbox.slot.log(&SinkError::permanent(failure), now);
                    self.settle(at, &dropped, Outcome::GivenUp);
                }
            }
        }
    }

    /// Puts a report into the queues of the sinks that should get it.
    fn enqueue(&self, receipt: Receipt, report: Option<Arc<Kept>>, now: Instant) {
        let sinks = receipt.left();
        let receipt = Arc::new(receipt);
        if sinks.is_empty() {
            self.close(&receipt, Standing::Delivered);
        }
        let entry = Entry { receipt, report, fleet: None };
        let asked = |at: &usize| self.gate.is_some() && self.outboxes[*at].slot.tells_people();
        let (asked, others): (Vec<usize>, Vec<usize>) = sinks.into_iter().partition(asked);
        for at in others {
            self.outboxes[at].slot.count_accepted();
            self.push(at, entry.clone(), now);
        }
        if let Some(gate) = self.gate.as_ref().filter(|_| !asked.is_empty()) {
            asked.iter().for_each(|at| self.outboxes[*at].slot.count_accepted());
            self.ask(&**gate, entry, asked, now);
        }
    }

    /// Asks who tells people about a report.
    fn ask(&self, gate: &dyn Gate, entry: Entry, sinks: Vec<usize>, now: Instant) {
        let report = match (&entry.report, &entry.receipt.file) {
            (Some(kept), _) => Some(Arc::clone(kept.report())),
            (None, file) => file.as_ref().and_then(|file| file.read().ok()).map(Arc::new),
        };
        match report {
            Some(report) => match &report.fleet {
                // It has been decided, by the process that made it or by an earlier one.
                Some(incident) => {
                    let decision = Decision::Tell(Arc::new((**incident).clone()));
                    self.decide(Question { entry, sinks, report }, decision);
                }
                None => gate.ask(Question { entry, sinks, report }),
            },
            // Whoever sends it finds out what is wrong with its file.
            None => sinks.into_iter().for_each(|at| self.push(at, entry.clone(), now)),
        }
    }

    /// Puts a report into the queue of a sink.
    fn push(&self, at: usize, entry: Entry, now: Instant) {
        let outbox = &self.outboxes[at];
        let dropped = {
            let mut queue = outbox.queue();
            let dropped = queue.push(entry, &outbox.rules);
            queue.note_time(now);
            dropped
        };
        if let Some(dropped) = dropped {
            outbox.slot.log(&SinkError::permanent("too many reports wait for it: the oldest is dropped"), now);
            self.settle(at, &dropped, Outcome::GivenUp);
        }
    }

    /// Returns whether another instance has told people of this meanwhile. If so, the sink is done with it.
    fn is_told_elsewhere(&self, at: usize, waiting: &Waiting) -> bool {
        let told = match (&self.gate, &waiting.entry.fleet) {
            (Some(gate), Some(incident)) => gate.is_told_elsewhere(incident),
            _ => false,
        };
        if told {
            self.outboxes[at].queue().not_sent();
            self.settle(at, &waiting.entry, Outcome::Taken);
        }
        told
    }

    /// Hands due reports to the blocking sinks, but stops after [`TURN`]: see [`is_behind`](Self::is_behind).
    pub(in crate::report) fn call_sinks(&self, now: Instant) {
        for (at, outbox) in self.outboxes.iter().enumerate() {
            let AnySink::Blocking(sink) = &outbox.slot.sink else { continue };
            let Some(_guard) = outbox.begin_driving(now) else { continue };
            let began = Instant::now();
            // Blocking sinks have no limit per hour, so there is nothing to gather.
            while let Some(Next::Send(waiting)) = outbox.next(now + began.elapsed()) {
                if self.is_told_elsewhere(at, &waiting) {
                    continue;
                }
                let sent =
                    outbox.load(&waiting).and_then(|(report, unreported)| call(&**sink, &report).map(|()| unreported));
                // The pause begins when the attempt is over. Otherwise a sink that fails slowly would be called all the
                // time.
                self.sent(at, waiting, sent, now + began.elapsed());
                if began.elapsed() >= TURN {
                    outbox.queue().end_driving();
                    break;
                }
            }
        }
    }

    /// Returns whether blocking sinks have more to do than they had time for.
    pub(in crate::report) fn is_behind(&self, now: Instant) -> bool {
        let waited_for = |outbox: &&Outbox| matches!(outbox.slot.sink, AnySink::Blocking(_));
        self.outboxes.iter().filter(waited_for).any(|outbox| outbox.queue().is_to_be_driven(now, &outbox.rules))
    }

    /// Spawns tasks on `runtime` that send everything that is due.
    pub(in crate::report) fn start_async_sinks(self: &Arc<Self>, runtime: &Handle, now: Instant) {
        for (at, outbox) in self.outboxes.iter().enumerate() {
            if matches!(outbox.slot.sink, AnySink::Async(_)) && outbox.queue().is_to_be_driven(now, &outbox.rules) {
                runtime.spawn(Arc::clone(self).drive(at));
            }
        }
    }

    /// Sends due reports to an async sink, one after the other.
    async fn drive(self: Arc<Self>, at: usize) {
        let outbox = &self.outboxes[at];
        let AnySink::Async(sink) = &outbox.slot.sink else { return };
        let Some(_guard) = outbox.begin_driving(clock()) else { return };
        while let Some(next) = outbox.next(clock()) {
            match next {
                Next::Batch(several) => self.send_batch(at, several).await,
                Next::Send(waiting) if self.is_told_elsewhere(at, &waiting) => {}
                Next::Send(waiting) => match outbox.load(&waiting) {
                    Ok((report, _)) if !sink.has_news(&report) => {
                        // This doesn't show that the sink works. But people know.
                        outbox.queue().not_sent();
                        self.told(at, &waiting.entry);
                    }
                    Ok((report, unreported)) => {
                        let sent = attempt(|| sink.deliver(&report)).await.map(|()| unreported);
                        self.sent(at, waiting, sent, clock());
                    }
                    Err(failure) => self.sent(at, waiting, Err(failure), clock()),
                },
                Next::Gather(waiting) => match outbox.load(&waiting) {
                    // The digest is about the report itself.
                    Ok((report, _)) if report.ending.is_none() && sink.has_news(&report) => {
                        self.gather(at, waiting, &report)
                    }
                    Ok(_) => self.told(at, &waiting.entry),
                    Err(failure) => self.not_gathered(at, waiting, &failure, clock()),
                },
                Next::Digest(mut gathered) => {
                    gathered.digest.lost = outbox.unreported();
                    let sent = attempt(|| sink.digest(&gathered.digest)).await;
                    self.digest_sent(at, gathered, sent, clock());
                }
            }
            // Thousands of reports may need no waiting, but each is read from a disk. Others get their turns in
            // between.
            tokio::task::yield_now().await;
        }
    }

    /// Takes over the reports that other processes left in the spool, now and then.
    pub(in crate::report) fn take_over(&self, now: Instant) {
        let Some(spool) = &self.spool else { return };
        spool.touch(now);
        if !due(&self.taken_over, TAKE_OVER_EVERY, now) {
            return;
        }
        let Found { taken: files, left, given_up, done } = spool.take_over(now, self.later);
        self.count_later(left, given_up);
        if let Err(error) = done {
            log_safely(
                || tracing::error!(target: TARGET, %error, "the spool cannot be searched for reports left behind"),
            );
        }
        let reports = files.len();
        for file in files {
            count(&self.counters.recovered);
            let taken_by = file.taken_by();
            let left = |at: &usize| !taken_by.contains(&self.outboxes[*at].slot.name);
            let sinks = (0..self.outboxes.len()).filter(left).collect();
            self.enqueue(Receipt::new(self.pending.open(&self.counters), sinks, Some(file)), None, now);
        }
        if reports > 0 {
            log_safely(
                || tracing::info!(target: TARGET, reports, "took over reports that a process left in the spool"),
            );
        }
    }

    /// Counts the reports of a later version in the spool, and those that were removed from it.
    fn count_later(&self, left: usize, given_up: u64) {
        let before = self.counters.set_left_to_later(left);
        if before == 0 && left > 0 {
            log_safely(|| {
                tracing::warn!(target: TARGET, reports = left, "a later version of heeler wrote reports that wait in the spool: they are left to a process of that version");
            });
        }
        if given_up > 0 {
            // Counted as if they had been taken over.
            add(&self.counters.recovered, given_up);
            add(&self.counters.undelivered, given_up);
            self.outboxes.iter().for_each(|outbox| outbox.lost(given_up));
            log_safely(|| {
                tracing::error!(target: TARGET, reports = given_up, "reports in the spool were removed: a later version of heeler wrote them, and no process of that version came for them");
            });
        }
    }

    /// Makes everything that waits due now, whatever the pauses and limits.
    pub(in crate::report) fn hurry(&self) {
        self.outboxes.iter().for_each(|outbox| outbox.queue().hurry());
        if let Some(gate) = &self.gate {
            gate.hurry();
        }
    }

    /// Waits until no report is on its way that was accepted before. Returns false if that takes longer than `left`
    /// returns some time.
    pub(in crate::report) fn wait(&self, left: &dyn Fn() -> Duration) -> bool {
        self.pending.wait(left)
    }

    /// Waits until the store of the fleet has everything that was counted before. Returns false if that takes longer than
    /// `left` returns some time.
    pub(in crate::report) fn wait_for_fleet(&self, left: &dyn Fn() -> Duration) -> bool {
        self.gate.as_ref().is_none_or(|gate| gate.wait(left))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::path::Path;

    use super::*;
    use crate::report::Digest;
    use crate::report::Sink;
    use crate::report::metrics::stats::Stats;
    use crate::report::model::fleet::FleetIncident;
    use crate::report::sink::{Delivery, DynAsyncSink};
    use crate::report::testing::{logged, report};

    /// What the fake does with one attempt.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Does {
        Take,
        Fail,
        Refuse,
        /// Panics before there is a future.
        PanicAtOnce,
        PanicInside,
        /// Panics with a value that itself panics.
        PanicTwice,
        PanicOnDrop,
        NeverEnd,
    }
    use Does::{Fail, NeverEnd, PanicAtOnce, PanicInside, PanicOnDrop, PanicTwice, Refuse, Take};

    /// A fake that follows a script, and then takes everything.
    struct Fake {
        name: &'static str,
        per_hour: Option<u32>,
        script: Mutex<VecDeque<Does>>,
        attempts: Mutex<Vec<Instant>>,
        taken: Mutex<Vec<Report>>,
        digests: Mutex<Vec<(u64, u64)>>,
    }

    impl Fake {
        fn new(name: &'static str, script: impl IntoIterator<Item = Does>) -> Arc<Self> {
            Self::limited(name, None, script)
        }

        fn limited(name: &'static str, per_hour: Option<u32>, script: impl IntoIterator<Item = Does>) -> Arc<Self> {
            Arc::new(Self {
                name,
                per_hour,
                script: Mutex::new(script.into_iter().collect()),
                attempts: Mutex::default(),
                taken: Mutex::default(),
                digests: Mutex::default(),
            })
        }

        fn next(&self) -> Does {
            self.attempts.lock().unwrap().push(clock());
            self.script.lock().unwrap().pop_front().unwrap_or(Take)
        }

        fn taken(&self) -> Vec<String> {
            self.taken.lock().unwrap().iter().map(|report| report.id.clone()).collect()
        }

        fn attempts(&self) -> usize {
            self.attempts.lock().unwrap().len()
        }
    }

    struct OnDrop;

    impl Drop for OnDrop {
        fn drop(&mut self) {
            panic!("still in use");
        }
    }

    impl DynAsyncSink for Arc<Fake> {
        fn name(&self) -> &str {
            self.name
        }

        fn tells_people(&self) -> bool {
            self.name == "people"
        }

        fn per_hour(&self) -> Option<u32> {
            self.per_hour
        }

        fn has_news(&self, report: &Report) -> bool {
            report.update == 0 || !self.taken().contains(&report.id)
        }

        fn deliver<'a>(&'a self, report: &'a Report) -> Delivery<'a> {
            let does = self.next();
            assert_ne!(does, PanicAtOnce, "on purpose");
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(10)).await;
                match does {
                    Take => self.taken.lock().unwrap().push(report.clone()),
                    Fail => return Err(SinkError::transient("down")),
                    Refuse => return Err(SinkError::permanent("refused")),
                    PanicAtOnce | PanicInside => panic!("on purpose"),
                    PanicTwice => std::panic::panic_any(OnDrop),
                    PanicOnDrop => {
                        let _held = OnDrop;
                        std::future::pending().await
                    }
                    NeverEnd => std::future::pending().await,
                }
                Ok(())
            })
        }

        fn digest<'a>(&'a self, digest: &'a Digest) -> Delivery<'a> {
            let does = self.next();
            Box::pin(async move {
                match does {
                    Take => self.digests.lock().unwrap().push((digest.reports, digest.lost)),
                    Fail => return Err(SinkError::transient("down")),
                    _ => return Err(SinkError::permanent("refused")),
                }
                Ok(())
            })
        }
    }

    /// A blocking sink.
    struct Waited(fn() -> Result<(), SinkError>);

    impl Sink for Waited {
        fn name(&self) -> &'static str {
            "waited"
        }

        fn deliver(&self, _: &Report) -> Result<(), SinkError> {
            (self.0)()
        }
    }

    fn dispatch(fakes: &[&Arc<Fake>], spool: Option<&Path>, limits: Limits) -> Arc<Dispatch> {
        let sinks = fakes.iter().map(|fake| AnySink::Async(Arc::new(Arc::clone(fake)))).collect();
        with_sinks(sinks, spool, limits)
    }

    fn with_sinks(sinks: Vec<AnySink>, spool: Option<&Path>, limits: Limits) -> Arc<Dispatch> {
        let spool = spool.map(|path| Spool::open(path).unwrap());
        Arc::new(Dispatch::new(sinks, spool, limits, Arc::default(), None))
    }

    fn with_id(id: impl std::fmt::Display) -> Report {
        Report { id: id.to_string(), fingerprint: id.to_string(), ..report() }
    }

    /// A gate that is only told about messages that have been decided before.
    #[derive(Default)]
    struct Noted(Mutex<Vec<(&'static str, u64)>>);

    impl Noted {
        fn taken(&self) -> Vec<(&'static str, u64)> {
            std::mem::take(&mut self.0.lock().unwrap())
        }
    }

    impl Gate for Noted {
        fn ask(&self, _: Question) {
            unreachable!("it is decided")
        }

        fn is_told_elsewhere(&self, _: &FleetIncident) -> bool {
            false
        }

        fn told(&self, incident: &FleetIncident) {
            self.0.lock().unwrap().push(("told", incident.number));
        }

        fn given_up(&self, incident: &FleetIncident) {
            self.0.lock().unwrap().push(("given up", incident.number));
        }

        fn hurry(&self) {}

        fn wait(&self, _: &dyn Fn() -> Duration) -> bool {
            true
        }
    }

    fn gated(fake: &Arc<Fake>, limits: Limits) -> (Arc<Dispatch>, Arc<Noted>) {
        let noted = Arc::<Noted>::default();
        let gate: Arc<dyn Gate> = noted.clone();
        let sinks = vec![AnySink::Async(Arc::new(Arc::clone(fake)))];
        (Arc::new(Dispatch::new(sinks, None, limits, Arc::default(), Some(gate))), noted)
    }

    fn of_fleet(number: u64) -> Report {
        let incident = FleetIncident { number, ..FleetIncident::default() };
        Report { fleet: Some(Box::new(incident)), ..with_id(number) }
    }

    /// Guards: a message that goes into a digest is told like one that is sent alone, and given up like one.
    #[tokio::test(start_paused = true)]
    async fn the_gate_hears_of_messages_in_a_digest() {
        let fake = Fake::limited("people", Some(1), [Take, Take, Take, Refuse]);
        let (dispatch, noted) = gated(&fake, Limits::default());
        for told in [["told", "told", "told"], ["told", "given up", "given up"]] {
            (1..4).for_each(|number| dispatch.accept(of_fleet(number), clock()));
            turn(&dispatch, 2).await;
            dispatch.hurry();
            turn(&dispatch, 2).await;
            let expected: Vec<_> = told.into_iter().zip(1..4).collect();
            assert_eq!(noted.taken(), expected);
            tokio::time::sleep(2 * super::super::queue::HOUR).await;
        }
        assert_eq!(fake.digests.lock().unwrap().len(), 1);
    }

    /// Guards: the gate hears of each message that people do not get, whatever the reason.
    #[tokio::test(start_paused = true)]
    async fn the_gate_hears_of_messages_that_are_given_up() {
        let fake = Fake::new("people", [Refuse, Fail]);
        let limits = Limits { queue: 2, retry_for: Duration::ZERO, ..Limits::default() };
        let (dispatch, noted) = gated(&fake, limits);
        dispatch.accept(of_fleet(1), clock());
        turn(&dispatch, 2).await;
        dispatch.accept(of_fleet(2), clock());
        turn(&dispatch, 2).await;
        assert_eq!(noted.taken(), [("given up", 1), ("given up", 2)], "refused, and tried for long enough");
        (3..6).for_each(|number| dispatch.accept(of_fleet(number), clock()));
        assert_eq!(noted.taken(), [("given up", 3)], "there is no room for it");
    }

    /// Guards: a message that the sink has sent before counts as told. Otherwise the fleet would wait for it for ever.
    #[tokio::test(start_paused = true)]
    async fn the_gate_hears_of_messages_that_are_no_news() {
        let fake = Fake::new("people", []);
        let (dispatch, noted) = gated(&fake, Limits::default());
        for update in [1, 2] {
            dispatch.accept(Report { update, ..of_fleet(1) }, clock());
            turn(&dispatch, 2).await;
        }
        assert_eq!((fake.taken().len(), noted.taken()), (1, vec![("told", 1), ("told", 1)]));
    }

    /// A sink that takes as many reports at once as have so many bytes.
    struct Several(usize, Mutex<Vec<usize>>);

    impl DynAsyncSink for Arc<Several> {
        fn name(&self) -> &'static str {
            "several"
        }

        fn batch(&self) -> Option<crate::report::sink::Batch> {
            Some(crate::report::sink::Batch { age: Duration::ZERO, reports: 100, bytes: self.0 })
        }

        fn deliver<'a>(&'a self, _: &'a Report) -> Delivery<'a> {
            unreachable!("it takes several")
        }

        fn deliver_all<'a>(&'a self, reports: &'a [Arc<Report>]) -> Delivery<'a> {
            self.1.lock().unwrap().push(reports.len());
            Box::pin(std::future::ready(Ok(())))
        }
    }

    /// Guards: after a restart, reports that are in the spool alone are not all read into memory for one batch.
    #[tokio::test(start_paused = true)]
    async fn a_batch_from_the_spool_is_bounded() {
        let place = tempfile::tempdir().unwrap();
        let large = |id: u64| Report { notes: vec!["x".repeat(100_000)], ..with_id(id) };
        let before = dispatch(&[&Fake::new("several", [NeverEnd])], Some(place.path()), Limits::default());
        (0..5).for_each(|id| before.accept(large(id), clock()));
        drop(before);
        let several = Arc::new(Several(2 * large(0).size() + 1_000, Mutex::default()));
        let dispatch =
            with_sinks(vec![AnySink::Async(Arc::new(Arc::clone(&several)))], Some(place.path()), Limits::default());
        dispatch.take_over(clock());
        turn(&dispatch, 5).await;
        assert_eq!(*several.1.lock().unwrap(), [2, 2, 1]);
        assert_eq!(stats(&dispatch, 0).delivered, 5);
    }

    /// Guards: an update that says nothing new is taken without being sent, doesn't count against a limit, and isn't in
    /// a digest.
    #[tokio::test(start_paused = true)]
    async fn updates_without_news_are_not_sent() {
        let fake = Fake::limited("async", Some(2), []);
        let dispatch = dispatch(&[&fake], None, Limits::default());
        for (id, update) in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0)] {
            dispatch.accept(Report { update, ..with_id(id) }, clock());
        }
        turn(&dispatch, 2).await;
        assert_eq!(fake.taken(), ["0", "1"]);
        assert_eq!(stats(&dispatch, 6).queued, 1, "the last is beyond the limit");
        dispatch.hurry();
        turn(&dispatch, 2).await;
        assert_eq!(*fake.digests.lock().unwrap(), [(1, 0)]);
        assert_eq!(stats(&dispatch, 6).delivered, 6);
    }

    /// Does what the reporter does, until no report is on its way, or for this many seconds.
    async fn turn(dispatch: &Arc<Dispatch>, seconds: u64) {
        for _ in 0..seconds {
            dispatch.call_sinks(clock());
            dispatch.start_async_sinks(&Handle::current(), clock());
            if !dispatch.is_busy() {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Reads the counters, and checks that they add up.
    fn stats(dispatch: &Dispatch, accepted: u64) -> Stats {
        let stats = dispatch.counters.read();
        assert_eq!(accepted + stats.recovered, stats.delivered + stats.undelivered + stats.queued, "{stats:?}");
        stats
    }

    fn files(spool: &Path, extension: &str) -> Vec<String> {
        let folders = std::fs::read_dir(spool).unwrap().flatten().map(|folder| folder.path());
        let files =
            folders.filter(|path| path.is_dir()).flat_map(|folder| std::fs::read_dir(folder).unwrap().flatten());
        let names = files.map(|file| file.file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(extension)).collect()
    }

    const HOUR: u64 = 60 * 60;

    /// Guards: a report that fails temporarily is tried again after a growing pause, and arrives once.
    #[tokio::test(start_paused = true)]
    async fn retries_after_a_temporary_failure() {
        let fake = Fake::new("async", [Fail, Fail, Fail]);
        let dispatch = dispatch(&[&fake], None, Limits::default());
        dispatch.accept(with_id("a"), clock());
        turn(&dispatch, 60).await;
        assert_eq!(fake.taken(), ["a"]);
        let attempts = fake.attempts.lock().unwrap().clone();
        let pauses: Vec<f64> = attempts.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
        // 1, 2 and 4 seconds, each shorter or longer by up to a half, and checked once a second.
        for (pause, expected) in pauses.iter().zip([0.5..2.6, 1.0..4.1, 2.0..7.1]) {
            assert!(expected.contains(pause), "{pauses:?}");
        }
        let stats = stats(&dispatch, 1);
        assert_eq!((stats.delivered, stats.failed_deliveries), (1, 3));
    }

    /// Guards: an update that isn't even sent says nothing about a sink that is down. The pause goes on.
    #[tokio::test(start_paused = true)]
    async fn an_update_without_news_does_not_end_a_pause() {
        let fake = Fake::new("async", [Take]);
        let dispatch = dispatch(&[&fake], None, Limits::default());
        dispatch.accept(with_id("a"), clock());
        turn(&dispatch, 5).await;
        fake.script.lock().unwrap().resize(1_000, Fail);
        dispatch.accept(with_id("b"), clock());
        for update in 1..60 {
            turn(&dispatch, 1).await;
            dispatch.accept(Report { update, ..with_id("a") }, clock());
        }
        // Pauses of 1, 2, 4, .. seconds.
        assert!((4..10).contains(&fake.attempts()), "{}", fake.attempts());
    }

    #[test]
    fn the_spool_is_searched_only_now_and_then() {
        let (last, start) = (Mutex::default(), Instant::now());
        let asked = [0, 59, 60, 61, 119, 120]
            .map(|second| due(&last, TAKE_OVER_EVERY * 2, start + Duration::from_secs(second)));
        assert_eq!(asked, [true, false, true, false, false, true]);
    }

    /// Guards: a minute without a server costs nothing. All reports arrive, each once, within the longest possible
    /// pause.
    #[tokio::test(start_paused = true)]
    async fn a_short_outage_loses_nothing() {
        let fake = Fake::new("async", []);
        let dispatch = dispatch(&[&fake], None, Limits::default());
        let began = clock();
        for number in 0..100 {
            dispatch.accept(with_id(number), clock());
        }
        while clock() - began < Duration::from_secs(60) {
            // Every attempt fails.
            fake.script.lock().unwrap().resize(1, Fail);
            turn(&dispatch, 1).await;
        }
        fake.script.lock().unwrap().clear();
        assert!(fake.taken().is_empty() && (3..20).contains(&fake.attempts()), "{}", fake.attempts());
        turn(&dispatch, 120).await;
        let mut taken: Vec<u32> = fake.taken().iter().map(|id| id.parse().unwrap()).collect();
        taken.sort_unstable();
        assert_eq!(taken, Vec::from_iter(0..100));
        assert_eq!(stats(&dispatch, 100).delivered, 100);
    }

    /// Guards: a report that is refused for good, or whose sink panics anywhere, is given up and counted. It doesn't
    /// hold up the others, and the next report that arrives mentions it.
    #[tokio::test(start_paused = true)]
    async fn refusals_and_panics_give_up_and_count() {
        for does in [Refuse, PanicAtOnce, PanicInside, PanicTwice] {
            let (fake, other) = (Fake::new("async", [does]), Fake::new("other", []));
            let dispatch = dispatch(&[&fake, &other], None, Limits::default());
            dispatch.accept(with_id("a"), clock());
            dispatch.accept(with_id("b"), clock());
            turn(&dispatch, 5).await;
            assert_eq!((fake.taken(), other.taken()), (vec!["b".to_owned()], vec!["a".to_owned(), "b".to_owned()]));
            let note = |fake: &Fake| fake.taken.lock().unwrap().last().unwrap().notes.join(";");
            assert!(note(&fake).starts_with("1 report before this one was lost on the way to async"), "{does:?}");
            assert_eq!(note(&other), "", "it has lost nothing");
            let stats = stats(&dispatch, 2);
            assert_eq!((stats.delivered, stats.undelivered, stats.failed_deliveries), (1, 1, 1), "{does:?}");
        }
    }

    /// Guards: an attempt that never ends, even one that panics when it is dropped, is ended after five minutes, and
    /// tried again. Other sinks don't wait for it.
    #[tokio::test(start_paused = true)]
    async fn an_endless_attempt_is_given_up() {
        for does in [NeverEnd, PanicOnDrop] {
            let (fake, other) = (Fake::new("async", [does]), Fake::new("other", []));
            let dispatch = dispatch(&[&fake, &other], None, Limits::default());
            let began = clock();
            dispatch.accept(with_id("a"), began);
            turn(&dispatch, 10).await;
            assert_eq!(other.taken(), ["a"]);
            turn(&dispatch, 600).await;
            assert_eq!(fake.taken(), ["a"]);
            assert!((300..305).contains(&(clock() - began).as_secs()), "{does:?}");
            let stats = stats(&dispatch, 1);
            assert_eq!((stats.delivered, stats.failed_deliveries), (1, 1));
        }
    }

    /// Guards: a sink that is down for days gives up report by report, and doesn't affect the others.
    #[tokio::test(start_paused = true)]
    async fn a_dead_sink_does_not_disturb_another() {
        let (down, other) = (Fake::new("down", [Fail; 10_000]), Fake::new("other", []));
        let limits = Limits { retry_for: Duration::from_secs(HOUR), ..Limits::default() };
        let dispatch = dispatch(&[&down, &other], None, limits);
        for number in 0..3 {
            dispatch.accept(with_id(number), clock());
        }
        turn(&dispatch, 1).await;
        assert_eq!(other.taken(), ["0", "1", "2"]);
        assert_eq!(stats(&dispatch, 3).queued, 3, "not everybody has them");
        turn(&dispatch, 2 * HOUR).await;
        let stats = stats(&dispatch, 3);
        assert_eq!((stats.delivered, stats.undelivered, stats.queued), (0, 3, 0));
        assert!((12..60).contains(&down.attempts()), "{}", down.attempts());
    }

    /// Guards: beyond the hourly limit, one digest is sent at the end of the hour. When the process ends it is sent at
    /// once.
    #[tokio::test(start_paused = true)]
    async fn sends_one_digest_beyond_the_hourly_limit() {
        let fake = Fake::limited("async", Some(2), []);
        let dispatch = dispatch(&[&fake], None, Limits::default());
        let began = clock();
        for number in 0..5 {
            dispatch.accept(with_id(number), clock());
        }
        turn(&dispatch, 10).await;
        assert_eq!(fake.taken(), ["0", "1"]);
        assert_eq!(stats(&dispatch, 5).queued, 3);
        // The digest fails once.
        fake.script.lock().unwrap().push_back(Fail);
        turn(&dispatch, 2 * HOUR).await;
        assert_eq!(*fake.digests.lock().unwrap(), [(3, 0)]);
        assert!((HOUR..HOUR + 10).contains(&(clock() - began).as_secs()));
        assert_eq!(stats(&dispatch, 5).delivered, 5);

        // The digest was the first delivery of this hour.
        for number in 5..8 {
            dispatch.accept(with_id(number), clock());
        }
        turn(&dispatch, 10).await;
        assert_eq!(fake.taken(), ["0", "1", "5"]);
        dispatch.hurry();
        turn(&dispatch, 10).await;
        assert_eq!(*fake.digests.lock().unwrap(), [(3, 0), (2, 0)]);
        assert_eq!(stats(&dispatch, 8).delivered, 8);
    }

    /// Guards: a flush that comes while the last report is being gathered doesn't wait for the end of the hour.
    #[tokio::test(start_paused = true)]
    async fn a_flush_does_not_wait_for_the_hour() {
        let fake = Fake::limited("async", Some(1), []);
        let dispatch = dispatch(&[&fake], None, Limits::default());
        dispatch.accept(with_id(0), clock());
        turn(&dispatch, 10).await;
        dispatch.accept(with_id(1), clock());
        let outbox = &dispatch.outboxes[0];
        let driver_guard = outbox.begin_driving(clock()).unwrap();
        let Some(Next::Gather(waiting)) = outbox.next(clock()) else { panic!("beyond the limit") };
        dispatch.hurry();
        let (report, _) = outbox.load(&waiting).unwrap();
        dispatch.gather(0, waiting, &report);
        assert!(matches!(outbox.next(clock()), Some(Next::Digest(_))));
        drop(driver_guard);
    }

    /// Guards: while only digests are sent, they mention lost reports once.
    #[tokio::test(start_paused = true)]
    async fn a_digest_mentions_lost_reports_once() {
        let fake = Fake::limited("async", Some(1), [Take, Fail]);
        let dispatch = dispatch(&[&fake], None, Limits::default());
        (0..3).for_each(|id| dispatch.accept(with_id(id), clock()));
        turn(&dispatch, 2).await;
        dispatch.lost();
        dispatch.hurry();
        turn(&dispatch, 10).await;
        assert_eq!(*fake.digests.lock().unwrap(), [(2, 1)]);
        dispatch.accept(with_id(3), clock());
        dispatch.hurry();
        turn(&dispatch, 10).await;
        assert_eq!(*fake.digests.lock().unwrap(), [(2, 1), (1, 0)]);
    }

    /// Guards: when too many reports wait, the oldest is dropped and counted, and mentioned once. So are captures that
    /// were lost before they became reports.
    #[tokio::test(start_paused = true)]
    async fn drops_the_oldest_report_when_the_queue_is_full() {
        let fake = Fake::new("async", [Fail]);
        let dispatch = dispatch(&[&fake], None, Limits { queue: 3, ..Limits::default() });
        for number in 0..10 {
            dispatch.accept(with_id(number), clock());
        }
        dispatch.lost();
        assert_eq!(stats(&dispatch, 10).undelivered, 7);
        turn(&dispatch, 60).await;
        assert_eq!(fake.taken(), ["8", "9", "7"]);
        let taken = fake.taken.lock().unwrap().clone();
        assert!(taken[0].notes.concat().starts_with("8 reports before this one were lost"), "{:?}", taken[0].notes);
        assert!(taken[1..].iter().all(|report| report.notes.is_empty()), "said once");
        assert_eq!(stats(&dispatch, 10).delivered, 3);
    }

    /// Guards: while one of four sinks is down, the counts show that the three others have everything.
    #[tokio::test(start_paused = true)]
    async fn deliveries_are_counted_by_sink() {
        let (down, refuses) = (Fake::new("down", [Fail; 3]), Fake::new("refuses", [Refuse]));
        let (good, same) = (Fake::new("good", []), Fake::new("good", []));
        let dispatch = dispatch(&[&good, &down, &refuses, &same], None, Limits::default());
        dispatch.accept(with_id("a"), clock());
        turn(&dispatch, 1).await;
        let seen = || {
            let sinks = dispatch
                .sinks()
                .map(|sink| (sink.name, [sink.delivered, sink.undelivered, sink.queued, sink.failed_deliveries]));
            sinks.collect::<Vec<_>>()
        };
        let named = |counts: [[u64; 4]; 4]| {
            ["good", "down", "refuses", "good 2"].map(str::to_owned).into_iter().zip(counts).collect::<Vec<_>>()
        };
        assert_eq!(seen(), named([[1, 0, 0, 0], [0, 0, 1, 1], [0, 1, 0, 1], [1, 0, 0, 0]]));
        let stats_now = stats(&dispatch, 1);
        assert_eq!((stats_now.delivered, stats_now.deliveries, stats_now.queued), (0, 2, 1));
        dispatch.accept(with_id("b"), clock());
        turn(&dispatch, 60).await;
        assert_eq!(seen(), named([[2, 0, 0, 0], [2, 0, 0, 3], [1, 1, 0, 1], [2, 0, 0, 0]]));
        let stats = stats(&dispatch, 2);
        assert_eq!((stats.delivered, stats.deliveries, stats.undelivered), (1, 7, 1));
    }

    /// Guards: reports of any size that wait for a hanging sink take bounded memory, and a report that two sinks wait
    /// for counts once. The oldest are dropped first, counted and mentioned.
    #[tokio::test(start_paused = true)]
    async fn waiting_reports_take_bounded_memory() {
        let (hangs, other) = (Fake::new("hangs", [NeverEnd]), Fake::new("other", [NeverEnd]));
        let large = |number: u64| Report { job: Some("x".repeat(100_000)), ..with_id(number) };
        let limits = Limits { memory: 2_500_000, ..Limits::default() };
        let dispatch = dispatch(&[&hangs, &other], None, limits);
        for number in 0..100 {
            dispatch.accept(large(number), clock());
            dispatch.start_async_sinks(&Handle::current(), clock());
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert!(dispatch.memory.bytes() <= 1_250_000, "{}", dispatch.memory.bytes());
        }
        let stats = stats(&dispatch, 100);
        assert_eq!((stats.queued, stats.undelivered), (11, 89), "one of 107 kB is being sent, and ten wait");
        turn(&dispatch, 600).await;
        let expected: Vec<String> = (90..100).chain([0]).map(|number| number.to_string()).collect();
        for fake in [&hangs, &other] {
            assert_eq!(fake.taken(), expected, "the newest");
            let notes = fake.taken.lock().unwrap()[0].notes.concat();
            assert!(notes.starts_with("89 reports before this one were lost"), "{notes}");
        }
        assert_eq!(dispatch.memory.bytes(), 0);
        dispatch.accept(Report { job: Some("x".repeat(3_000_000)), ..with_id("huge") }, clock());
        turn(&dispatch, 600).await;
        assert_eq!(hangs.taken().last().unwrap(), "huge", "one that is larger than all that may wait is sent, too");
    }

    /// Guards: with a spool, no report is lost for lack of memory.
    #[tokio::test(start_paused = true)]
    async fn spooled_reports_need_no_memory() {
        let place = tempfile::tempdir().unwrap();
        let hangs = Fake::new("hangs", [NeverEnd]);
        let limits = Limits { memory: 1_000_000, ..Limits::default() };
        let dispatch = dispatch(&[&hangs], Some(place.path()), limits);
        for number in 0..40 {
            dispatch.accept(Report { job: Some("x".repeat(100_000)), ..with_id(number) }, clock());
            assert!(dispatch.memory.bytes() <= 500_000, "{}", dispatch.memory.bytes());
        }
        turn(&dispatch, 600).await;
        assert_eq!((hangs.taken().len(), stats(&dispatch, 40).delivered), (40, 40));
    }

    /// Guards: of ten thousand reports at once for a sink that is down, as many as may wait arrive later. The rest are
    /// counted and mentioned.
    #[tokio::test(start_paused = true)]
    async fn a_flood_is_delivered_or_counted() {
        let down = Fake::new("down", [Fail; 3]);
        let sinks = vec![AnySink::Blocking(Arc::new(Waited(|| Ok(())))), AnySink::Async(Arc::new(Arc::clone(&down)))];
        let dispatch = with_sinks(sinks, None, Limits::default());
        for number in 0..10_000 {
            dispatch.accept(with_id(number), clock());
            // As the reporter does between two reports.
            dispatch.start_async_sinks(&Handle::current(), clock());
            if number % 500 == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        turn(&dispatch, 300).await;
        let stats = stats(&dispatch, 10_000);
        assert_eq!(stats.queued, 0);
        assert!((1_000..1_010).contains(&stats.delivered), "{stats:?}");
        assert_eq!(down.taken().len() as u64, stats.delivered);
        let told: Vec<u64> = down
            .taken
            .lock()
            .unwrap()
            .iter()
            .flat_map(|report| report.notes.clone())
            .map(|note| note.split(' ').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(told, [stats.undelivered]);
    }

    /// Guards: reports that are in the spool make room in memory for those that a full disk could not take.
    #[tokio::test(start_paused = true)]
    async fn spooled_reports_make_room_in_a_full_queue() {
        let place = tempfile::tempdir().unwrap();
        let fake = Fake::new("async", []);
        let dispatch = dispatch(&[&fake], Some(place.path()), Limits { queue: 2, ..Limits::default() });
        (0..5).for_each(|number| dispatch.accept(with_id(number), clock()));
        let own = std::fs::read_dir(place.path()).unwrap().next().unwrap().unwrap().path();
        // Nothing can be written for a while.
        let away = own.with_extension("away");
        std::fs::rename(&own, &away).unwrap();
        std::fs::write(&own, b"in the way").unwrap();
        (5..8).for_each(|number| dispatch.accept(with_id(number), clock()));
        std::fs::remove_file(&own).unwrap();
        std::fs::rename(&away, &own).unwrap();
        assert_eq!(stats(&dispatch, 8).not_spooled, 3);
        turn(&dispatch, 10).await;
        assert_eq!(
            fake.taken(),
            ["0", "1", "2", "3", "4", "6", "7"],
            "room for two: the oldest that is nowhere else goes"
        );
        let stats = stats(&dispatch, 8);
        assert_eq!((stats.delivered, stats.undelivered), (7, 1));
    }

    /// Guards: reports that were taken over and are in the spool take no room in memory from those that a full disk
    /// refuses.
    #[tokio::test(start_paused = true)]
    async fn recovered_reports_take_no_room_in_memory() {
        let place = tempfile::tempdir().unwrap();
        let gone = Spool::open(place.path()).unwrap();
        (0..3).for_each(|number| drop(gone.write(&with_id(number)).unwrap()));
        drop(gone);
        let fake = Fake::new("async", []);
        let dispatch = dispatch(&[&fake], Some(place.path()), Limits { queue: 2, ..Limits::default() });
        dispatch.take_over(clock());
        let own = std::fs::read_dir(place.path()).unwrap().next().unwrap().unwrap().path();
        let away = own.with_extension("away");
        std::fs::rename(&own, &away).unwrap();
        std::fs::write(&own, b"in the way").unwrap();
        (3..5).for_each(|number| dispatch.accept(with_id(number), clock()));
        std::fs::remove_file(&own).unwrap();
        std::fs::rename(&away, &own).unwrap();
        turn(&dispatch, 10).await;
        assert_eq!(fake.taken(), ["0", "1", "2", "3", "4"]);
        assert_eq!(stats(&dispatch, 2).delivered, 5);
    }

    /// Guards: a file stays until the last sink has its report, and says which ones already have it.
    #[tokio::test(start_paused = true)]
    async fn a_file_stays_until_every_sink_has_it() {
        let place = tempfile::tempdir().unwrap();
        let (down, other) = (Fake::new("down", [Fail]), Fake::new("other", []));
        let dispatch = dispatch(&[&down, &other], Some(place.path()), Limits::default());
        dispatch.accept(with_id("a"), clock());
        assert_eq!(files(place.path(), "json"), ["000000000000-a.0.json"], "before the first attempt");
        turn(&dispatch, 1).await;
        assert_eq!(other.taken(), ["a"]);
        assert_eq!(files(place.path(), "json").len(), 1);
        assert_eq!(files(place.path(), "taken").len(), 1);
        turn(&dispatch, 10).await;
        assert_eq!(down.taken(), ["a"]);
        assert_eq!(files(place.path(), ""), ["lock"]);
    }

    /// Guards: reports that a process left behind go only to the sinks that don't have them.
    #[tokio::test(start_paused = true)]
    async fn a_successor_delivers_only_what_is_missing() {
        let place = tempfile::tempdir().unwrap();
        let gone =
            dispatch(&[&Fake::new("down", [Fail; 9]), &Fake::new("other", [])], Some(place.path()), Limits::default());
        gone.accept(with_id("a"), clock());
        turn(&gone, 3).await;
        drop(gone);

        let (down, other, third) = (Fake::new("down", []), Fake::new("other", []), Fake::new("third", []));
        let next = dispatch(&[&down, &other, &third], Some(place.path()), Limits::default());
        next.take_over(clock());
        turn(&next, 3).await;
        assert_eq!((down.taken(), other.taken()), (vec!["a".to_owned()], vec![]));
        assert_eq!(third.taken(), ["a"], "which is new");
        let stats = stats(&next, 0);
        assert_eq!((stats.recovered, stats.delivered), (1, 1));
        assert_eq!(files(place.path(), ""), ["lock"]);
    }

    /// Guards: reports of a later version that no process takes are counted, logged once, and given up in the end, with
    /// a count.
    #[tokio::test(start_paused = true)]
    async fn reports_of_a_later_version_are_counted_and_expire() {
        let place = tempfile::tempdir().unwrap();
        let newer = Spool::open(place.path()).unwrap();
        for number in 0..3 {
            newer.write_of_a_later_version(&with_id(number));
        }
        drop(newer);
        let fake = Fake::new("async", []);
        let limits = Limits { retry_for: Duration::from_secs(2 * HOUR), ..Limits::default() };
        let old = dispatch(&[&fake], Some(place.path()), limits);
        let began = clock();
        let look = |seconds: u64| old.take_over(began + Duration::from_secs(seconds));
        let log = logged(|| (0..4).for_each(|turn| look(turn * 60)));
        assert_eq!(log.matches("a later version of heeler wrote reports").count(), 1, "{log}");
        assert!(log.contains("reports=3"), "{log}");
        assert_eq!((stats(&old, 0).left_to_later_version, stats(&old, 0).recovered), (3, 0));
        look(2 * HOUR - 1);
        assert_eq!(files(place.path(), "json").len(), 3);
        let log = logged(|| look(2 * HOUR + 60));
        assert!(log.contains("reports in the spool were removed"), "{log}");
        let counted = stats(&old, 0);
        assert_eq!((counted.left_to_later_version, counted.recovered, counted.undelivered), (0, 3, 3));
        assert_eq!(files(place.path(), ""), ["lock"], "its own");
        old.accept(with_id("a"), clock());
        turn(&old, 3).await;
        let taken = fake.taken.lock().unwrap();
        assert!(taken[0].notes[0].starts_with("3 reports before this one were lost"), "{:?}", taken[0].notes);
    }

    /// Guards: reports of a later version are bounded in number, too, and the oldest are removed.
    #[tokio::test(start_paused = true)]
    async fn the_oldest_reports_of_a_later_version_go_first() {
        let place = tempfile::tempdir().unwrap();
        let old = Spool::open(place.path()).unwrap();
        let newer = Spool::open(place.path()).unwrap();
        for number in 0..5 {
            let file = newer.write_of_a_later_version(&with_id(number));
            let at = std::time::SystemTime::now() - Duration::from_secs(100 - number);
            std::fs::File::options().write(true).open(&file.path).unwrap().set_modified(at).unwrap();
        }
        drop(newer);
        let bounds = Bounds { reports: 2, bytes: LATER_BYTES, time: Duration::from_secs(HOUR) };
        let found = old.take_over(Instant::now(), bounds);
        assert_eq!((found.taken.len(), found.left, found.given_up), (0, 2, 3));
        let mut left = files(place.path(), "json");
        left.sort();
        assert_eq!(left, ["000000000003-3.0.json", "000000000004-4.0.json"]);
    }

    /// Guards: a file in the spool that is longer than any report is not read. It is set aside and counted.
    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_too_long_is_set_aside() {
        let place = tempfile::tempdir().unwrap();
        let gone = Spool::open(place.path()).unwrap();
        let long = gone.write(&with_id("long")).unwrap();
        let mut text = std::fs::read(&long.path).unwrap();
        // Still a report, if it were read.
        text.resize(crate::report::delivery::spool::LONGEST as usize + 1, b' ');
        std::fs::write(&long.path, text).unwrap();
        // The same for a later version.
        let later = gone.write_of_a_later_version(&with_id("later"));
        let length = crate::report::delivery::spool::LONGEST + 1;
        std::fs::File::options().write(true).open(&later.path).unwrap().set_len(length).unwrap();
        gone.write(&with_id("a")).unwrap();
        drop(gone);
        let fake = Fake::new("async", []);
        let dispatch = dispatch(&[&fake], Some(place.path()), Limits::default());
        dispatch.take_over(clock());
        turn(&dispatch, 10).await;
        assert_eq!(fake.taken(), ["a"]);
        let stats = stats(&dispatch, 0);
        assert_eq!((stats.recovered, stats.delivered, stats.undelivered), (3, 1, 2));
        assert_eq!(std::fs::read_dir(place.path().join("unreadable")).unwrap().count(), 2);
    }

    /// Guards: any running process searches the spool every half a minute.
    #[tokio::test(start_paused = true)]
    async fn a_sibling_takes_over() {
        let place = tempfile::tempdir().unwrap();
        let fake = Fake::new("async", []);
        let sibling = dispatch(&[&fake], Some(place.path()), Limits::default());
        sibling.take_over(clock());
        let killed = Spool::open(place.path()).unwrap();
        killed.write(&with_id("a")).unwrap();
        drop(killed);
        tokio::time::sleep(Duration::from_secs(29)).await;
        sibling.take_over(clock());
        assert!(!sibling.is_busy());
        tokio::time::sleep(Duration::from_secs(1)).await;
        sibling.take_over(clock());
        turn(&sibling, 3).await;
        assert_eq!(fake.taken(), ["a"]);
    }

    /// Guards: the spool tells sinks apart whatever their names are.
    #[tokio::test(start_paused = true)]
    async fn sinks_with_equal_names_are_told_apart() {
        let fakes = ["same", "same", "same 2", "same"].map(|name| Fake::new(name, []));
        let dispatch = dispatch(&fakes.each_ref(), None, Limits::default());
        assert_eq!(dispatch.names().collect::<Vec<_>>(), ["same", "same 2", "same 2 2", "same 3"]);
    }

    /// Guards: after a blocking sink took long and failed, its pause starts from then on. A sink that panics doesn't
    /// affect the others.
    #[test]
    fn a_blocking_sink_is_left_alone_after_a_failure() {
        let slow = Waited(|| {
            std::thread::sleep(Duration::from_millis(700));
            Err("down".into())
        });
        let sinks =
            [slow, Waited(|| panic!("on purpose")), Waited(|| Ok(()))].map(|sink| AnySink::Blocking(Arc::new(sink)));
        let dispatch = with_sinks(sinks.into(), None, Limits::default());
        let now = Instant::now();
        dispatch.accept(with_id("a"), now);
        assert_eq!(stats(&dispatch, 1).failed_deliveries, 2);
        dispatch.call_sinks(now + Duration::from_millis(1_100));
        assert_eq!(stats(&dispatch, 1).failed_deliveries, 2, "its pause has just begun");
        dispatch.call_sinks(now + Duration::from_secs(60));
        let stats = stats(&dispatch, 1);
        assert_eq!((stats.failed_deliveries, stats.queued), (3, 1));
    }

    /// Guards: a sink with a backlog gives way to others, and continues where it stopped.
    #[test]
    fn a_backlog_gives_way_to_other_sinks() {
        let slow = Waited(|| {
            std::thread::sleep(TURN / 3);
            Ok(())
        });
        let dispatch = with_sinks(vec![AnySink::Blocking(Arc::new(slow))], None, Limits::default());
        let (outbox, now) = (&dispatch.outboxes[0], Instant::now());
        for _ in 0..5 {
            let receipt = Arc::new(Receipt::new(dispatch.pending.open(&dispatch.counters), [0].into(), None));
            assert!(
                outbox
                    .queue()
                    .push(Entry { receipt, report: Some(Memory::default().keep(report())), fleet: None }, &outbox.rules)
                    .is_none()
            );
        }
        dispatch.call_sinks(now);
        assert!((1..=3).contains(&stats(&dispatch, 5).delivered));
        while dispatch.is_behind(now) {
            dispatch.call_sinks(now);
        }
        assert_eq!(stats(&dispatch, 5).delivered, 5);
    }

    /// Guards: a driver that panics leaves the queue to the next one.
    #[test]
    fn a_panicking_driver_leaves_the_queue_usable() {
        let dispatch = with_sinks(vec![AnySink::Blocking(Arc::new(Waited(|| Ok(()))))], None, Limits::default());
        let outbox = &dispatch.outboxes[0];
        let receipt = Arc::new(Receipt::new(dispatch.pending.open(&dispatch.counters), [0].into(), None));
        assert!(
            outbox
                .queue()
                .push(Entry { receipt, report: Some(Memory::default().keep(report())), fleet: None }, &outbox.rules)
                .is_none()
        );
        let panics = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _guard = outbox.begin_driving(Instant::now()).unwrap();
            panic!("on purpose");
        }));
        assert!(panics.is_err());
        dispatch.call_sinks(Instant::now());
        assert_eq!(stats(&dispatch, 1).delivered, 1);
    }
}
