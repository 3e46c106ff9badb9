//! The waker of a row. It names the row, and owns nothing. Waking a clone of it wakes, through the row, the task that
//! polls the row's work at that time, or polled it last.
//!
//! It is the same from poll to poll, so that a future which compares wakers sees that it has this one already. A traced
//! poll must be seen to register, so each row has two of them in turn: [`EVEN`] and [`ODD`].
//!
//! A row counts the clones, and keeps the waker that it was polled with only while there are any: see
//! `inflight::lending`.

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::sync::OnceLock;
use std::task::{RawWaker, RawWakerVTable, Waker};

use super::arena::Event;
use super::offer;
#[cfg(heeler_copies)]
use super::sys;
use super::task::Tracer;

/// Whether a row's name fits into a waker.
pub(crate) const LENDS: bool = usize::BITS >= u64::BITS;

/// The rows, as their wakers know them. Names of rows that are over are allowed.
///
/// All of this may happen under a lock of the waker's owner, and on any thread.
pub(crate) trait Rows: Sync {
    fn cloned(&self, name: u64);
    fn dropped(&self, name: u64);
    /// heeler itself keeps the row's waker for a while.
    fn held(&self, name: u64);
    fn released(&self, name: u64);
    fn wake(&self, name: u64);
}

static ROWS: OnceLock<&'static dyn Rows> = OnceLock::new();

/// The functions of the wakers do not read what their data points to, because it is a number.
static EVEN: RawWakerVTable = RawWakerVTable::new(clone_even, wake, wake_by_ref_even, drop_clone);
static ODD: RawWakerVTable = RawWakerVTable::new(clone_odd, wake, wake_by_ref_odd, drop_clone);
/// heeler's own wakers, which count as holds. Only these keep the row's waker if no future has a clone.
static HOLD: RawWakerVTable = RawWakerVTable::new(clone_hold, wake_hold, wake_named, release);
/// heeler's own wakers, which count for nothing.
static NAME: RawWakerVTable = RawWakerVTable::new(clone_hold, wake_named, wake_named, drop_nothing);

/// A waker that is lent for the time of a poll. It isn't a clone, so dropping it drops none.
pub(crate) struct Lent(ManuallyDrop<Waker>);

impl Deref for Lent {
    type Target = Waker;

    fn deref(&self) -> &Waker {
        &self.0
    }
}

impl Lent {
    /// `raw` must be valid as long as this is.
    pub(super) fn new(raw: RawWaker) -> Self {
        // SAFETY: as the caller promises, the functions of its table can do with its data what a waker's do. It is
        // never dropped.
        Self(ManuallyDrop::new(unsafe { Waker::from_raw(raw) }))
    }
}

/// Which of its two wakers a row lends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowWaker {
    pub(crate) name: u64,
    pub(crate) odd: bool,
}

impl RowWaker {
    /// Returns the row's waker. `None` if it isn't one, or is one of heeler's own.
    pub(crate) fn of(waker: &Waker) -> Option<Self> {
        let odd = std::ptr::eq(waker.vtable(), &ODD);
        (odd || std::ptr::eq(waker.vtable(), &EVEN)).then(|| Self { name: waker.data().addr() as u64, odd })
    }

    pub(crate) fn lend(self, rows: &'static dyn Rows) -> Lent {
        ROWS.get_or_init(|| rows);
        self.to_offer()
    }

    /// Returns the same waker, for a question that must not leave a real clone behind.
    pub(super) fn to_offer(self) -> Lent {
        Lent::new(raw(self.name, if self.odd { &ODD } else { &EVEN }))
    }
}

fn raw(name: u64, table: &'static RawWakerVTable) -> RawWaker {
    RawWaker::new(std::ptr::without_provenance(name as usize), table)
}

/// Returns a waker that only names a row and keeps no waker.
pub(crate) fn named(name: u64) -> Waker {
    // SAFETY: the functions of the table treat the data as a number.
    unsafe { Waker::from_raw(raw(name, &NAME)) }
}

/// Returns a waker that makes the row keep the one that it is polled with.
pub(crate) fn hold(name: u64) -> Waker {
    if let Some(rows) = ROWS.get() {
        rows.held(name);
    }
    // SAFETY: as above.
    unsafe { Waker::from_raw(raw(name, &HOLD)) }
}

/// Returns the name in a waker of one of these two kinds.
pub(crate) fn name_of(waker: &Waker) -> Option<u64> {
    let is_own = std::ptr::eq(waker.vtable(), &NAME) || std::ptr::eq(waker.vtable(), &HOLD);
    is_own.then(|| waker.data().addr() as u64)
}

thread_local! {
    /// The traced polls that are going on here, innermost first, whose waker is a row's.
    static TRACERS: Cell<*const Tracer<'static>> = const { Cell::new(std::ptr::null()) };
}

/// Keeps a tracer in the thread's list until this is dropped.
pub(super) struct Linked(*const Tracer<'static>);

impl Linked {
    /// The tracer's owner must drop this first.
    pub(super) fn new(tracer: &Tracer<'_>) -> Self {
        let this = std::ptr::from_ref(tracer).cast();
        TRACERS.set(this);
        Self(this)
    }

    /// Returns the one that is innermost now.
    pub(super) fn innermost() -> *const Tracer<'static> {
        TRACERS.get()
    }
}

impl Drop for Linked {
    fn drop(&mut self) {
        // SAFETY: the tracer is dropped after this; see `new`.
        let outer = unsafe { &*self.0 }.outer.get();
        let mut at = TRACERS.get();
        if at == self.0 {
            TRACERS.set(outer);
            return;
        }
        // Polls on coroutines, which were switched in the middle of them, need not end in the order in which they
        // began. So it is taken out from wherever it is.
        //
        // SAFETY: all in the list are polls that are going on, because each takes itself out before it goes.
        while let Some(tracer) = unsafe { at.as_ref() } {
            if tracer.outer.get() == self.0 {
                tracer.outer.set(outer);
                return;
            }
            at = tracer.outer.get();
        }
    }
}

/// Visits the traced polls on this thread that have lent this waker, from that one outwards.
pub(super) fn tracers(mut at: *const Tracer<'static>, waker: RowWaker, mut visit: impl FnMut(&Tracer<'static>)) {
    // SAFETY: the list has tracers of polls that are going on. Each is taken out before it goes, even if its poll
    // panics, and in whatever order they end: see `Linked`. A coroutine that moves to another thread in the middle of a
    // poll is not supported. It would take along every thread-local of the code that it runs.
    while let Some(tracer) = unsafe { at.as_ref() } {
        if tracer.lent == Some(waker) {
            visit(tracer);
        }
        at = tracer.outer.get();
    }
}

// SAFETY (of all functions of the tables): they treat the data as a number and do not read what is there.

unsafe fn clone_even(data: *const ()) -> RawWaker {
    if let Some(instead) = offer::cloned() {
        return instead;
    }
    #[cfg(heeler_copies)]
    see(data, false, Event::Clone, sys::registers());
    #[cfg(not(heeler_copies))]
    see(data, false, Event::Clone);
    cloned(data);
    RawWaker::new(data, &EVEN)
}

unsafe fn clone_odd(data: *const ()) -> RawWaker {
    if let Some(instead) = offer::cloned() {
        return instead;
    }
    #[cfg(heeler_copies)]
    see(data, true, Event::Clone, sys::registers());
    #[cfg(not(heeler_copies))]
    see(data, true, Event::Clone);
    cloned(data);
    RawWaker::new(data, &ODD)
}

unsafe fn wake_by_ref_even(data: *const ()) {
    if offer::woken() {
        return;
    }
    #[cfg(heeler_copies)]
    see(data, false, Event::Wake, sys::registers());
    #[cfg(not(heeler_copies))]
    see(data, false, Event::Wake);
    wake_row(data);
}

unsafe fn wake_by_ref_odd(data: *const ()) {
    if offer::woken() {
        return;
    }
    #[cfg(heeler_copies)]
    see(data, true, Event::Wake, sys::registers());
    #[cfg(not(heeler_copies))]
    see(data, true, Event::Wake);
    wake_row(data);
}

/// Called only on a clone, because what is lent is lent by reference. So it isn't work of this poll that yields.
unsafe fn wake(data: *const ()) {
    wake_row(data);
    dropped(data);
}

unsafe fn drop_clone(data: *const ()) {
    dropped(data);
}

unsafe fn clone_hold(data: *const ()) -> RawWaker {
    if let Some(rows) = ROWS.get() {
        rows.held(data.addr() as u64);
    }
    RawWaker::new(data, &HOLD)
}

unsafe fn wake_hold(data: *const ()) {
    wake_row(data);
    released(data);
}

unsafe fn wake_named(data: *const ()) {
    wake_row(data);
}

unsafe fn release(data: *const ()) {
    released(data);
}

unsafe fn drop_nothing(_: *const ()) {}

/// Copies the stack for each traced poll that has lent this waker, with the registers of the caller, whose frame still
/// exists.
#[inline]
fn see(data: *const (), odd: bool, event: Event, #[cfg(heeler_copies)] registers: super::snapshot::Registers) {
    tracers(Linked::innermost(), RowWaker { name: data.addr() as u64, odd }, |tracer| {
        #[cfg(heeler_copies)]
        tracer.copy(event, registers);
        #[cfg(not(heeler_copies))]
        tracer.walk(event);
    });
}

fn cloned(data: *const ()) {
    if let Some(rows) = ROWS.get() {
        rows.cloned(data.addr() as u64);
    }
}

fn dropped(data: *const ()) {
    if let Some(rows) = ROWS.get() {
        rows.dropped(data.addr() as u64);
    }
}

fn released(data: *const ()) {
    if let Some(rows) = ROWS.get() {
        rows.released(data.addr() as u64);
    }
}

fn wake_row(data: *const ()) {
    if let Some(rows) = ROWS.get() {
        rows.wake(data.addr() as u64);
    }
}

/// Returns the names of the functions that capture a stack within the call of a waker.
#[cfg(test)]
pub(super) fn names_of_callbacks() -> [&'static str; 4] {
    use super::task::name_of;
    [name_of(clone_even), name_of(clone_odd), name_of(wake_by_ref_even), name_of(wake_by_ref_odd)]
}
