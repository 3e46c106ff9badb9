//! One sink with its queue.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use super::queue::{Next, Queue, Rules, Waiting};
use super::slot::Slot;
use super::spool::ReadError;
use crate::report::Report;
use crate::report::sink::SinkError;
use crate::sync::lock_std;
use crate::text::units::{count, were};

/// One sink, and the reports that wait for it.
pub(super) struct Outbox {
    pub(super) slot: Slot,
    pub(super) rules: Rules,
    queue: Mutex<Queue>,
    /// How many reports for this sink were lost that it hasn't been told about.
    unreported: AtomicU64,
}

/// Held while an outbox's queue is driven.
pub(super) struct DriverGuard<'a>(&'a Outbox);

impl Drop for DriverGuard<'_> {
    fn drop(&mut self) {
        // Otherwise the driving ended when there was nothing more to do, and another driver may have begun.
        if std::thread::panicking() {
            self.0.queue().end_driving();
        }
    }
}

impl Outbox {
    pub(super) fn new(slot: Slot, rules: Rules) -> Self {
        Self { slot, rules, queue: Mutex::default(), unreported: AtomicU64::new(0) }
    }

    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        lock_std(&self.queue)
    }

    /// See [`Queue::begin_driving`]. A panic ends the driving, and another driver may begin.
    pub(super) fn begin_driving(&self, now: Instant) -> Option<DriverGuard<'_>> {
        self.queue().begin_driving(now, &self.rules).then_some(DriverGuard(self))
    }

    pub(super) fn next(&self, now: Instant) -> Option<Next> {
        self.queue().next(now, &self.rules)
    }

    /// Notes that reports were lost on the way to this sink. The next one that it takes says so.
    pub(super) fn lost(&self, reports: u64) {
        self.unreported.fetch_add(reports, Relaxed);
    }

    /// Returns how many lost reports it hasn't been told about.
    pub(super) fn unreported(&self) -> u64 {
        self.unreported.load(Relaxed)
    }

    /// Returns the waiting report, read from the spool if necessary, with a note on the reports that were lost before
    /// it. Also returns how many these were, for [`told`](Self::told).
    pub(super) fn load(&self, waiting: &Waiting) -> Result<(Arc<Report>, u64), SinkError> {
        let mut report = self.load_alone(waiting)?;
        let unreported = self.unreported();
        if unreported > 0 {
            Arc::make_mut(&mut report).notes.push(note(unreported, &self.slot.name));
        }
        Ok((report, unreported))
    }

    /// Returns the waiting report without such a note.
    pub(super) fn load_alone(&self, waiting: &Waiting) -> Result<Arc<Report>, SinkError> {
        let receipt = &waiting.entry.receipt;
        let mut report = match (&waiting.entry.report, &receipt.file) {
            (Some(kept), _) => Arc::clone(kept.report()),
            (None, Some(file)) => match file.read() {
                Ok(report) => Arc::new(report),
                Err(ReadError::Io(error)) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(SinkError::transient(error));
                }
                Err(ReadError::Io(error)) => return Err(SinkError::permanent(error)),
                Err(ReadError::Unreadable(error)) => {
                    file.set_aside();
                    return Err(SinkError::permanent(format!(
                        "its file in the spool is set aside as unreadable: {error}"
                    )));
                }
            },
            (None, None) => return Err(SinkError::permanent("it is neither in memory nor in the spool")),
        };
        if let Some(fleet) = &waiting.entry.fleet {
            Arc::make_mut(&mut report).fleet = Some(Box::new((**fleet).clone()));
        }
        Ok(report)
    }

    /// Notes that the sink has taken a report or a digest that mentioned this many losses.
    pub(super) fn told(&self, unreported: u64) {
        self.unreported.fetch_sub(unreported, Relaxed);
    }
}

fn note(lost: u64, sink: &str) -> String {
    let (reports, were, they) = (count(lost, "report"), were(lost), if lost == 1 { "it" } else { "they" });
    format!(
        "{reports} before this one {were} lost on the way to {sink}: more came than could be sent, or {they} could not be"
    )
}
