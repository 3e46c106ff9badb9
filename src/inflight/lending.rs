//! Which waker work is polled with.
//!
//! A task of tokio's is polled with its own, and its row keeps a clone: it lives until it is done, whoever has its waker.
//! Other executors drop a task that nobody can wake any more, and so a row must not be the last to have its waker: the work
//! is polled with the waker of the *row*, the same at each poll, and the row keeps the executor's only as long as that
//! has clones, or its poll goes on, or it is a box: then until its limit. Polls that are traced are polled so everywhere.
//!
//! What is polled within the work may outlive it, with the row's waker: a stream's next item is awaited by a future of its own
//! each time. So a row is free only when its waker has no clones any more. Until then it drains.
//!
//! ```text
//! leaf ── clone of the row's waker ──▶ row ── clone of the executor's ──▶ task ──▶ future ──▶ leaf
//! ```
//!
//! Rows within rows pass the waker of the outermost on: they know its name, and wake that.

use std::sync::atomic::Ordering;
use std::task::Waker;

use super::clones::{row_of, rows};
use super::registered::wake_self;
use super::row::{ASKED, ASKED_AGAIN, Details, NOBODY, OTHER};
use super::{Registered, Row, executors, flags};
use crate::capture::RowId;
use crate::capture::{self, RowWaker};

/// Which of the row's two wakers was lent last; the other bits count its holds.
const ODD: u8 = 1 << 7;
/// So many holds are counted. Where there are more, the executor's waker is kept until the work ends.
const MANY_HOLDS: u8 = ODD - 1;

/// What a row's `waker` is while it has that one.
pub(super) fn state_of(waker: &Waker) -> usize {
    if executors::is_tokio_task(waker) { waker.data().addr() } else { OTHER }
}

// All of these under the row's lock.
impl Row {
    pub(super) fn add_hold(&self) {
        let holds = self.holds.load(Ordering::Relaxed);
        if holds & MANY_HOLDS != MANY_HOLDS {
            self.holds.store(holds + 1, Ordering::Relaxed);
        }
    }

    /// One hold less. Returns the waker, to be dropped, if that was the last.
    pub(super) fn remove_hold(&self, id: RowId) -> Option<Waker> {
        let mut details = self.details(id)?;
        let holds = self.holds.load(Ordering::Relaxed);
        if !matches!(holds & MANY_HOLDS, 0 | MANY_HOLDS) {
            self.holds.store(holds - 1, Ordering::Relaxed);
        }
        self.let_go(&mut details)
    }

    /// Whether anybody may ask for the executor's waker.
    pub(super) fn is_wanted(&self) -> bool {
        self.has_clones() || self.holds.load(Ordering::Relaxed) & MANY_HOLDS != 0 || self.flags() & flags::BOX != 0
    }

    /// The executor's waker, to be dropped, if nobody can ask for it any more.
    pub(super) fn let_go(&self, details: &mut Details) -> Option<Waker> {
        if self.is_wanted() {
            return None;
        }
        let waker = details.waker.take_if(|waker| !executors::is_tokio(waker))?;
        self.waker.store(NOBODY, Ordering::Relaxed);
        Some(waker)
    }

    /// The other one of the row's wakers from here on.
    fn flip(&self) -> bool {
        let holds = self.holds.load(Ordering::Relaxed) ^ ODD;
        self.holds.store(holds, Ordering::Relaxed);
        holds & ODD != 0
    }

    fn is_odd(&self) -> bool {
        self.holds.load(Ordering::Relaxed) & ODD != 0
    }
}

/// The row's waker is lent to a poll.
pub(super) struct Loan<'a> {
    registered: &'a Registered,
    pub(super) waker: RowWaker,
    /// Somebody has asked for the waker while there was none, perhaps after this poll looked what is asked of it.
    asked: bool,
}

impl<'a> Loan<'a> {
    /// From before a poll with `waker` until after it. A traced poll has the `other` of the row's wakers. `None` if the row
    /// is not one's own any more.
    pub(super) fn begin(registered: &'a Registered, waker: &Waker, other: bool) -> Option<Self> {
        let (row, id) = (registered.row(), registered.id());
        let mut details = row.details(id)?;
        let mut previous = None;
        if !details.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            // Whatever cloning a waker does, and dropping one, it does without our lock.
            drop(details);
            let clone = waker.clone();
            details = row.details(id)?;
            previous = details.waker.replace(clone);
        }
        let state = state_of(waker);
        let asked = matches!(row.waker.load(Ordering::Relaxed), ASKED | ASKED_AGAIN);
        row.waker.store(state, Ordering::Relaxed);
        row.add_hold();
        let odd = if other { row.flip() } else { row.is_odd() };
        drop(details);
        drop(previous);
        Some(Self { registered, waker: RowWaker { name: id.to_bits(), odd }, asked })
    }

    pub(super) fn lend(&self) -> capture::Lent {
        self.waker.lend(rows())
    }

    /// After a poll with `waker` that is pending.
    pub(super) fn pending(&self, waker: &Waker) {
        if self.asked {
            wake_self(to_wake(waker));
        }
    }
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        drop(self.registered.row().remove_hold(self.registered.id()));
    }
}

/// The waker that a traced poll within rows is to have: the other one of the outermost row's, unless a poll around is traced and
/// has changed it.
pub(super) fn passed_on(waker: &Waker) -> Option<RowWaker> {
    let own = RowWaker::of(waker)?;
    if !capture::is_traced(waker)
        && let Some((row, id)) = row_of(own.name)
        && let Some(_details) = row.details(id)
    {
        return Some(RowWaker { odd: row.flip(), ..own });
    }
    Some(own)
}

/// Whether somebody has a clone of that row's waker.
pub(super) fn is_kept(waker: RowWaker) -> bool {
    row_of(waker.name).is_some_and(|(row, id)| row.is_live(id) && row.has_clones())
}

/// What a row keeps that is polled with `waker`.
pub(super) enum Keep<'a> {
    /// A clone of that: tokio's, or whatever there is where no row's waker is lent.
    Clone(&'a Waker),
    /// The name of the row whose waker that is.
    Name(u64),
}

impl<'a> Keep<'a> {
    pub(super) fn of(waker: &'a Waker) -> Self {
        // Within a traced poll, whose waker lives no longer than that: what that one stands for.
        let original = capture::original(waker);
        match capture::row_of(waker).filter(|_| !executors::is_tokio(original)) {
            Some(row) => Self::Name(row.name),
            None => Self::Clone(original),
        }
    }
}

/// To be woken later, and nowhere recorded.
pub(super) fn to_wake(waker: &Waker) -> Waker {
    match Keep::of(waker) {
        Keep::Clone(original) => original.clone(),
        Keep::Name(name) => capture::hold(name),
    }
}
