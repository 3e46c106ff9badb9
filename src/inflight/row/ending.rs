//! The end of a row's work.

use std::task::Waker;

use super::{Details, Row};
use crate::inflight::clones::MANY_CLONES;
use crate::inflight::{Job, Work, flags};
use crate::sync::atomic::Ordering;
use crate::sync::lock;

impl Row {
    /// Ends the row's work. From here on `id` names nothing. Returns the waker and a job's settings for the caller to
    /// drop, because their destructors are other people's code.
    ///
    /// The same is true of a request's parts and of a record's span, but they are dropped in place, under the lock. By
    /// then the work is over, so nothing waits for this lock any more, see [`Row::details`], and a thread that is about
    /// to wait gives up.
    #[inline]
    pub(crate) fn vacate(&self) -> (Option<Waker>, Option<Box<Job>>) {
        let mut details = lock(&self.details);
        let state = self.state.load(Ordering::Relaxed);
        // A flag that the monitor sets between the two lines is lost, as it should be: the work is over.
        self.end_generation(state);
        let waker = details.waker.take();
        let Details { work, request, .. } = &mut *details;
        // In place, because a move costs more than what is dropped here: reference counts of byte strings.
        let job = match work {
            // A box without a layer has no request, and nothing reads what remains of it.
            Work::Timebox(timebox) if request.path.is_none() => {
                timebox.more = None;
                None
            }
            _ => {
                request.clear();
                match std::mem::take(work) {
                    Work::Job(job) => Some(job),
                    Work::Nothing | Work::Request(_) | Work::Child(_) | Work::Timebox(_) => None,
                }
            }
        };
        details.trace = None;
        drop(details);
        (waker, job)
    }

    /// Ends the row's work as [`Row::vacate`] does, but leaves the row to the clones of its waker, if there are any.
    /// They may still wake the task that polled the work. Returns what to drop, and whether the row is free.
    #[cold]
    pub(in crate::inflight) fn drain(&self) -> (Details, bool) {
        let mut details = lock(&self.details);
        let mut left = std::mem::take(&mut *details);
        let state = self.state.load(Ordering::Relaxed);
        // If there were too many clones to count, the last cannot be recognised. They do nothing from here on.
        let is_free = matches!(self.clones.load(Ordering::Relaxed), 0 | MANY_CLONES);
        if is_free {
            self.end_generation(state);
        } else {
            details.waker = left.waker.take();
            self.publish(state >> 32 << 32 | flags::DRAINS as u64);
        }
        drop(details);
        (left, is_free)
    }

    /// Frees a row that drains. Called under the row's lock. Returns the waker, to be dropped.
    pub(in crate::inflight) fn drained(&self, details: &mut Details) -> Option<Waker> {
        self.end_generation(self.state.load(Ordering::Relaxed));
        details.waker.take()
    }

    #[inline]
    fn end_generation(&self, state: u64) {
        let next = ((state >> 32) as u32).wrapping_add(1);
        self.publish((next as u64) << 32);
    }
}
