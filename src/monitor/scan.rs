//! The scan of the table. It finds work that has come near its threshold, arms it, and says when to scan again.

use std::sync::atomic::{Ordering, fence};

use super::basis::Basis;
use super::desk::Handed;
use super::expirations;
use crate::capture::RowId;
use crate::clock::now;
use crate::counts::COUNTS;
use crate::inflight::{Policy, PolicyId, Row, RowLimit, Trace, budget, flags, initial_flags};
use crate::sync::count;

/// Work is armed when its threshold divided by this has passed, which is an eighth.
const ARM_AT: u64 = 8;
/// The monitor may spend a hundredth of a core on scans.
const COST_FACTOR: u64 = 100;
const SHORTEST_PERIOD: u64 = 1_000_000;
const LONGEST_PERIOD: u64 = 60_000_000_000;

/// The result of a scan.
#[derive(Debug)]
pub(super) struct Scanned {
    /// When to scan next.
    pub(super) next: u64,
    /// The threshold that the next scan is timed for.
    pub(super) shortest: u64,
}

/// One scan of the table, a slice of it at a time.
#[derive(Debug)]
pub(super) struct Scan {
    began: u64,
    shortest: u64,
    /// Work that begins right after this scan must be seen by then.
    latest: u64,
    soonest: u64,
    /// Nanoseconds spent on slices.
    cost: u64,
}

impl Scan {
    /// Begins a scan. Work with a threshold of `expected` nanoseconds may begin at any moment.
    pub(super) fn begin(expected: u64) -> Self {
        let shortest = Policy::all()
            .iter()
            .filter(|policy| policy.is_enabled())
            .map(|policy| u64::try_from(policy.threshold().as_nanos()).unwrap_or(u64::MAX))
            .min()
            .map_or(expected, |shortest| shortest.min(expected));
        let latest = (shortest / 2).min(expected / ARM_AT);
        Self { began: now(), shortest, latest, soonest: u64::MAX, cost: 0 }
    }

    /// Scans one slice of rows. Adds boxes whose deadline is near to `boxes`, other work to `handed`. Returns false
    /// after the last row.
    pub(super) fn slice(
        &mut self,
        rows: &mut impl Iterator<Item = &'static Row>,
        number: usize,
        boxes: &mut Vec<(RowId, Basis)>,
        handed: &mut Handed,
    ) -> bool {
        let began = now();
        let mut seen = 0;
        for row in rows.by_ref().take(number) {
            seen += 1;
            self.look(row, boxes, handed);
        }
        self.cost += now().saturating_sub(began);
        seen == number
    }

    fn look(&mut self, row: &'static Row, boxes: &mut Vec<(RowId, Basis)>, handed: &mut Handed) {
        let Some((id, flags)) = row.live() else { return };
        let threshold = row.threshold();
        if let Some(limit) = row.limit() {
            self.look_at_limit((row, id, flags), limit, boxes);
        }
        if threshold == u64::MAX {
            return;
        }
        // Nobody reads the timeline of a box without a layer, so its polls need not be traced.
        let plain = flags & flags::BOX != 0 && row.policy() == PolicyId::NONE;
        self.shortest = self.shortest.min(if plain { threshold.saturating_mul(4) } else { threshold });
        self.latest = self.latest.min(threshold / 2);
        if flags & flags::QUEUED != 0 {
            return;
        }
        let Some(basis) = Basis::of(row) else { return };
        let near = basis.after(threshold / if plain { 2 } else { ARM_AT });
        if self.began < near {
            self.soonest = self.soonest.min(near);
            return;
        }
        let queued = match plain {
            true => queue(row, id, basis, 0).is_some(),
            false => arm(row, id, basis, self.began, &mut handed.armed),
        };
        if queued {
            let list = if flags & flags::BOX != 0 { boxes } else { &mut handed.watched };
            list.push((id, basis));
        }
    }

    /// Looks at a limit that a box shares the row with. Near its end the box needs a row of its own. The task makes it when
    /// it polls the work, so it is woken, as far as the budget allows.
    fn look_at_limit(
        &mut self,
        (row, id, flags): (&'static Row, RowId, u32),
        limit: RowLimit,
        boxes: &mut Vec<(RowId, Basis)>,
    ) {
        self.shortest = self.shortest.min(limit.limit);
        self.latest = self.latest.min(limit.limit / 2);
        if flags & flags::BOX_DUE != 0 {
            return;
        }
        let near = limit.after(limit.limit / ARM_AT);
        if self.began < near {
            self.soonest = self.soonest.min(near);
            return;
        }
        if row.update(id, flags::BOX_DUE, 0).is_some() {
            // As in `queue`: the box may just have ended, and another begun.
            fence(Ordering::SeqCst);
            if row.limit() != Some(limit) {
                row.update(id, 0, flags::BOX_DUE);
                return;
            }
            boxes.push((id, Basis::of_limit(limit)));
            if budget::ARMINGS.take(self.began) {
                expirations::wake(row, id);
            }
        }
    }

    pub(super) fn end(self) -> Scanned {
        let Self { began, shortest, latest, soonest, cost } = self;
        // Work that begins right after this scan must be seen before its deadline, and if possible in time to be armed.
        // There is a pause between two scans that find something, so that many rows with many deadlines do not add up.
        // This costs a hundredth of a core, or a tenth if there are short thresholds and very many rows.
        let period = (shortest / ARM_AT).clamp(SHORTEST_PERIOD, LONGEST_PERIOD);
        let pause = (period / 4)
            .max(cost.saturating_mul(COST_FACTOR))
            .min(latest.max(cost.saturating_mul(10)))
            .max(SHORTEST_PERIOD);
        let next = soonest.clamp(began + pause, (began + period).max(began + pause));
        Scanned { next, shortest }
    }
}

/// Marks the row's deadline as known, and sets `flags`. Returns the flags from before, or `None` if the row is gone or
/// `basis` no longer holds.
fn queue(row: &'static Row, id: RowId, basis: Basis, flags: u32) -> Option<u32> {
    let before = row.update(id, flags | flags::QUEUED, 0)?;
    // Either this sees that the clock was stopped or the threshold changed, or the thread that did so sees the flags
    // and clears them: `Row::forget_deadline`.
    fence(Ordering::SeqCst);
    if Basis::of(row) != Some(basis) {
        row.update(id, 0, flags::QUEUED);
        return None;
    }
    Some(before)
}

/// Makes each poll of the work traced from now on. Also adds the row to `armed`, so that the
/// first poll is asked for. Returns false if the row is gone or `basis` no longer holds.
fn arm(row: &'static Row, id: RowId, basis: Basis, now: u64, armed: &mut Vec<RowId>) -> bool {
    let outdated = {
        let Some(mut details) = row.details(id) else { return false };
        // What a dump or a diagnosis has asked for before says nothing if it was polled since.
        let is_outdated =
            row.flags() & flags::TRACED == 0 && details.trace.as_ref().is_some_and(|trace| trace.polls != row.polls());
        let outdated = if is_outdated { details.trace.take() } else { None };
        let trace = details.trace.get_or_insert_with(|| Box::new(Trace::new(now, true)));
        if row.poller().is_polling() {
            trace.note_polling(now);
        }
        outdated
    };
    // Outside of the lock: the end of a span is other people's code.
    drop(outdated);
    let Some(before) = queue(row, id, basis, flags::ARMED) else { return false };
    let armed_before = before & flags::ARMED & !initial_flags() != 0;
    if !armed_before && before & flags::BOX == 0 {
        count(&COUNTS.armed);
    }
    if before & flags::ARMED == 0 && !row.poller().is_polling() {
        armed.push(id);
    }
    true
}
