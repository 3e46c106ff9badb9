//! Which waker work is polled with.
//!
//! A tokio task is polled with its own waker, and its row keeps a clone, because the task lives until it is done, no
//! matter who has its waker. Other executors drop a task that nobody can wake any more, so a row must not be the last
//! to have its waker. There the work is polled with the waker of the *row*, which is the same at each poll. The row
//! keeps the executor's waker only while its own has clones, or a poll goes on, or, if it is a box, until its limit.
//! Traced polls work like this with every executor.
//!
//! A future that is polled within the work may outlive it and keep the row's waker. For example, each next item of a
//! stream is awaited by a new future. So a row is free only when its waker has no clones any more. Until then it
//! drains.
//!
//! ```text
//! leaf ── clone of the row's waker ──▶ row ── clone of the executor's ──▶ task ──▶ future ──▶ leaf
//! ```
//!
//! Rows within rows pass on the waker of the outermost row. They know its name, and wake that.

use std::sync::atomic::Ordering;
use std::task::Waker;

use super::clones::{row_of, rows};
use super::registered::wake_self;
use super::row::{ASKED, ASKED_AGAIN, Details, NOBODY, OTHER};
use super::{Registered, Row, executors, flags};
use crate::capture::RowId;
use crate::capture::{self, RowWaker};

/// Which of the row's two wakers was lent last. The other bits count its holds.
const ODD: u8 = 1 << 7;
/// At most this many holds are counted. If there are more, the executor's waker is kept until the work ends.
const MANY_HOLDS: u8 = ODD - 1;

/// Returns the state of a row's `waker` field while it has that waker.
pub(super) fn state_of(waker: &Waker) -> usize {
    if executors::is_tokio_task(waker) { waker.data().addr() } else { OTHER }
}

// All of these run under the row's lock.
impl Row {
    pub(super) fn add_hold(&self) {
        let holds = self.holds.load(Ordering::Relaxed);
        if holds & MANY_HOLDS != MANY_HOLDS {
            self.holds.store(holds + 1, Ordering::Relaxed);
        }
    }

    /// Removes one hold. Returns the waker, to be dropped, if that was the last.
    pub(super) fn remove_hold(&self, id: RowId) -> Option<Waker> {
        let mut details = self.details(id)?;
        let holds = self.holds.load(Ordering::Relaxed);
        if !matches!(holds & MANY_HOLDS, 0 | MANY_HOLDS) {
            self.holds.store(holds - 1, Ordering::Relaxed);
        }
        self.let_go(&mut details)
    }

    /// Returns whether the executor's waker may still be asked for.
    pub(super) fn is_wanted(&self) -> bool {
        self.has_clones() || self.holds.load(Ordering::Relaxed) & MANY_HOLDS != 0 || self.flags() & flags::BOX != 0
    }

    /// Returns the executor's waker, to be dropped, if it cannot be asked for any more.
    pub(super) fn let_go(&self, details: &mut Details) -> Option<Waker> {
        if self.is_wanted() {
            return None;
        }
        let waker = details.waker.take_if(|waker| !executors::is_tokio(waker))?;
        self.waker.store(NOBODY, Ordering::Relaxed);
        Some(waker)
    }

    /// Switches to the other one of the row's wakers.
    fn flip(&self) -> bool {
        let holds = self.holds.load(Ordering::Relaxed) ^ ODD;
        self.holds.store(holds, Ordering::Relaxed);
        holds & ODD != 0
    }

    fn is_odd(&self) -> bool {
        self.holds.load(Ordering::Relaxed) & ODD != 0
    }
}

/// A loan of the row's waker to a poll.
pub(super) struct Loan<'a> {
    registered: &'a Registered,
    pub(super) waker: RowWaker,
    /// Somebody has asked for the waker while there was none, perhaps after this poll checked the flags.
    asked: bool,
}

impl<'a> Loan<'a> {
    /// Begins a loan, before a poll with `waker`. It lasts until after the poll. A traced poll gets the `other` of the
    /// row's wakers. Returns `None` if the row has other work by now.
    pub(super) fn begin(registered: &'a Registered, waker: &Waker, other: bool) -> Option<Self> {
        let (row, id) = (registered.row(), registered.id());
        let mut details = row.details(id)?;
        let mut previous = None;
        if !details.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            // Cloning and dropping a waker may run any code, so it happens without our lock.
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

    /// Runs after a poll with `waker` that is pending.
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

/// Returns the waker for a traced poll within rows. It is the other one of the outermost row's, unless an outer poll is
/// traced and has switched it.
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

/// Returns whether that row's waker has clones.
pub(super) fn is_kept(waker: RowWaker) -> bool {
    row_of(waker.name).is_some_and(|(row, id)| row.is_live(id) && row.has_clones())
}

/// What a row keeps when it is polled with `waker`.
pub(super) enum Keep<'a> {
    /// A clone of the waker itself: tokio's, or any other where no row's waker is lent.
    Clone(&'a Waker),
    /// The name of the row that the waker belongs to.
    Name(u64),
}

impl<'a> Keep<'a> {
    pub(super) fn of(waker: &'a Waker) -> Self {
        // A traced poll's waker lives no longer than the poll, so this uses the waker that it stands for.
        let original = capture::original(waker);
        match capture::row_of(waker).filter(|_| !executors::is_tokio(original)) {
            Some(row) => Self::Name(row.name),
            None => Self::Clone(original),
        }
    }
}

/// Returns a waker to be woken later, which is recorded nowhere.
pub(super) fn to_wake(waker: &Waker) -> Waker {
    match Keep::of(waker) {
        Keep::Clone(original) => original.clone(),
        Keep::Name(name) => capture::hold(name),
    }
}
