//! Ownership of a row. When the owner is dropped, for whatever reason, the work is over. Then the row is free again,
//! unless its waker has clones. In that case it is free when the last clone is gone.

use std::task::Waker;

use super::lending::Keep;
use super::{Details, PolicyId, Row, ending, executors, flags, monitor_link, table, waking};
use crate::capture;
use crate::capture::RowId;
use crate::clock::Clock;

/// A live row and the duty to free it.
///
/// It is two words, which travel in registers. Everything else that the owner needs is in the row. A larger value would
/// be moved through the stack, and loading it there just after it was stored in pieces stalls the processor.
#[derive(Debug)]
pub(crate) struct Registered {
    row: &'static Row,
    id: RowId,
}

impl Registered {
    /// Registers work that begins now, with a threshold in nanoseconds or `u64::MAX` for none. Returns `None` if there
    /// is no row left. The monitor must be told of the threshold.
    #[inline]
    pub(crate) fn new(policy: PolicyId, threshold: u64, extra: u32, fill: impl FnOnce(&mut Details)) -> Option<Self> {
        let row = table::allocate()?;
        let id = row.occupy(policy, threshold, Clock::get().ticks(), extra | monitor_link::initial_flags(), fill);
        Some(Self { row, id })
    }

    /// Registers a box that begins at `started`, in ticks. The monitor must be told of the limit.
    #[inline]
    pub(crate) fn timebox(
        policy: PolicyId,
        limit: u64,
        started: u64,
        extra: u32,
        fill: impl FnOnce(&mut Details),
    ) -> Option<Self> {
        let row = table::allocate()?;
        let id = row.occupy(policy, limit, started, flags::BOX | extra | monitor_link::initial_flags(), fill);
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

    /// Sets whether the work has an outcome. If so, dropping it abandons nothing.
    #[inline]
    pub(crate) fn complete(&self, completed: bool) {
        self.row.set_completed(completed);
    }

    /// Remembers the waker, unless the row has it already.
    #[inline]
    pub(crate) fn keep_waker(&self, waker: &Waker) {
        if !(executors::is_tokio_task(waker) && self.row.has_task(waker)) {
            keep_waker(self.row, self.id, waker);
        }
    }
}

#[cold]
#[inline(never)]
pub(super) fn keep_waker(row: &'static Row, id: RowId, waker: &Waker) {
    let (waker, is_task) = match Keep::of(waker) {
        Keep::Clone(waker) => {
            let is_task = executors::is_tokio_task(waker);
            let has_it = if is_task { row.has_task(waker) } else { row.has_waker(id, |known| known.will_wake(waker)) };
            if has_it {
                return;
            }
            (waker.clone(), is_task)
        }
        Keep::Name(name) => {
            if row.has_waker(id, |known| capture::name_of(known) == Some(name)) {
                return;
            }
            // A box must be able to tell its work that its time is up, even if the work has kept no waker.
            let is_box = row.flags() & flags::BOX != 0;
            (if is_box { capture::hold(name) } else { capture::named(name) }, false)
        }
    };
    // Cloning and dropping a waker may run any code, so it happens without our lock.
    let (previous, asked) = row.put_waker(id, waker, is_task);
    if let Some(asked) = asked {
        wake_self(asked);
    }
    match previous {
        // The box that shares the row was polled with that one. It notices at its next poll that it needs a row.
        Some(previous) if row.has_limit() => waking::wake(previous),
        previous => drop(previous),
    }
}

/// Wakes the task that the calling thread polls, so that it is polled once more. While tokio polls, it
/// is known to hold no lock that waking takes.
#[cold]
#[inline(never)]
pub(super) fn wake_self(waker: Waker) {
    if executors::is_tokio(&waker) { waker.wake() } else { waking::wake(waker) }
}

impl Drop for Registered {
    #[inline]
    fn drop(&mut self) {
        release(self.row, self.id);
    }
}

/// A separate function, so that the many places that may drop a row only check whether there is one.
#[inline(never)]
fn release(row: &'static Row, id: RowId) {
    if row.process() != capture::process_number() {
        return;
    }
    if !row.is_completed() {
        capture::forget_dead_frames();
        monitor_link::dropped(row, id);
    } else if row.flags() & flags::FOLLOWED != 0 {
        ending::note_silent(row, id);
    }
    if row.has_clones() {
        return drain(row);
    }
    let held = row.vacate();
    table::free(row);
    drop(held);
}

/// Drains a row whose waker was kept by a future within this work, which may outlive it.
#[cold]
#[inline(never)]
fn drain(row: &'static Row) {
    let (held, is_free) = row.drain();
    if is_free {
        table::free(row);
    }
    drop(held);
}
