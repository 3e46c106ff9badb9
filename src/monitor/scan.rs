//! The look through the table: finds work that has come near its threshold, arms it, and says when to look again.

use std::sync::atomic::{Ordering, fence};

use super::basis::Basis;
use super::hunt::ask_for_poll;
use super::{budget, initial_flags};
use crate::figures::COUNTS;
use crate::inflight::{Policy, PolicyId, Row, RowId, Trace, flags, now, table};
use crate::sync::count;

/// Work is armed when this share of its threshold has passed.
const ARM_AT: u64 = 8;
/// The monitor may spend a hundredth of a core on looking.
const COST_FACTOR: u64 = 100;
const SHORTEST_PERIOD: u64 = 1_000_000;
const LONGEST_PERIOD: u64 = 60_000_000_000;

/// What a look came to.
#[derive(Debug)]
pub(super) struct Scanned {
    /// Work whose deadline is near, most of it armed, with what its deadlines follow from.
    pub(super) queued: Vec<(RowId, Basis)>,
    /// When to look next.
    pub(super) next: u64,
    /// The threshold that the next look is timed for.
    pub(super) shortest: u64,
}

/// Looks through the table once. Work with a threshold of `expected` nanoseconds may begin at any moment.
pub(super) fn scan(expected: u64) -> Scanned {
    let began = now();
    let mut shortest = Policy::all()
        .iter()
        .filter(|policy| policy.is_enabled())
        .map(|policy| u64::try_from(policy.threshold().as_nanos()).unwrap_or(u64::MAX))
        .min()
        .map_or(expected, |shortest| shortest.min(expected));
    // Work that begins right after this look must be seen by then.
    let mut latest = (shortest / 2).min(expected / ARM_AT);
    let mut soonest = u64::MAX;
    let mut queued = Vec::new();
    for row in table().rows() {
        let Some((id, flags)) = row.live() else { continue };
        let threshold = row.threshold();
        if threshold == u64::MAX {
            continue;
        }
        // Nobody reads the timeline of a box that has no layer: its polls need not be traced.
        let plain = flags & flags::BOX != 0 && row.policy() == PolicyId::NONE;
        shortest = shortest.min(if plain { threshold.saturating_mul(4) } else { threshold });
        latest = latest.min(threshold / 2);
        if flags & flags::QUEUED != 0 {
            continue;
        }
        let Some(basis) = Basis::of(row) else { continue };
        let near = basis.after(threshold / if plain { 2 } else { ARM_AT });
        if began < near {
            soonest = soonest.min(near);
        } else if if plain { queue(row, id, basis, 0).is_some() } else { arm(row, id, basis, began) } {
            queued.push((id, basis));
        }
    }
    let cost = now().saturating_sub(began);
    // Work that begins right after this look must be seen while its deadline lies ahead, and if possible in time to be
    // armed. Between two looks that find something, a pause, so that many rows with many deadlines do not add up: a
    // hundredth of a core, or a tenth where short thresholds stand beside very many rows.
    let period = (shortest / ARM_AT).clamp(SHORTEST_PERIOD, LONGEST_PERIOD);
    let pause = (period / 4)
        .max(cost.saturating_mul(COST_FACTOR))
        .min(latest.max(cost.saturating_mul(10)))
        .max(SHORTEST_PERIOD);
    let next = soonest.clamp(began + pause, (began + period).max(began + pause));
    Scanned { queued, next, shortest }
}

/// Marks the row's deadline as known, and sets `flags`. The flags from before; `None` if the row is gone, or `basis` is no
/// longer the case.
fn queue(row: &'static Row, id: RowId, basis: Basis, flags: u32) -> Option<u32> {
    let before = row.update(id, flags | flags::QUEUED, 0)?;
    // Either this sees that the clock was stopped or the threshold changed, or whoever did so sees the flags and clears
    // them: `Row::forget_deadline`.
    fence(Ordering::SeqCst);
    if Basis::of(row) != Some(basis) {
        row.update(id, 0, flags::QUEUED);
        return None;
    }
    Some(before)
}

/// From now on each poll of the work is traced; the first one, if the budget allows, at once. False if it is gone, or
/// `basis` is no longer the case.
fn arm(row: &'static Row, id: RowId, basis: Basis, now: u64) -> bool {
    {
        let Some(mut details) = row.details(id) else { return false };
        let trace = details.trace.get_or_insert_with(|| Box::new(Trace::new(now)));
        if row.poller().is_polling() {
            trace.note_polling(now);
        }
    }
    let Some(before) = queue(row, id, basis, flags::ARMED) else { return false };
    let armed_before = before & flags::ARMED & !initial_flags() != 0;
    if !armed_before {
        count(&COUNTS.armed);
    }
    if before & flags::ARMED == 0 && budget::ARMINGS.take(now) && !row.poller().is_polling() {
        ask_for_poll(row, id, now);
    }
    true
}
