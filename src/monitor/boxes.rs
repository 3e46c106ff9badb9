//! Timeboxes whose limit has passed: their work is told, and what does not hear is reported.
//!
//! ```text
//!              ┌─ suspended ─▶ woken: its task polls it once more, and drops it
//! told ────────┤
//!              └─ in a poll ─┬─ the poll ends, or a checkpoint is reached ─▶ nothing more to do
//!                            └─ neither, for a while ─▶ reported, with its thread's stack
//! ```

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{Ordering, fence};
use std::task::Waker;

use super::budget;
use super::evidence::evidence;
use crate::capture::Sampler;
use crate::figures::COUNTS;
use crate::inflight::{Poller, Row, RowId, flags, table, waiters};
use crate::report::{Evidence, Kind, ThreadEvidence, Verdict, log_safely};
use crate::sync::count;

const MILLISECOND: u64 = 1_000_000;
/// A thread that wants the CPU takes its signal when it gets it.
const MAX_TRIES: u32 = 15;

/// Work that runs on, inside a poll or a closure, although its time is up.
#[derive(Debug)]
struct Overrun {
    row: &'static Row,
    id: RowId,
    poller: Poller,
    /// Many polls of it may go on within one of something else.
    polls: u32,
    /// Nanoseconds that it has to hear, and until when.
    patience: u64,
    due: u64,
    tries: u32,
}

/// Work that has been told and has not heard.
#[derive(Debug, Default)]
pub(super) struct Overruns(Vec<Overrun>);

impl Overruns {
    /// The limit of the box has passed (`first`), or its grace; `over` says that it has none left.
    pub(super) fn expire(&mut self, row: &'static Row, id: RowId, first: bool, over: bool, now: u64) {
        let over = if over { flags::OVER } else { 0 };
        let Some(before) = row.update(id, flags::EXPIRED | over, 0) else { return };
        if before & flags::PARENT != 0 && first {
            self.tell_heirs(id, now);
        }
        tell(row, id, before);
        if before & flags::REPORTED == 0 && first {
            self.note(row, id, now);
        }
    }

    /// Looks after the row if it is inside a poll, or about to begin with its first.
    fn note(&mut self, row: &'static Row, id: RowId, now: u64) {
        let (poller, polls) = (row.poller(), row.polls());
        if poller.is_polling() || polls == 0 {
            let limit = if row.flags() & flags::BOX != 0 { row.threshold() } else { u64::MAX };
            let patience = (limit / 4).clamp(10 * MILLISECOND, 250 * MILLISECOND);
            self.0.push(Overrun { row, id, poller, polls, patience, due: now.saturating_add(patience), tries: 0 });
        }
    }

    /// Tells the work that was handed on within the box, and the boxes in it. Looks through the table until there is nobody
    /// new: then who hands on from here on was told before, and tells its heirs itself.
    fn tell_heirs(&mut self, expired: RowId, now: u64) {
        let mut told = HashSet::new();
        let mut found = true;
        while found {
            found = false;
            for (row, id, flags) in live_rows().filter(|(.., flags)| flags & flags::HEIR != 0) {
                let Some(boxes) = row.inherited().filter(|_| !told.contains(&id)) else { continue };
                let Some(inherited) = boxes.iter().find(|one| one.id == expired) else { continue };
                inherited.expire();
                // What it may have heard of is another box.
                if let Some(before) = row.update(id, flags::INHERITED, flags::TOLD) {
                    found |= told.insert(id);
                    tell(row, id, before);
                    if flags & flags::MAY_BLOCK != 0 {
                        self.note(row, id, now);
                    }
                }
            }
        }
        found = !told.is_empty();
        while found {
            found = false;
            for (row, id, flags) in live_rows().filter(|(.., flags)| flags & flags::BOX != 0) {
                if flags & flags::INHERITED == 0
                    && row.timebox(id).is_some_and(|timebox| told.contains(&timebox.around()))
                    && let Some(before) = row.update(id, flags::INHERITED, 0)
                {
                    found |= told.insert(id);
                    tell(row, id, before);
                }
            }
        }
    }

    /// When to look next.
    pub(super) fn due(&self) -> u64 {
        self.0.iter().map(|overrun| overrun.due).min().unwrap_or(u64::MAX)
    }

    /// Reports what has not heard.
    pub(super) fn look(&mut self, now: u64, sampler: &mut Sampler) -> Vec<Evidence> {
        let mut found = Vec::new();
        self.0.retain_mut(|overrun| {
            if !overrun.goes_on() {
                return false;
            }
            if now < overrun.due {
                return true;
            }
            if !overrun.poller.is_polling() {
                return overrun.has_begun(now);
            }
            match overrun.capture(now, sampler) {
                Some(evidence) => found.extend(evidence),
                None => {
                    overrun.due = now + 10 * MILLISECOND;
                    return true;
                }
            }
            false
        });
        found
    }
}

impl Overrun {
    fn goes_on(&self) -> bool {
        let Some((id, flags)) = self.row.live() else { return false };
        let same_poll = !self.poller.is_polling() || self.row.poller() == self.poller;
        id == self.id && flags & flags::TOLD == 0 && same_poll && self.row.polls() == self.polls
    }

    /// Whether it is inside its first poll by now.
    fn has_begun(&mut self, now: u64) -> bool {
        self.poller = self.row.poller();
        self.due = now.saturating_add(self.patience);
        self.poller.is_polling()
    }

    /// `None` for: later. `Some(None)` for: never.
    fn capture(&mut self, now: u64, sampler: &mut Sampler) -> Option<Option<Evidence>> {
        let Some((slot, poll)) = self.poller.slot().and_then(|slot| Some((slot, slot.polling()?.1))) else {
            return Some(None);
        };
        if self.tries == 0 && !budget::CAPTURES.take(now) {
            count(&COUNTS.refused);
            if let Some(reports) = super::evidence::reports(self.row, self.id) {
                reports.count_not_captured();
            }
            return Some(None);
        }
        self.tries += 1;
        let outcome = sampler.capture(slot, poll);
        if outcome.may_come_late() && self.tries < MAX_TRIES {
            return None;
        }
        let thread = ThreadEvidence::of(outcome, slot).filter(|_| self.goes_on());
        Some(thread.and_then(|(thread, note)| {
            let mut evidence = evidence(self.row, self.id, now)?;
            self.row.update(self.id, flags::REPORTED, 0);
            evidence.kind = Kind::Interrupted;
            evidence.verdict = Verdict::Blocking;
            evidence.thread = Some(thread);
            evidence.notes.push(
                "the time is up, and the work goes on: it cannot be stopped before it reaches a checkpoint or returns"
                    .to_owned(),
            );
            evidence.notes.extend(note);
            Some(evidence)
        }))
    }
}

/// All work of now, and what was published before whatever the caller has published before.
fn live_rows() -> impl Iterator<Item = (&'static Row, RowId, u32)> {
    fence(Ordering::SeqCst);
    table().rows().filter_map(|row| row.live().map(|(id, flags)| (row, id, flags)))
}

/// Wakes the row's task, and whoever waits for this.
fn tell(row: &'static Row, id: RowId, before: u32) {
    let waker = row.details(id).and_then(|details| details.waker.clone());
    let waiters = if before & flags::AWAITED != 0 { waiters::take(id) } else { Vec::new() };
    waker.into_iter().chain(waiters).for_each(wake);
}

/// Waking runs a scheduler's code, which may panic if the scheduler is gone.
fn wake(waker: Waker) {
    if catch_unwind(AssertUnwindSafe(|| waker.wake())).is_err() {
        log_safely(|| tracing::error!(target: "heeler", "a waker panicked: its box is not told that its time is up"));
    }
}
