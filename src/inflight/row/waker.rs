//! The waker of a row: who has it, and who has asked for it.

use std::task::Waker;

use super::Row;
use crate::capture::RowId;
use crate::inflight::clones::reaches_somebody;
use crate::sync::atomic::Ordering;

/// States of a row's waker, which cannot be addresses of tasks.
///
/// ```text
/// NOBODY ── a poll is pending ──▶ has one ── the monitor asks ──▶ WOKEN ── a poll is pending ──▶ has one
///    └── the monitor asks ──▶ ASKED                                 └── the monitor asks ──▶ ASKED_AGAIN
/// ```
///
/// In the last two states, a waker that would be put in is woken instead, which leads to `WOKEN`. So no request for a
/// poll is lost. If a row's waker is lent, `WOKEN` lasts only while some thread has the executor's waker in hand to
/// wake it, and `ASKED_AGAIN` means that there is a reason to wake it once more: see `clones`.
pub(in crate::inflight) const NOBODY: usize = 0;
/// The waker was moved out to be woken. A poll will follow, unless the work ends or its task does not poll it.
pub(in crate::inflight) const WOKEN: usize = 1;
/// There was no waker to move out.
pub(in crate::inflight) const ASKED: usize = 2;
/// The same, but one was moved out before.
pub(in crate::inflight) const ASKED_AGAIN: usize = 3;
/// There is one, which isn't a tokio task's.
pub(in crate::inflight) const OTHER: usize = 4;

/// The outcome of asking for a row's waker.
#[derive(Debug)]
pub(crate) enum Asked {
    /// To be woken.
    Waker(Waker),
    /// It is being woken, or has been. A poll will follow.
    Underway,
    /// Nothing can be woken. Either the work has not been polled yet, or is in its first poll, and will be woken then,
    /// or it has kept no waker.
    Nobody,
}

impl Row {
    /// Returns whether the row has the waker of this tokio task. For the owner. The row's own clone keeps the task
    /// alive, so no other task can have its address.
    ///
    /// The owner may not see that the monitor has just taken it. Then a poll will follow, which sees it.
    #[inline]
    pub(crate) fn has_task(&self, waker: &Waker) -> bool {
        self.waker.load(Ordering::Relaxed) == waker.data().addr()
    }

    /// Returns whether the row has a waker for which `is` returns true. For the owner.
    pub(crate) fn has_waker(&self, id: RowId, is: impl FnOnce(&Waker) -> bool) -> bool {
        self.details(id).is_some_and(|details| details.waker.as_ref().is_some_and(is))
    }

    /// Puts a waker in. For the owner, after a poll. Returns one to drop, and one to wake if somebody has asked for it
    /// while there was none.
    pub(crate) fn put_waker(&self, id: RowId, waker: Waker, is_task: bool) -> (Option<Waker>, Option<Waker>) {
        let Some(mut details) = self.details(id) else { return (Some(waker), None) };
        if matches!(self.waker.load(Ordering::Relaxed), ASKED | ASKED_AGAIN) {
            self.waker.store(WOKEN, Ordering::Relaxed);
            return (None, Some(waker));
        }
        self.waker.store(if is_task { waker.data().addr() } else { OTHER }, Ordering::Relaxed);
        (details.waker.replace(waker), None)
    }

    /// Moves the waker out, to be woken outside the lock. Returns `None` if the row doesn't belong to `id` any more.
    ///
    /// A thread that has set a flag before can rely on a poll that sees it. The waker is woken after that, now or at
    /// the end of the poll that is going on.
    pub(crate) fn take_waker(&self, id: RowId) -> Option<Asked> {
        let mut details = self.details(id)?;
        let (next, asked) = match (details.waker.take(), self.waker.load(Ordering::Relaxed)) {
            (Some(waker), state) if !reaches_somebody(&waker) => {
                details.waker = Some(waker);
                (state, Asked::Nobody)
            }
            (Some(waker), _) => (WOKEN, Asked::Waker(waker)),
            (None, NOBODY | ASKED) => (ASKED, Asked::Nobody),
            (None, _) => (ASKED_AGAIN, Asked::Underway),
        };
        self.waker.store(next, Ordering::Relaxed);
        Some(asked)
    }

    /// Returns what [`Row::waker`] is: one of the states from [`NOBODY`] on, or a task.
    pub(in crate::inflight) fn waker_state(&self) -> usize {
        self.waker.load(Ordering::Relaxed)
    }
}
