//! Ownership of a row: it is free again when the owner is dropped, however that comes about.

use std::task::Waker;

use super::{Clock, Details, PolicyId, Row, RowId, flags, table};
use crate::{capture, monitor};

/// A live row and the duty to free it.
///
/// Two words, which travel in registers. What else the owner needs to know stands in the row: a larger value would be
/// moved by way of the stack, and to load it there just after it was stored in pieces stalls the processor.
#[derive(Debug)]
pub(crate) struct Registered {
    row: &'static Row,
    id: RowId,
}

impl Registered {
    /// Registers work that begins now, with a threshold in nanoseconds or `u64::MAX` for none; `None` if there is no row left.
    #[inline]
    pub(crate) fn new(policy: PolicyId, threshold: u64, extra: u32, fill: impl FnOnce(&mut Details)) -> Option<Self> {
        let row = table().allocate()?;
        let id = row.occupy(policy, threshold, Clock::get().ticks(), extra | monitor::initial_flags(), fill);
        monitor::expect(threshold);
        Some(Self { row, id })
    }

    /// Registers a box that begins at `started`, in ticks.
    #[inline]
    pub(crate) fn timebox(
        policy: PolicyId,
        limit: u64,
        started: u64,
        extra: u32,
        fill: impl FnOnce(&mut Details),
    ) -> Option<Self> {
        let row = table().allocate()?;
        let id = row.occupy(policy, limit, started, flags::BOX | extra | monitor::initial_flags(), fill);
        monitor::expect_box(policy, limit);
        Some(Self { row, id })
    }

    #[inline]
    pub(crate) fn row(&self) -> &'static Row {
        self.row
    }

    #[inline]
    pub(crate) fn id(&self) -> RowId {
        self.id
    }

    /// Whether the work has an outcome: dropping it then abandons nothing.
    #[inline]
    pub(crate) fn complete(&self, completed: bool) {
        self.row.set_completed(completed);
    }

    /// Remembers whom to wake, unless the row has this waker already.
    #[inline]
    pub(crate) fn keep_waker(&self, waker: &Waker) {
        let key = key(waker);
        if self.row.waker_key() == key {
            return;
        }
        if capture::is_tracing(waker) {
            // Within another traced poll: what is kept must not be the waker that lives as long as that poll.
            self.replace_traced(waker);
        } else {
            self.replace_waker(waker, key);
        }
    }

    #[cold]
    #[inline(never)]
    fn replace_traced(&self, waker: &Waker) {
        let waker = capture::original(waker);
        let key = key(waker);
        if self.row.waker_key() != key {
            self.replace_waker(waker, key);
        }
    }

    fn replace_waker(&self, waker: &Waker, key: u64) {
        let waker = waker.clone();
        let previous = self.row.details(self.id).and_then(|mut details| details.waker.replace(waker));
        self.row.set_waker_key(key);
        // Whatever a waker's destructor does, it does without our lock.
        drop(previous);
    }
}

/// The stored clone keeps the task alive, so that no other task's waker can have the same key meanwhile.
#[inline]
fn key(waker: &Waker) -> u64 {
    (waker.data() as usize as u64) ^ (std::ptr::from_ref(waker.vtable()) as usize as u64).rotate_left(32) | 1
}

impl Drop for Registered {
    #[inline]
    fn drop(&mut self) {
        release(self.row, self.id);
    }
}

/// A function of its own, so that the many places that may drop a row only ask whether there is one.
#[inline(never)]
fn release(row: &'static Row, id: RowId) {
    if !row.is_completed() {
        capture::forget_residue();
        monitor::dropped(row, id);
    }
    // The record may be the last to hold a span, whose end is other people's code: not under the row's lock. Only traced
    // work has one, and so the others pay for nothing but the question.
    #[cfg(feature = "otel")]
    if row.flags() & flags::ARMED != 0 {
        super::otel::forget_span(row, id);
    }
    let held = row.vacate();
    table().free(row);
    drop(held);
}
