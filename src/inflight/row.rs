//! One row of the table: what a worker writes at every poll, and behind a lock what it writes once.

use std::task::Waker;

use super::{Job, PolicyId, Poller, Request, RowId, Subject, Trace, Work, flags};
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use crate::sync::{RowGuard, RowLock, lock};

/// `started` of a row whose clock stands still: a body nobody waits for.
const PAUSED: u64 = u64::MAX;

/// Everything the table keeps of one piece of work.
///
/// Not aligned to cache lines, which would take a tenth more: rows go to threads 32 at a time, and so neighbours seldom
/// belong to two.
pub(crate) struct Row {
    /// Generation and [`flags`].
    state: AtomicU64,
    /// Clock ticks at the beginning, or [`PAUSED`].
    started: AtomicU64,
    /// Nanoseconds; `u64::MAX` for never.
    threshold: AtomicU64,
    /// Who polls it, or did last.
    poller: AtomicU64,
    polls: AtomicU32,
    policy: AtomicU32,
    /// The owner's: tells whether the waker at hand is the one that the row has; zero for none.
    waker_key: AtomicU64,
    /// The owner's: whether the work has an outcome.
    completed: AtomicBool,
    index: u32,
    details: RowLock<Details>,
}

// A million requests in flight must fit in a quarter of a gigabyte.
#[cfg(not(all(test, heeler_loom)))]
const _: () = assert!(size_of::<Row>() <= 256);

/// The part of a row behind its lock. Valid for the generation that `state` shows while the lock is held.
///
/// Not `Debug`, nor is anything that holds a request's parts or a copied stack: what people print with `{:?}` must not show
/// them.
#[derive(Default)]
pub(crate) struct Details {
    pub(crate) work: Work,
    /// Of a request, if the work is one.
    pub(crate) request: Request,
    /// Wakes the task that polls the row. A request that has not suspended yet has none.
    pub(crate) waker: Option<Waker>,
    /// Waits and polls, from arming on.
    pub(crate) trace: Option<Box<Trace>>,
}

impl Details {
    /// A copy of what the work is.
    pub(crate) fn subject(&self) -> Subject {
        match &self.work {
            Work::Nothing => Subject::Nothing,
            Work::Request => Subject::Request(self.request.clone()),
            Work::Job(job) => Subject::Job(Job::clone(job)),
            Work::Child(child) => Subject::Child(child.clone()),
            // A layer's box, where no other layer has a row for the request.
            Work::Timebox(_) if self.request.path.is_some() => Subject::Request(self.request.clone()),
            Work::Timebox(timebox) => Subject::Timebox(timebox.clone()),
        }
    }
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Row").field("index", &self.index).finish_non_exhaustive()
    }
}

impl Row {
    pub(crate) fn new(index: u32) -> Self {
        Self {
            state: AtomicU64::new(0),
            started: AtomicU64::new(PAUSED),
            threshold: AtomicU64::new(u64::MAX),
            poller: AtomicU64::new(0),
            polls: AtomicU32::new(0),
            policy: AtomicU32::new(0),
            waker_key: AtomicU64::new(0),
            completed: AtomicBool::new(false),
            index,
            details: RowLock::new(Details::default()),
        }
    }

    /// Makes a free row live. The caller owns it: it came from the free list.
    ///
    /// The row is visible to the monitor once `state` is stored, after all else.
    #[inline]
    pub(crate) fn occupy(
        &self,
        policy: PolicyId,
        threshold: u64,
        started: u64,
        extra: u32,
        fill: impl FnOnce(&mut Details),
    ) -> RowId {
        fill(&mut lock(&self.details));
        self.started.store(started, Ordering::Relaxed);
        self.set_threshold(threshold);
        self.poller.store(0, Ordering::Relaxed);
        self.polls.store(0, Ordering::Relaxed);
        self.policy.store(policy.to_bits(), Ordering::Relaxed);
        self.waker_key.store(0, Ordering::Relaxed);
        self.completed.store(false, Ordering::Relaxed);
        let generation = (self.state.load(Ordering::Relaxed) >> 32) as u32;
        self.publish((generation as u64) << 32 | (flags::LIVE | extra) as u64);
        RowId::new(self.index, generation)
    }

    /// Ends the row's work: from here on `id` names nothing. Returns the waker and a job's settings, for the caller to drop
    /// outside the lock: their destructors are other people's.
    #[inline]
    pub(crate) fn vacate(&self) -> (Option<Waker>, Option<Box<Job>>) {
        let mut details = lock(&self.details);
        let waker = details.waker.take();
        let Details { work, request, .. } = &mut *details;
        // In place, for a move costs more than what is dropped here: reference counts of byte strings.
        let job = match work {
            // A box without a layer has no request, and what stays of it nobody reads.
            Work::Timebox(timebox) if request.path.is_none() => {
                timebox.more = None;
                None
            }
            _ => {
                request.clear();
                match std::mem::take(work) {
                    Work::Job(job) => Some(job),
                    Work::Nothing | Work::Request | Work::Child(_) | Work::Timebox(_) => None,
                }
            }
        };
        details.trace = None;
        let state = self.state.load(Ordering::Relaxed);
        // A flag that the monitor sets between the two lines is lost, as it should be: the work is over.
        let next = ((state >> 32) as u32).wrapping_add(1);
        self.publish((next as u64) << 32);
        drop(details);
        (waker, job)
    }

    /// The owner's alone: a new state.
    #[inline]
    fn publish(&self, state: u64) {
        #[cfg(not(all(test, heeler_loom)))]
        self.state.store(state, Ordering::Release);
        // loom does not know that an update which has read the state before this one comes before it for everybody.
        #[cfg(all(test, heeler_loom))]
        self.state.swap(state, Ordering::AcqRel);
    }

    /// The work's name if the row is live, and its flags.
    #[inline]
    pub(crate) fn live(&self) -> Option<(RowId, u32)> {
        let state = self.state.load(Ordering::Acquire);
        (state as u32 & flags::LIVE != 0).then(|| (RowId::new(self.index, (state >> 32) as u32), state as u32))
    }

    /// How many pieces of work the row has seen end, modulo 2^32, and its flags.
    #[inline]
    pub(crate) fn seen(&self) -> (u32, u32) {
        let state = self.state.load(Ordering::Relaxed);
        ((state >> 32) as u32, state as u32)
    }

    #[inline]
    pub(crate) fn is_live(&self, id: RowId) -> bool {
        self.live().is_some_and(|(live, _)| live == id)
    }

    #[inline]
    pub(crate) fn flags(&self) -> u32 {
        self.state.load(Ordering::Relaxed) as u32
    }

    /// Sets and clears flags if the row still belongs to `id`; returns the flags from before.
    pub(crate) fn update(&self, id: RowId, set: u32, clear: u32) -> Option<u32> {
        let mut state = self.state.load(Ordering::Relaxed);
        loop {
            if (state >> 32) as u32 != id.generation() || state as u32 & flags::LIVE == 0 {
                return None;
            }
            let next = (state | set as u64) & !(clear as u64);
            match self.state.compare_exchange_weak(state, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Some(state as u32),
                Err(seen) => state = seen,
            }
        }
    }

    /// The details, if the row still belongs to `id`. It does so until the guard is dropped.
    pub(crate) fn details(&self, id: RowId) -> Option<RowGuard<'_, Details>> {
        let details = lock(&self.details);
        self.is_live(id).then_some(details)
    }

    /// Clock ticks at the beginning; `None` while the clock stands still.
    #[inline]
    pub(crate) fn started(&self) -> Option<u64> {
        let started = self.started.load(Ordering::Relaxed);
        (started != PAUSED).then_some(started)
    }

    /// Starts the clock again, or stops it.
    #[inline]
    pub(crate) fn restart(&self, ticks: Option<u64>) {
        self.started.store(ticks.unwrap_or(PAUSED), Ordering::Relaxed);
    }

    /// After the clock was stopped or the threshold changed: the monitor has to find the row's deadline anew.
    pub(crate) fn forget_deadline(&self, id: RowId) {
        // The monitor sets the flag, and then looks whether the clock and the threshold still are what it saw: with a
        // fence on both sides, one of the two notices the other.
        fence(Ordering::SeqCst);
        if self.flags() & flags::QUEUED != 0 {
            self.update(id, 0, flags::QUEUED);
        }
    }

    /// Nanoseconds; `u64::MAX` for never.
    #[inline]
    pub(crate) fn threshold(&self) -> u64 {
        self.threshold.load(Ordering::Relaxed)
    }

    /// Nanoseconds; `u64::MAX` for never.
    #[inline]
    pub(crate) fn set_threshold(&self, threshold: u64) {
        self.threshold.store(threshold, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn poller(&self) -> Poller {
        Poller::from_bits(self.poller.load(Ordering::Acquire))
    }

    #[inline]
    pub(crate) fn set_poller(&self, poller: Poller) {
        self.poller.store(poller.to_bits(), Ordering::Release);
    }

    #[inline]
    pub(crate) fn polls(&self) -> u32 {
        self.polls.load(Ordering::Relaxed)
    }

    /// One poll more. Only the thread inside the poll writes this, so that no read-modify-write is needed.
    #[inline]
    pub(crate) fn count_poll(&self) {
        self.polls.store(self.polls.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn waker_key(&self) -> u64 {
        self.waker_key.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn set_waker_key(&self, key: u64) {
        self.waker_key.store(key, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn is_completed(&self) -> bool {
        self.completed.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn set_completed(&self, completed: bool) {
        self.completed.store(completed, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn policy(&self) -> PolicyId {
        PolicyId::from_bits(self.policy.load(Ordering::Relaxed))
    }

    pub(crate) fn set_policy(&self, policy: PolicyId) {
        self.policy.store(policy.to_bits(), Ordering::Relaxed);
    }
}
