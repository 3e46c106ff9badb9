//! The row poll that a thread is inside of: what the thread's slot and the row know about each other.

use super::Row;
use crate::capture::{Poller, RowId, ThreadSlot};

/// This thread is inside a poll of a row, until the value is dropped.
#[derive(Debug)]
pub(crate) struct Inside {
    slot: &'static ThreadSlot,
    row: &'static Row,
    poller: Poller,
    outer: RowId,
}

impl Inside {
    /// `frame` is an address in the caller's frame. Returns `None` while the thread ends, and for a parent's row in a
    /// child of `fork`. Then poll unwatched.
    #[inline]
    pub(crate) fn enter(row: &'static Row, id: RowId, frame: usize) -> Option<Self> {
        let slot = ThreadSlot::in_process(row.process())?;
        let (poller, outer) = slot.enter(id, frame);
        row.set_poller(poller);
        Some(Self { slot, row, poller, outer })
    }

    pub(crate) fn row(&self) -> &'static Row {
        self.row
    }
}

impl Drop for Inside {
    #[inline]
    fn drop(&mut self) {
        self.row.set_poller(self.poller.ended());
        self.slot.leave(self.outer);
    }
}
