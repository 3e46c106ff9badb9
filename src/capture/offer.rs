//! Finds out whether somebody already has a waker, by offering it once more and watching whether they clone it.
//!
//! tokio has a list of what yielded (`yield_now`, or a budget that was used up), and wakes all of it as soon as the
//! thread has nothing else to do. A waker is cloned for that list unless the last one in it is the same. If the thread
//! offers a poll's waker right after the poll, this shows whether that poll yielded, whatever the functions on its
//! stack are called and wherever they were inlined. Then another waker is offered, which cannot be in the list. Only if
//! that one is cloned do the answers mean what they seem to.
//!
//! What is cloned for the list in the meantime is a waker that wakes nothing. It is at the end of the list, so that the
//! next question on the same thread is about what comes after it.

use std::cell::Cell;
use std::ptr;
use std::task::{RawWaker, RawWakerVTable, Waker};

use super::row_waker::{Linked, RowWaker, tracers};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Offer {
    Nothing,
    /// Not touched yet.
    Untouched,
    Cloned,
    Woken,
}

thread_local! {
    /// What has happened to the waker that is on offer on this thread.
    static OFFER: Cell<Offer> = const { Cell::new(Offer::Nothing) };
}

/// For the clone of a row's waker: returns what to clone instead if the waker is only on offer.
#[inline]
pub(super) fn cloned() -> Option<RawWaker> {
    if OFFER.get() == Offer::Nothing {
        return None;
    }
    OFFER.set(Offer::Cloned);
    Some(RawWaker::new(Waker::noop().data(), Waker::noop().vtable()))
}

/// For a call of a row's waker: returns whether the waker is only on offer, and must not wake anything.
#[inline]
pub(super) fn woken() -> bool {
    let is_offered = OFFER.get() != Offer::Nothing;
    if is_offered {
        OFFER.set(Offer::Woken);
    }
    is_offered
}

/// The vtable of a waker that nobody has.
static STRANGER: RawWakerVTable = RawWakerVTable::new(clone_stranger, ignore, ignore, ignore);

unsafe fn clone_stranger(data: *const ()) -> RawWaker {
    cloned().unwrap_or(RawWaker::new(data, &STRANGER))
}

unsafe fn ignore(_: *const ()) {
    woken();
}

fn offer(waker: &Waker, to: &impl Fn(&Waker)) -> Offer {
    /// Ends the offer even if that panics.
    struct Ended;
    impl Drop for Ended {
        fn drop(&mut self) {
            OFFER.set(Offer::Nothing);
        }
    }
    let _ended = Ended;
    OFFER.set(Offer::Untouched);
    to(waker);
    OFFER.get()
}

/// Returns whether the last waker that `to` has cloned on this thread is that row's. From here on it isn't any more.
///
/// `to` clones the waker that it is called with, unless it is the same as the last, or it wakes it. It must do nothing
/// else that could clone or wake a row's waker.
pub(crate) fn has_kept(row: RowWaker, to: impl Fn(&Waker)) -> bool {
    // SAFETY: the functions of the table do not look at their data.
    let stranger = unsafe { Waker::from_raw(RawWaker::new(ptr::null(), &STRANGER)) };
    offer(&row.to_offer(), &to) == Offer::Untouched && offer(&stranger, &to) == Offer::Cloned
}

/// Returns whether a poll that is going on around here, and has lent this waker, has seen it cloned since it was last
/// [told](tell_around).
pub(crate) fn is_asked_around(row: RowWaker) -> bool {
    let mut is = false;
    // SAFETY: see `Tracer::is_mine`.
    tracers(Linked::innermost(), row, |tracer| is |= tracer.is_mine() && unsafe { &*tracer.arena }.is_unsettled());
    is
}

/// Tells the polls that are going on around here, and have lent this waker, whether they yielded up to now.
pub(crate) fn tell_around(row: RowWaker, gave_way: bool) {
    tracers(Linked::innermost(), row, |tracer| {
        if tracer.is_mine() {
            // SAFETY: see `Tracer::is_mine`.
            unsafe { &mut *tracer.arena }.settle(gave_way);
        }
    });
}

#[cfg(all(test, not(heeler_loom)))]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// The waker of a row that doesn't exist.
    const ROW: RowWaker = RowWaker { name: u64::MAX, odd: false };
    const OTHER: RowWaker = RowWaker { name: u64::MAX, odd: true };

    /// Works like tokio's list.
    fn defer(list: &RefCell<Vec<Waker>>, waker: &Waker) {
        let mut list = list.borrow_mut();
        if !list.last().is_some_and(|last| last.will_wake(waker)) {
            list.push(waker.clone());
        }
    }

    /// Guards: only the row's own waker counts, and only once.
    #[test]
    fn a_kept_waker_is_not_cloned_again() {
        let list = RefCell::new(Vec::new());
        let kept = |row: RowWaker| has_kept(row, |waker| defer(&list, waker));
        assert!(!kept(ROW));
        defer(&list, &ROW.to_offer());
        assert!(!kept(OTHER), "the row's other waker is of another poll");
        defer(&list, &ROW.to_offer());
        assert!(kept(ROW));
        assert!(!kept(ROW), "the next question is about what comes after");
        // These two were really kept. The waker that was cloned for a question belongs to nobody.
        assert_eq!(list.borrow().iter().filter(|waker| RowWaker::of(waker).is_some()).count(), 2);
    }

    /// Guards: if the list works in another way than is known, nothing is concluded from it.
    #[test]
    fn nothing_is_concluded_from_an_unknown_list() {
        assert!(!has_kept(ROW, |_| {}));
        assert!(!has_kept(ROW, |waker| drop(waker.clone())));
        assert!(!has_kept(ROW, Waker::wake_by_ref));
    }

    #[test]
    fn a_panic_ends_the_offer() {
        let panics = || has_kept(ROW, |_| std::panic::resume_unwind(Box::new(())));
        assert!(std::panic::catch_unwind(panics).is_err());
        assert!(cloned().is_none());
    }
}
