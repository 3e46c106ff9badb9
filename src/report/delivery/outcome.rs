//! Applies the outcome of attempts to the queue, the counts, and the file in the spool.

use std::time::Instant;

use super::dispatch::{Dispatch, clock};
use super::guard::attempt;
use super::outbox::Outbox;
use super::queue::{Failed, Gathered, Waiting};
use super::receipt::{Entry, Outcome, Receipt, Standing};
use super::slot::AnySink;
use crate::report::Report;
use crate::report::metrics::stats::count;
use crate::report::sink::SinkError;

impl Dispatch {
    /// Handles the outcome of an attempt. If it succeeded, `sent` is how many losses the report mentioned.
    pub(super) fn sent(&self, at: usize, waiting: Waiting, sent: Result<u64, SinkError>, now: Instant) {
        let outbox = &self.outboxes[at];
        match sent {
            Ok(told) => {
                outbox.told(told);
                outbox.queue().works();
                self.told(at, &waiting.entry);
            }
            Err(failure) if failure.is_permanent() => {
                self.failed(outbox, &failure, now);
                outbox.queue().works();
                self.settle(at, &waiting.entry, Outcome::GivenUp);
            }
            Err(failure) => self.try_again(at, Failed::Send(waiting), &failure, now),
        }
    }

    /// Sends several reports to an async sink together. Those that cannot be read are left out.
    pub(super) async fn send_batch(&self, at: usize, several: Vec<Waiting>) {
        let outbox = &self.outboxes[at];
        let AnySink::Async(sink) = &outbox.slot.sink else { return };
        let most = outbox.rules.batch.map_or(usize::MAX, |batch| batch.bytes);
        let (mut sent, mut reports, mut told, mut bytes) = (Vec::new(), Vec::new(), 0, 0_usize);
        let mut several = several.into_iter();
        while let Some(waiting) = several.next() {
            // The first one says what was lost before.
            let read = match reports.is_empty() {
                true => outbox.load(&waiting).map(|(report, unreported)| {
                    told = unreported;
                    report
                }),
                false => outbox.load_alone(&waiting),
            };
            match read {
                Ok(report) => {
                    bytes = bytes.saturating_add(
                        waiting.entry.report.as_ref().map_or_else(|| report.size(), |kept| kept.bytes()),
                    );
                    if bytes > most && !reports.is_empty() {
                        // Its file in the spool is shorter than what it takes in memory.
                        outbox.queue().put_back(std::iter::once(waiting).chain(several).collect());
                        break;
                    }
                    reports.push(report);
                    sent.push(waiting);
                }
                Err(failure) => self.sent(at, waiting, Err(failure), clock()),
            }
            // Each may be read from a disk. Others get their turns in between.
            tokio::task::yield_now().await;
        }
        if reports.is_empty() {
            return;
        }
        let outcome = attempt(|| sink.deliver_all(&reports)).await;
        drop(reports);
        match outcome {
            Ok(()) => {
                outbox.told(told);
                outbox.queue().works();
                sent.iter().for_each(|waiting| self.told(at, &waiting.entry));
            }
            Err(failure) if failure.is_permanent() => {
                self.failed(outbox, &failure, clock());
                outbox.queue().works();
                sent.iter().for_each(|waiting| self.settle(at, &waiting.entry, Outcome::GivenUp));
            }
            Err(failure) => self.try_again(at, Failed::Batch(sent), &failure, clock()),
        }
    }

    /// Adds a report beyond the limit to the digest, if there is room.
    pub(super) fn gather(&self, at: usize, waiting: Waiting, report: &Report) {
        let outbox = &self.outboxes[at];
        let given_up = outbox.queue().gather(waiting, report, &outbox.rules);
        if let Some(entry) = given_up {
            outbox.slot.log(&SinkError::permanent("too many reports wait for its digest: one is dropped"), clock());
            self.settle(at, &entry, Outcome::GivenUp);
        }
    }

    /// Handles a report beyond the limit that cannot be read.
    pub(super) fn not_gathered(&self, at: usize, waiting: Waiting, failure: &SinkError, now: Instant) {
        if failure.is_permanent() {
            self.failed(&self.outboxes[at], failure, now);
            self.settle(at, &waiting.entry, Outcome::GivenUp);
        } else {
            self.try_again(at, Failed::Gather(waiting), failure, now);
        }
    }

    /// Handles the outcome of an attempt to send a digest.
    pub(super) fn digest_sent(&self, at: usize, gathered: Gathered, sent: Result<(), SinkError>, now: Instant) {
        let outbox = &self.outboxes[at];
        match sent {
            Ok(()) => {
                outbox.told(gathered.digest.lost);
                outbox.queue().works();
                gathered.entries.iter().for_each(|entry| self.told(at, entry));
            }
            Err(failure) if failure.is_permanent() => {
                self.failed(outbox, &failure, now);
                outbox.queue().works();
                gathered.entries.iter().for_each(|entry| self.settle(at, entry, Outcome::GivenUp));
            }
            Err(failure) => self.try_again(at, Failed::Digest(gathered), &failure, now),
        }
    }

    fn try_again(&self, at: usize, failed: Failed, failure: &SinkError, now: Instant) {
        let outbox = &self.outboxes[at];
        self.failed(outbox, failure, now);
        let given_up = outbox.queue().failed(failed, now, &outbox.rules, fastrand::f64());
        given_up.iter().for_each(|entry| self.settle(at, entry, Outcome::GivenUp));
    }

    fn failed(&self, outbox: &Outbox, failure: &SinkError, now: Instant) {
        count(&self.counters.failed_deliveries);
        outbox.slot.failed(failure, now);
    }

    /// Records that a sink has taken a report, or had it already: people have been told, if it tells people.
    pub(super) fn told(&self, at: usize, entry: &Entry) {
        if let (Some(gate), Some(incident)) = (&self.gate, &entry.fleet) {
            gate.told(incident);
        }
        self.settle(at, entry, Outcome::Taken);
    }

    /// Records that one sink is done with a report.
    pub(super) fn settle(&self, at: usize, entry: &Entry, outcome: Outcome) {
        let (outbox, receipt) = (&self.outboxes[at], &*entry.receipt);
        outbox.slot.count_settled(outcome);
        match outcome {
            Outcome::Taken => count(&self.counters.deliveries),
            Outcome::GivenUp => {
                outbox.lost(1);
                if let (Some(gate), Some(incident)) = (&self.gate, &entry.fleet) {
                    gate.given_up(incident);
                }
            }
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

    /// Records that all sinks are done with a report.
    pub(super) fn close(&self, receipt: &Receipt, standing: Standing) {
        if let Some(file) = &receipt.file {
            file.remove();
        }
        let counters = &*self.counters;
        self.pending.close(receipt.number, counters, || {
            count(if standing == Standing::Delivered { &counters.delivered } else { &counters.undelivered });
        });
    }
}
