//! Whether somebody has a waker already: that is seen by whether they clone it when they are offered it once more.
//!
//! tokio has a list of what gave way (`yield_now`, or a budget that was used up), and wakes it all as soon as the thread has
//! nothing else to do. A waker is cloned for that list unless the last one in it is the same. So whoever has the thread offer
//! a poll's waker right after the poll sees whether that poll gave way, whatever the functions on its stack are called and
//! wherever they were inlined. Another waker, which cannot be in the list, is offered then: only if that one is cloned do the
//! answers mean what they seem to.
//!
//! What is cloned meanwhile is a waker that wakes nobody. It stands at the end of the list, so that the next question on the
//! same thread is about what comes after it.

use std::cell::Cell;
use std::ptr;
use std::task::{RawWaker, RawWakerVTable, Waker};

use super::row_waker::{Linked, RowWaker, tracers};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Offer {
    Nothing,
    /// Nobody has touched it.
    Untouched,
    Cloned,
    Woken,
}

thread_local! {
    /// What becomes of the waker that is on offer on this thread.
    static OFFER: Cell<Offer> = const { Cell::new(Offer::Nothing) };
}

/// In the clone of a row's waker: what to clone instead if it is only on offer.
#[inline]
pub(super) fn cloned() -> Option<RawWaker> {
    if OFFER.get() == Offer::Nothing {
        return None;
    }
    OFFER.set(Offer::Cloned);
    Some(RawWaker::new(Waker::noop().data(), Waker::noop().vtable()))
}

/// In a call of a row's waker: whether it is only on offer, and is not to wake anybody.
#[inline]
pub(super) fn woken() -> bool {
    let is_offered = OFFER.get() != Offer::Nothing;
    if is_offered {
        OFFER.set(Offer::Woken);
    }
    is_offered
}

/// A waker that nobody has.
static STRANGER: RawWakerVTable = RawWakerVTable::new(clone_stranger, ignore, ignore, ignore);

unsafe fn clone_stranger(data: *const ()) -> RawWaker {
    cloned().unwrap_or(RawWaker::new(data, &STRANGER))
}

unsafe fn ignore(_: *const ()) {
    woken();
}

fn offer(waker: &Waker, to: &impl Fn(&Waker)) -> Offer {
    /// Also if that panics.
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

/// Whether the last waker that `to` has cloned on this thread is that row's. From here on it is nobody's.
///
/// `to` clones the waker that it is called with, unless it is the same as the last; or it wakes it. It must do nothing else
/// that could clone or wake a row's waker.
pub(crate) fn has_kept(row: RowWaker, to: impl Fn(&Waker)) -> bool {
    // SAFETY: the functions of the table do not look at their data.
    let stranger = unsafe { Waker::from_raw(RawWaker::new(ptr::null(), &STRANGER)) };
    offer(&row.to_offer(), &to) == Offer::Untouched && offer(&stranger, &to) == Offer::Cloned
}

/// Whether a poll that goes on around here, and has lent this waker, has seen it cloned since it was last [told](tell_around).
pub(crate) fn is_asked_around(row: RowWaker) -> bool {
    let mut is = false;
    // SAFETY: see `Tracer::is_mine`.
    tracers(Linked::innermost(), row, |tracer| is |= tracer.is_mine() && unsafe { &*tracer.arena }.is_unsettled());
    is
}

/// Tells the polls that go on around here, and have lent this waker, whether they gave way up to now.
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

    /// Of a row that there is not.
    const ROW: RowWaker = RowWaker { name: u64::MAX, odd: false };
    const OTHER: RowWaker = RowWaker { name: u64::MAX, odd: true };

    /// As tokio's list is.
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
        // Two that were really kept: whatever was cloned for a question is nobody's.
        assert_eq!(list.borrow().iter().filter(|waker| RowWaker::of(waker).is_some()).count(), 2);
    }

    /// Guards: where the list works in another way than is known, nothing is concluded from it.
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
