//! Timeboxes whose limit has passed. Their work is told, and work that does not notice is reported.
//!
//! ```text
//!              ┌─ suspended ─▶ woken: its task polls it once more, and drops it
//! told ────────┤
//!              └─ in a poll ─┬─ the poll ends, or a checkpoint is reached ─▶ nothing more to do
//!                            └─ neither, for a while ─▶ reported, with its thread's stack
//! ```

use super::gather::evidence;
use super::stacks::{CURRENT, Look, Stacks};
use super::{Evidence, Kind, Verdict};
use crate::capture::{Poller, RowId};
use crate::counts::COUNTS;
use crate::inflight::{Asked, Row, RowLimit, budget, flags, table, waiters, waking};
use crate::sync::count;

const MILLISECOND: u64 = 1_000_000;
/// A thread that wants the CPU handles its signal when it gets the CPU.
const MAX_TRIES: u32 = 15;

/// Work that runs on, inside a poll or a closure, although its time is up.
#[derive(Debug)]
pub(super) struct Overrun {
    row: &'static Row,
    id: RowId,
    poller: Poller,
    /// Many polls of it may happen within one poll of something else.
    polls: u32,
    /// How many nanoseconds it has to notice. `due` says until when.
    patience: u64,
    due: u64,
    tries: u32,
    /// The limit that has passed, if the box shares the row of its request.
    shared: Option<RowLimit>,
}

/// Handles a box whose limit (`first`) or grace has passed. `over` means that it has no grace left. Tells its work, and
/// adds to `found` what must be looked at later.
pub(super) fn expire(row: &'static Row, id: RowId, first: bool, over: bool, now: u64, found: &mut Vec<Overrun>) {
    let over = if over { flags::OVER } else { 0 };
    let Some((before, inheritors)) = row.expire(id, flags::EXPIRED | over) else { return };
    for inheritor in inheritors {
        tell_inheritor(inheritor, now, found);
    }
    tell(row, id, before);
    if before & flags::REPORTED == 0 && first {
        found.extend(Overrun::watch(row, id, now));
    }
}

/// Handles a box whose limit has passed while it shares the row of its request. The request's task polls it once more, and
/// finds that its time is up.
pub(super) fn expire_shared(row: &'static Row, id: RowId, limit: RowLimit, now: u64, found: &mut Vec<Overrun>) {
    wake(row, id);
    found.extend(Overrun::watch(row, id, now).map(|overrun| Overrun { shared: Some(limit), ..overrun }));
}

/// Tells work that was handed on within the box, and the boxes in it.
fn tell_inheritor(id: RowId, now: u64, found: &mut Vec<Overrun>) {
    let Some(row) = table().row(id) else { return };
    let Some(inheritance) = row.inheritance(id) else { return };
    // This comes first, so that a box that the work opens after it has noticed is told at once.
    let boxes = inheritance.inner.close();
    // What it has noticed before may concern another box.
    if let Some(before) = row.update(id, flags::INHERITED, flags::TOLD) {
        tell(row, id, before);
        if before & flags::MAY_BLOCK != 0 {
            found.extend(Overrun::watch(row, id, now));
        }
    }
    for id in boxes {
        let Some(row) = table().row(id) else { continue };
        if let Some(before) = row.update(id, flags::INHERITED, 0) {
            tell(row, id, before);
        }
    }
}

/// Work that has been told and has not noticed.
#[derive(Debug, Default)]
pub(super) struct Overruns(Vec<Overrun>);

impl Overruns {
    pub(super) fn add(&mut self, more: Vec<Overrun>) {
        self.0.extend(more);
    }

    /// Returns when to look next.
    pub(super) fn due(&self) -> u64 {
        self.0.iter().map(|overrun| overrun.due).min().unwrap_or(u64::MAX)
    }

    /// Reports work that has not noticed.
    pub(super) fn look(&mut self, now: u64, stacks: &mut Stacks) -> Vec<Evidence> {
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
            match overrun.capture(now, stacks) {
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
    /// Starts to watch the row, if it is inside a poll or about to begin its first.
    fn watch(row: &'static Row, id: RowId, now: u64) -> Option<Self> {
        let (poller, polls) = (row.poller(), row.polls());
        if !poller.is_polling() && polls > 0 {
            return None;
        }
        let own = if row.flags() & flags::BOX != 0 { row.threshold() } else { u64::MAX };
        let limit = row.limit().map_or(own, |shared| shared.limit);
        let patience = (limit / 4).clamp(10 * MILLISECOND, 250 * MILLISECOND);
        Some(Self { row, id, poller, polls, patience, due: now.saturating_add(patience), tries: 0, shared: None })
    }

    /// Returns when to look at it.
    pub(super) fn due(&self) -> u64 {
        self.due
    }

    /// Returns whether it still has not noticed.
    pub(super) fn goes_on(&self) -> bool {
        let Some((id, flags)) = self.row.live() else { return false };
        let same_poll = !self.poller.is_polling() || self.row.poller() == self.poller;
        // A box that has got a row of its own is looked at there.
        let same_box = self.shared.is_none_or(|shared| self.row.limit() == Some(shared));
        id == self.id && flags & flags::TOLD == 0 && same_poll && same_box && self.row.polls() == self.polls
    }

    /// Returns whether it is inside its first poll by now.
    fn has_begun(&mut self, now: u64) -> bool {
        self.poller = self.row.poller();
        self.due = now.saturating_add(self.patience);
        self.poller.is_polling()
    }

    /// Makes the evidence about the request that of the box that shares its row.
    fn as_of_box(&self, shared: RowLimit, evidence: &mut Evidence) {
        let began = shared.after(0);
        let elapsed = evidence.moment.saturating_sub(began);
        if evidence.elapsed.saturating_sub(elapsed) > MILLISECOND {
            // What the request did before is no part of the box's time.
            evidence.waits.clear();
            (evidence.current, evidence.busy, evidence.runnable) = (None, 0, 0);
        }
        (evidence.started, evidence.elapsed, evidence.threshold) = (shared.started, elapsed, shared.limit);
        let mut flags = flags::BOX_REPORTED;
        if let Some(policy) = shared.policy.get() {
            // Its end is told where reports about the request go.
            if evidence.reports.is_same(&policy.reports) {
                flags |= flags::FOLLOWED;
            }
            evidence.reports = policy.reports.clone();
        }
        self.row.update(self.id, flags, 0);
    }

    /// Returns `None` for later, and `Some(None)` for never.
    fn capture(&mut self, now: u64, stacks: &mut Stacks) -> Option<Option<Evidence>> {
        let Some((slot, poll)) = self.poller.slot().and_then(|slot| Some((slot, slot.polling()?.1))) else {
            return Some(None);
        };
        if self.tries == 0 && !budget::CAPTURES.take(now) {
            count(&COUNTS.refused);
            let of_box = self.shared.and_then(|shared| Some(shared.policy.get()?.reports.clone()));
            if let Some(reports) = of_box.or_else(|| super::gather::reports(self.row, self.id)) {
                reports.count_not_captured();
            }
            return Some(None);
        }
        self.tries += 1;
        let (thread, note) = match stacks.of(slot, poll, CURRENT, self.tries < MAX_TRIES) {
            Look::Thread(thread, note) if self.goes_on() => (thread, note),
            Look::Late => return None,
            Look::Thread(..) | Look::Missed => return Some(None),
        };
        let Some(mut evidence) = evidence(self.row, self.id) else { return Some(None) };
        match self.shared {
            Some(shared) => self.as_of_box(shared, &mut evidence),
            None => drop(self.row.update(self.id, flags::REPORTED | flags::FOLLOWED, 0)),
        }
        evidence.kind = Kind::Interrupted;
        evidence.verdict = Verdict::Blocking;
        evidence.thread = Some(thread);
        evidence.notes.push(
            "the time is up, and the work goes on: it cannot be stopped before it reaches a checkpoint or returns"
                .to_owned(),
        );
        evidence.notes.extend(note);
        Some(Some(evidence))
    }
}

/// Wakes the row's task.
pub(super) fn wake(row: &'static Row, id: RowId) {
    if let Some(Asked::Waker(waker)) = row.take_waker(id) {
        waking::wake_row(id, waker);
    }
}

/// Wakes the row's task, and everything that waits for the row's time to be up.
fn tell(row: &'static Row, id: RowId, before: u32) {
    wake(row, id);
    if before & flags::AWAITED != 0 {
        waiters::take(id).into_iter().for_each(waking::wake);
    }
}
