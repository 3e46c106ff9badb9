//! The clones of a row's waker. They are counted, and wake the task that polls the row's work, or polled it last.
//!
//! ```text
//! the row has the executor's waker ── a clone is woken ──▶ in hand ── woken ──▶ the row has it again
//!                                                             └── another one is woken ──▶ woken once more
//! ```
//!
//! An executor's waker is never woken under a row's lock. It is taken out for that, and the thread that has it in hand
//! is told of further reasons.

use std::sync::atomic::Ordering;
use std::task::Waker;

use super::lending::state_of;
use super::row::{ASKED, ASKED_AGAIN, NOBODY, WOKEN};
use super::{Row, flags, table, waking};
use crate::capture::RowId;
use crate::capture::{self, Rows};

/// At most this many clones are counted. If there are more, the executor's waker is kept until the work ends.
pub(super) const MANY_CLONES: u16 = u16::MAX;

struct Table;

static ROWS: Table = Table;

/// Returns the rows, for their wakers.
pub(super) fn rows() -> &'static dyn Rows {
    &ROWS
}

/// Returns the row of that name, even if it is a parent process's.
pub(super) fn row_of(name: u64) -> Option<(&'static Row, RowId)> {
    let id = RowId::from_bits(name);
    table::row_for_waker(id).map(|row| (row, id))
}

impl Rows for Table {
    fn cloned(&self, name: u64) {
        let Some((row, id)) = row_of(name) else { return };
        row.add_clone(id);
    }

    fn dropped(&self, name: u64) {
        let Some((row, id)) = row_of(name) else { return };
        let (last, is_free) = row.remove_clone(id);
        if is_free {
            table::free(row);
        }
        drop(last);
    }

    fn held(&self, name: u64) {
        let Some((row, id)) = row_of(name) else { return };
        if let Some(_details) = row.details(id) {
            row.add_hold();
        }
    }

    fn released(&self, name: u64) {
        let Some((row, id)) = row_of(name) else { return };
        drop(row.remove_hold(id));
    }

    fn wake(&self, name: u64) {
        let Some((row, id)) = row_of(name) else { return };
        match row.take_for_clone(id) {
            Taken::Waker(waker) => wake(row, id, waker),
            // Not while it only waits for one of heeler's threads.
            Taken::InHand => {
                if let Some(waker) = waking::take_back(id, row.process()) {
                    row.begin_to_wake(id);
                    wake(row, id, waker);
                }
            }
            Taken::Nobody => {}
        }
    }
}

/// The waker to wake for a clone of the row's waker.
pub(super) enum Taken {
    Waker(Waker),
    /// Another thread has it to wake it, and will wake it once more.
    InHand,
    Nobody,
}

/// Wakes the waker that was taken out of the row. Puts it back while it may still be asked for, because a clone of the
/// row's waker may wake it again, even if the work is not polled any more.
pub(super) fn wake(row: &Row, id: RowId, waker: Waker) {
    /// Puts the waker back even if waking panics.
    struct InHand<'a>(&'a Row, RowId, Option<Waker>);

    impl Drop for InHand<'_> {
        fn drop(&mut self) {
            let Self(row, id, waker) = self;
            let unwanted = waker.take().and_then(|waker| row.give_back(*id, waker, false).0);
            drop(unwanted);
        }
    }

    let mut hand = InHand(row, id, Some(waker));
    while let Some(waker) = &hand.2 {
        waker.wake_by_ref();
        let Some(waker) = hand.2.take() else { return };
        let (left, again) = row.give_back(id, waker, true);
        hand.2 = left.filter(|_| again);
    }
}

/// Does the same for a waker that the monitor took from the row.
pub(super) fn wake_taken(id: RowId, waker: Waker) {
    match table().row(id) {
        Some(row) => wake(row, id, waker),
        None => waker.wake(),
    }
}

/// Returns whether a row's waker wakes anything. One that names another row may not.
pub(super) fn reaches_somebody(waker: &Waker) -> bool {
    capture::name_of(waker)
        .and_then(row_of)
        .is_none_or(|(row, id)| row.is_live(id) && !matches!(row.waker.load(Ordering::Relaxed), NOBODY | ASKED))
}

impl Row {
    pub(super) fn add_clone(&self, id: RowId) {
        if let Some(_details) = self.details_for_clones(id) {
            let clones = self.clones.load(Ordering::Relaxed);
            self.clones.store(clones.saturating_add(1), Ordering::Relaxed);
        }
    }

    /// Removes one clone. Returns the executor's waker, to be dropped, if that was the last clone, and whether the row
    /// is free now.
    pub(super) fn remove_clone(&self, id: RowId) -> (Option<Waker>, bool) {
        let Some(mut details) = self.details_for_clones(id) else { return (None, false) };
        let mut clones = self.clones.load(Ordering::Relaxed);
        if clones != MANY_CLONES {
            clones = clones.saturating_sub(1);
            self.clones.store(clones, Ordering::Relaxed);
        }
        // A parent process's row is never reused.
        let is_free = clones == 0 && self.flags() & flags::DRAINS != 0 && self.is_own();
        let last = if is_free { self.drained(&mut details) } else { self.let_go(&mut details) };
        (last, is_free)
    }

    /// Takes the executor's waker out, to wake it.
    pub(super) fn take_for_clone(&self, id: RowId) -> Taken {
        let Some(mut details) = self.details_for_clones(id) else { return Taken::Nobody };
        if let Some(waker) = details.waker.take() {
            self.waker.store(WOKEN, Ordering::Relaxed);
            return Taken::Waker(waker);
        }
        if matches!(self.waker.load(Ordering::Relaxed), WOKEN | ASKED_AGAIN) {
            self.waker.store(ASKED_AGAIN, Ordering::Relaxed);
            return Taken::InHand;
        }
        Taken::Nobody
    }

    /// Marks all earlier requests as met by the wake that follows.
    fn begin_to_wake(&self, id: RowId) {
        if let Some(_details) = self.details_for_clones(id)
            && self.waker.load(Ordering::Relaxed) == ASKED_AGAIN
        {
            self.waker.store(WOKEN, Ordering::Relaxed);
        }
    }

    /// Puts back what was taken out to be woken, if it may still be asked for and a poll has not brought another.
    /// Otherwise returns it. The second value is true if it must be woken once more, because there was a reason in the
    /// meantime.
    fn give_back(&self, id: RowId, waker: Waker, may_wake: bool) -> (Option<Waker>, bool) {
        let Some(mut details) = self.details_for_clones(id) else { return (Some(waker), false) };
        if details.waker.is_some() || !self.is_wanted() {
            return (Some(waker), false);
        }
        if may_wake && self.waker.load(Ordering::Relaxed) == ASKED_AGAIN {
            self.waker.store(WOKEN, Ordering::Relaxed);
            return (Some(waker), true);
        }
        self.waker.store(state_of(&waker), Ordering::Relaxed);
        details.waker = Some(waker);
        (None, false)
    }

    /// Returns whether the row's waker has clones.
    #[inline]
    pub(super) fn has_clones(&self) -> bool {
        self.clones.load(Ordering::Relaxed) != 0
    }
}
