//! Who gets a report, and what became of it.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::guard::attempt;
use super::outbox::Outbox;
use super::queue::{Failed, Gathered, Next, Rules, Waiting};
use super::receipt::{Entry, Outcome, Receipt, Standing};
use super::slot::{Outlet, Slot, call};
use super::spool::Spool;
use crate::report::sink::{Failure, TARGET};
use crate::report::stats::{Counters, count};
use crate::report::{Report, log_safely};
use crate::sync::lock_std;

/// How often the spool is searched for what other processes left behind.
const TAKE_OVER_EVERY: Duration = Duration::from_secs(30);

/// Reports in the spool that may wait for one sink.
const MAX_SPOOLED: usize = 10_000;

/// How much may wait, and for how long.
#[derive(Debug, Clone, Copy)]
pub(in crate::report) struct Limits {
    /// Reports that may wait for one sink in memory.
    pub(in crate::report) queue: usize,
    /// How long a report is tried again that a sink did not take.
    pub(in crate::report) retry_for: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { queue: 1_000, retry_for: Duration::from_secs(3 * 24 * 60 * 60) }
    }
}

/// All sinks of some [`Reports`](crate::Reports), and the reports on their way to them.
pub(in crate::report) struct Dispatch {
    outboxes: Vec<Outbox>,
    spool: Option<Spool>,
    taken_over: Mutex<Option<Instant>>,
    counters: Arc<Counters>,
    pending: Mutex<Pending>,
    settled: Condvar,
}

/// The numbers of reports that not every sink has.
#[derive(Debug, Default)]
struct Pending {
    numbers: BTreeSet<u64>,
    next: u64,
}

impl Dispatch {
    pub(in crate::report) fn new(
        outlets: Vec<Outlet>,
        spool: Option<Spool>,
        limits: Limits,
        counters: Arc<Counters>,
    ) -> Self {
        let mut names = HashSet::new();
        let outbox = |outlet| {
            let mut slot = Slot::new(outlet);
            // The spool knows sinks by name.
            let (name, mut number) = (slot.name.clone(), 1);
            while !names.insert(slot.name.clone()) {
                number += 1;
                slot.name = format!("{name} {number}");
            }
            let rules = Rules {
                capacity: limits.queue,
                spooled: limits.queue.max(MAX_SPOOLED),
                retry_for: limits.retry_for,
                per_hour: slot.per_hour(),
            };
            Outbox::new(slot, rules)
        };
        Self {
            outboxes: outlets.into_iter().map(outbox).collect(),
            spool,
            taken_over: Mutex::default(),
            counters,
            pending: Mutex::default(),
            settled: Condvar::new(),
        }
    }

    /// The names of the sinks, in order.
    pub(in crate::report) fn names(&self) -> impl Iterator<Item = &str> {
        self.outboxes.iter().map(|outbox| &*outbox.slot.name)
    }

    /// Whether reports are on their way.
    pub(in crate::report) fn is_busy(&self) -> bool {
        !lock_std(&self.pending).numbers.is_empty()
    }

    /// Whether it keeps reports on disk.
    pub(in crate::report) fn has_spool(&self) -> bool {
        self.spool.is_some()
    }

    /// Something was lost before it was a report: every sink is told.
    pub(in crate::report) fn lost(&self) {
        self.outboxes.iter().for_each(|outbox| outbox.lost(1));
    }

    /// Takes a report on and hands it to the sinks that are waited for. The others get it with the next
    /// [`start_remotes`](Self::start_remotes).
    pub(in crate::report) fn accept(&self, report: Report, now: Instant) {
        let file = self.spool.as_ref().and_then(|spool| match spool.write(&report) {
            Ok(file) => Some(file),
            Err(error) => {
                count(&self.counters.not_spooled);
                let report = &*report.id;
                log_safely(|| {
                    tracing::error!(target: TARGET, %error, report, "a report was not spooled, and is kept in memory alone");
                });
                None
            }
        });
        let number = self.number();
        let all = (0..self.outboxes.len()).collect();
        self.enqueue(Receipt::new(number, all, file), Some(Arc::new(report)), now);
        self.call_sinks(now);
    }

    fn number(&self) -> u64 {
        let mut pending = lock_std(&self.pending);
        let number = pending.next;
        pending.next += 1;
        pending.numbers.insert(number);
        self.counters.set_queued(pending.numbers.len());
        number
    }

    /// Puts a report into the queues of those who are to get it.
    fn enqueue(&self, receipt: Receipt, report: Option<Arc<Report>>, now: Instant) {
        let sinks = receipt.left();
        let receipt = Arc::new(receipt);
        if sinks.is_empty() {
            self.close(&receipt, Standing::Delivered);
        }
        for at in sinks {
            let outbox = &self.outboxes[at];
            let entry = Entry { receipt: Arc::clone(&receipt), report: report.clone() };
            let dropped = outbox.queue().push(entry, &outbox.rules);
            if let Some(dropped) = dropped {
                outbox.slot.log(&Failure::permanent("too many reports wait for it: the oldest is dropped"), now);
                self.settle(at, &dropped, Outcome::GivenUp);
            }
        }
    }

    /// Hands what is due to the sinks that are waited for.
    pub(in crate::report) fn call_sinks(&self, now: Instant) {
        for (at, outbox) in self.outboxes.iter().enumerate() {
            let Outlet::Sink(sink) = &outbox.slot.outlet else { continue };
            if !outbox.queue().take_wheel(now, &outbox.rules) {
                continue;
            }
            // These have no limit an hour, so there is nothing to gather.
            while let Some(Next::Send(waiting)) = outbox.next(now) {
                let sent = outbox.load(&waiting).and_then(|(report, untold)| call(&**sink, &report).map(|()| untold));
                self.sent(at, waiting, sent, now);
            }
        }
    }

    /// Has everything that is due sent by tasks of `runtime`.
    pub(in crate::report) fn start_remotes(self: &Arc<Self>, runtime: &Handle, now: Instant) {
        for (at, outbox) in self.outboxes.iter().enumerate() {
            if matches!(outbox.slot.outlet, Outlet::Remote(_)) && outbox.queue().take_wheel(now, &outbox.rules) {
                runtime.spawn(Arc::clone(self).drive(at));
            }
        }
    }

    /// Sends what is due to a remote, one after the other.
    async fn drive(self: Arc<Self>, at: usize) {
        let outbox = &self.outboxes[at];
        let Outlet::Remote(remote) = &outbox.slot.outlet else { return };
        while let Some(next) = outbox.next(Instant::now()) {
            match next {
                Next::Send(waiting) => {
                    let sent = match outbox.load(&waiting) {
                        Ok((report, untold)) => attempt(|| remote.deliver(&report)).await.map(|()| untold),
                        Err(failure) => Err(failure),
                    };
                    self.sent(at, waiting, sent, Instant::now());
                }
                Next::Gather(waiting) => match outbox.load(&waiting) {
                    Ok((report, _)) => outbox.queue().gather(waiting, &report),
                    Err(failure) => self.sent(at, waiting, Err(failure), Instant::now()),
                },
                Next::Digest(gathered) => {
                    let sent = attempt(|| remote.digest(&gathered.digest)).await;
                    self.digest_sent(at, gathered, sent, Instant::now());
                }
            }
        }
    }

    /// What became of an attempt. `sent` is how many losses the report spoke of.
    fn sent(&self, at: usize, waiting: Waiting, sent: Result<u64, Failure>, now: Instant) {
        let outbox = &self.outboxes[at];
        match sent {
            Ok(told) => {
                outbox.told(told);
                outbox.queue().works();
                self.settle(at, &waiting.entry.receipt, Outcome::Taken);
            }
            Err(failure) if failure.permanent => {
                self.failed(outbox, &failure, now);
                outbox.queue().works();
                self.settle(at, &waiting.entry.receipt, Outcome::GivenUp);
            }
            Err(failure) => self.try_again(at, Failed::Send(waiting), &failure, now),
        }
    }

    /// What became of an attempt to send a digest.
    fn digest_sent(&self, at: usize, gathered: Gathered, sent: Result<(), Failure>, now: Instant) {
        let outbox = &self.outboxes[at];
        let outcome = match sent {
            Ok(()) => Outcome::Taken,
            Err(failure) if failure.permanent => {
                self.failed(outbox, &failure, now);
                Outcome::GivenUp
            }
            Err(failure) => return self.try_again(at, Failed::Digest(gathered), &failure, now),
        };
        outbox.queue().works();
        gathered.receipts.iter().for_each(|receipt| self.settle(at, receipt, outcome));
    }

    fn try_again(&self, at: usize, failed: Failed, failure: &Failure, now: Instant) {
        let outbox = &self.outboxes[at];
        self.failed(outbox, failure, now);
        let given_up = outbox.queue().failed(failed, now, &outbox.rules, fastrand::f64());
        given_up.iter().for_each(|receipt| self.settle(at, receipt, Outcome::GivenUp));
    }

    fn failed(&self, outbox: &Outbox, failure: &Failure, now: Instant) {
        count(&self.counters.failed_deliveries);
        outbox.slot.failed(failure, now);
    }

    /// One sink is done with a report.
    fn settle(&self, at: usize, receipt: &Receipt, outcome: Outcome) {
        let outbox = &self.outboxes[at];
        if outcome == Outcome::GivenUp {
            outbox.lost(1);
        }
        match receipt.settle(at, outcome) {
            Standing::Open => {
                if let Some(file) = &receipt.file {
                    file.note_taken(&outbox.slot.name);
                }
            }
            standing => self.close(receipt, standing),
        }
    }

    /// All sinks are done with a report.
    fn close(&self, receipt: &Receipt, standing: Standing) {
        if let Some(file) = &receipt.file {
            file.remove();
        }
        let counters = &*self.counters;
        let mut pending = lock_std(&self.pending);
        pending.numbers.remove(&receipt.number);
        // With the lock held, so that the sum is right whenever nothing is on its way.
        count(if standing == Standing::Delivered { &counters.delivered } else { &counters.undelivered });
        counters.set_queued(pending.numbers.len());
        drop(pending);
        self.settled.notify_all();
    }

    /// Takes over what other processes have left in the spool, now and then.
    pub(in crate::report) fn take_over(&self, now: Instant) {
        let Some(spool) = &self.spool else { return };
        {
            let mut before = lock_std(&self.taken_over);
            if before.is_some_and(|before| now.saturating_duration_since(before) < TAKE_OVER_EVERY) {
                return;
            }
            *before = Some(now);
        }
        let (files, done) = spool.take_over();
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
            self.enqueue(Receipt::new(self.number(), sinks, Some(file)), None, now);
        }
        if reports > 0 {
            log_safely(
                || tracing::info!(target: TARGET, reports, "took over reports that a process left in the spool"),
            );
        }
    }

    /// What waits is to be sent now, whatever the pauses and limits.
    pub(in crate::report) fn hurry(&self) {
        self.outboxes.iter().for_each(|outbox| outbox.queue().hurry());
    }

    /// Waits until nothing is on its way that was accepted before. False if that is not so by `deadline`; `None` is never.
    pub(in crate::report) fn wait(&self, deadline: Option<Instant>) -> bool {
        let mut pending = lock_std(&self.pending);
        let end = pending.next;
        while pending.numbers.first().is_some_and(|first| *first < end) {
            let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return false;
            }
            pending = self.settled.wait_timeout(pending, left).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
        true
    }
}
