//! Applies the outcome of attempts to the queue, the counts, and the file in the spool.

use std::time::Instant;

use super::dispatch::{Dispatch, clock};
use super::outbox::Outbox;
use super::queue::{Failed, Gathered, Waiting};
use super::receipt::{Outcome, Receipt, Standing};
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
                self.settle(at, &waiting.entry.receipt, Outcome::Taken);
            }
            Err(failure) if failure.is_permanent() => {
                self.failed(outbox, &failure, now);
                outbox.queue().works();
                self.settle(at, &waiting.entry.receipt, Outcome::GivenUp);
            }
            Err(failure) => self.try_again(at, Failed::Send(waiting), &failure, now),
        }
    }

    /// Adds a report beyond the limit to the digest, if there is room.
    pub(super) fn gather(&self, at: usize, waiting: Waiting, report: &Report) {
        let outbox = &self.outboxes[at];
        let given_up = outbox.queue().gather(waiting, report, &outbox.rules);
        if let Some(receipt) = given_up {
            outbox.slot.log(&SinkError::permanent("too many reports wait for its digest: one is dropped"), clock());
            self.settle(at, &receipt, Outcome::GivenUp);
        }
    }

    /// Handles a report beyond the limit that cannot be read.
    pub(super) fn not_gathered(&self, at: usize, waiting: Waiting, failure: &SinkError, now: Instant) {
        if failure.is_permanent() {
            self.failed(&self.outboxes[at], failure, now);
            self.settle(at, &waiting.entry.receipt, Outcome::GivenUp);
        } else {
            self.try_again(at, Failed::Gather(waiting), failure, now);
        }
    }

    /// Handles the outcome of an attempt to send a digest.
    pub(super) fn digest_sent(&self, at: usize, gathered: Gathered, sent: Result<(), SinkError>, now: Instant) {
        let outbox = &self.outboxes[at];
        let outcome = match sent {
            Ok(()) => {
                outbox.told(gathered.digest.lost);
                Outcome::Taken
            }
            Err(failure) if failure.is_permanent() => {
                self.failed(outbox, &failure, now);
                Outcome::GivenUp
            }
            Err(failure) => return self.try_again(at, Failed::Digest(gathered), &failure, now),
        };
        outbox.queue().works();
        gathered.receipts.iter().for_each(|receipt| self.settle(at, receipt, outcome));
    }

    fn try_again(&self, at: usize, failed: Failed, failure: &SinkError, now: Instant) {
        let outbox = &self.outboxes[at];
        self.failed(outbox, failure, now);
        let given_up = outbox.queue().failed(failed, now, &outbox.rules, fastrand::f64());
        given_up.iter().for_each(|receipt| self.settle(at, receipt, Outcome::GivenUp));
    }

    fn failed(&self, outbox: &Outbox, failure: &SinkError, now: Instant) {
        count(&self.counters.failed_deliveries);
        outbox.slot.failed(failure, now);
    }

    /// Records that one sink is done with a report.
    pub(super) fn settle(&self, at: usize, receipt: &Receipt, outcome: Outcome) {
        let outbox = &self.outboxes[at];
        outbox.slot.count_settled(outcome);
        match outcome {
            Outcome::Taken => count(&self.counters.deliveries),
            Outcome::GivenUp => outbox.lost(1),
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
