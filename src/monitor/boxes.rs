//! Timeboxes whose limit has passed: their work is told, and what does not hear is reported.
//!
//! ```text
//!              ┌─ suspended ─▶ woken: its task polls it once more, and drops it
//! told ────────┤
//!              └─ in a poll ─┬─ the poll ends, or a checkpoint is reached ─▶ nothing more to do
//!                            └─ neither, for a while ─▶ reported, with its thread's stack
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};
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
    due: u64,
    tries: u32,
}

/// Work that has been told and has not heard.
#[derive(Debug, Default)]
pub(super) struct Overruns(Vec<Overrun>);

impl Overruns {
    /// The limit of the box has passed; `over` says that its grace has, too, or that it has none.
    pub(super) fn expire(&mut self, row: &'static Row, id: RowId, over: bool, now: u64) {
        let over = if over { flags::OVER } else { 0 };
        let Some(before) = row.update(id, flags::EXPIRED | over, 0) else { return };
        let first = before & flags::REPORTED == 0 && before & flags::EXPIRED == 0;
        if before & flags::PARENT != 0 && first {
            self.tell_heirs(id, now);
        }
        tell(row, id, before);
        if first {
            self.note(row, id, now);
        }
    }

    /// Looks after the row if it is inside a poll.
    fn note(&mut self, row: &'static Row, id: RowId, now: u64) {
        let poller = row.poller();
        if poller.is_polling() {
            let limit = if row.flags() & flags::BOX != 0 { row.threshold() } else { u64::MAX };
            let patience = (limit / 4).clamp(10 * MILLISECOND, 250 * MILLISECOND);
            self.0.push(Overrun { row, id, poller, due: now.saturating_add(patience), tries: 0 });
        }
    }

    /// Tells the work that was handed on within the box, and the boxes in it. Two looks through the table.
    fn tell_heirs(&mut self, expired: RowId, now: u64) {
        let live = || table().rows().filter_map(|row| row.live().map(|(id, flags)| (row, id, flags)));
        let mut told = Vec::new();
        for (row, id, flags) in live().filter(|(.., flags)| flags & flags::HEIR != 0) {
            let inherits = row.inherited().is_some_and(|boxes| boxes.iter().any(|one| one.id == expired));
            if inherits && let Some(before) = row.update(id, flags::INHERITED, 0) {
                told.push(id);
                tell(row, id, before);
                if flags & flags::MAY_BLOCK != 0 {
                    self.note(row, id, now);
                }
            }
        }
        // A box begins after what is around it: so a second look that finds none is enough.
        let mut found = !told.is_empty();
        while found {
            found = false;
            for (row, id, flags) in live().filter(|(.., flags)| flags & flags::BOX != 0) {
                if flags & flags::INHERITED == 0
                    && row.timebox(id).is_some_and(|timebox| told.contains(&timebox.around()))
                    && let Some(before) = row.update(id, flags::INHERITED, 0)
                {
                    told.push(id);
                    tell(row, id, before);
                    found = true;
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
        id == self.id && flags & flags::TOLD == 0 && self.row.poller() == self.poller
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
