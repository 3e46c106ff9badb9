//! One row of the table: what a worker writes at every poll, and, behind a lock, what it writes once.

mod details;
mod ending;
mod waker;

pub(crate) use details::Details;
pub(crate) use waker::Asked;
pub(super) use waker::{ASKED, ASKED_AGAIN, NOBODY, OTHER, WOKEN};

use super::{PolicyId, RowLimit, SmallLimit, Work, flags};
use crate::capture;
use crate::capture::{Poller, RowId};
use crate::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use crate::sync::{RowGuard, RowLock, lock, try_lock, wait};

/// `started` of a row whose clock stands still, for a body that nobody is waiting for.
const PAUSED: u64 = u64::MAX;

/// Mark: the work has an outcome. Only the owner uses it.
const COMPLETED: u8 = 1;
/// Mark: a box shares the row, and its limit is beside the request. If that was dropped elsewhere, there is none.
const LIMITED: u8 = 1 << 1;

/// Everything the table keeps of one piece of work.
///
/// It isn't aligned to cache lines, which would take a tenth more memory. Rows go to threads 32 at a time, so
/// neighbours seldom belong to two threads.
pub(crate) struct Row {
    /// Generation and [`flags`].
    state: AtomicU64,
    /// Clock ticks at the beginning, or [`PAUSED`].
    started: AtomicU64,
    /// Nanoseconds, or `u64::MAX` for never.
    threshold: AtomicU64,
    /// The thread that polls it, or did last.
    poller: AtomicU64,
    polls: AtomicU32,
    policy: AtomicU32,
    /// The data pointer of the waker that the row has, if that is a tokio task's, so that the owner can recognise it
    /// without the lock. Otherwise one of the states from [`NOBODY`] on. Written under the lock.
    pub(super) waker: AtomicUsize,
    /// Clones of the row's own waker, and heeler's holds on it: see `lending`. Written under the lock.
    pub(super) clones: AtomicU16,
    pub(super) holds: AtomicU8,
    /// [`COMPLETED`] and [`LIMITED`]. Written only by the owner's thread, and by what it polls within the row.
    marks: AtomicU8,
    /// The row's index in its table, and above [`PROCESS_SHIFT`] the process that the table belongs to.
    index: u32,
    details: RowLock<Details>,
}

/// Four million rows and one, because names count from one.
pub(super) const PROCESS_SHIFT: u32 = 23;
const _: () = assert!(capture::MAX_PROCESSES < 1 << (u32::BITS - PROCESS_SHIFT));

// A million requests in flight must fit in a quarter of a gigabyte.
#[cfg(not(all(test, heeler_loom)))]
const _: () = assert!(size_of::<Row>() <= 256);

// What is inside is valid after every single statement, even after a panic.
impl std::panic::RefUnwindSafe for Row {}

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
            waker: AtomicUsize::new(NOBODY),
            marks: AtomicU8::new(0),
            clones: AtomicU16::new(0),
            holds: AtomicU8::new(0),
            index,
            details: RowLock::new(Details::default()),
        }
    }

    /// Makes a free row live. The caller owns it: it came from the free list.
    ///
    /// The row is visible to the monitor once `state` is stored, after everything else.
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
        self.waker.store(NOBODY, Ordering::Relaxed);
        self.clones.store(0, Ordering::Relaxed);
        self.holds.store(0, Ordering::Relaxed);
        self.marks.store(0, Ordering::Relaxed);
        let generation = (self.state.load(Ordering::Relaxed) >> 32) as u32;
        self.publish((generation as u64) << 32 | (flags::LIVE | extra) as u64);
        RowId::new(self.index, generation)
    }

    /// Stores a new state. Only the owner calls it.
    #[inline]
    fn publish(&self, state: u64) {
        #[cfg(not(all(test, heeler_loom)))]
        self.state.store(state, Ordering::Release);
        // loom does not know that an update which has read the state before this one comes before it for all threads.
        #[cfg(all(test, heeler_loom))]
        self.state.swap(state, Ordering::AcqRel);
    }

    /// Returns the work's name if the row is live, and its flags.
    #[inline]
    pub(crate) fn live(&self) -> Option<(RowId, u32)> {
        let state = self.state.load(Ordering::Acquire);
        (state as u32 & flags::LIVE != 0).then(|| (RowId::new(self.index, (state >> 32) as u32), state as u32))
    }

    /// Returns how many pieces of work the row has seen end, modulo 2^32, and its flags.
    #[inline]
    pub(crate) fn seen(&self) -> (u32, u32) {
        let state = self.state.load(Ordering::Relaxed);
        ((state >> 32) as u32, state as u32)
    }

    /// Returns which process the row belongs to, as [`capture::process_number`] counts.
    #[inline]
    pub(crate) const fn process(&self) -> u32 {
        self.index >> PROCESS_SHIFT
    }

    /// Returns whether the row is this process's own. A parent's is inert, because a thread that doesn't exist here may
    /// hold its lock.
    #[inline]
    pub(super) fn is_own(&self) -> bool {
        self.process() == capture::process_number()
    }

    #[inline]
    pub(crate) fn is_live(&self, id: RowId) -> bool {
        self.live().is_some_and(|(live, _)| live == id)
    }

    #[inline]
    pub(crate) fn flags(&self) -> u32 {
        self.state.load(Ordering::Relaxed) as u32
    }

    /// Sets and clears flags if the row still belongs to `id`. Returns the flags from before.
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

    /// Returns the details, if the row still belongs to `id`. It does so until the guard is dropped.
    ///
    /// Nobody else's code runs under the guard: no waker is cloned, woken or dropped, and no part of a request is
    /// dropped.
    pub(crate) fn details(&self, id: RowId) -> Option<RowGuard<'_, Details>> {
        if !self.is_own() {
            return None;
        }
        loop {
            if let Some(details) = try_lock(&self.details) {
                return self.is_live(id).then_some(details);
            }
            if !self.is_live(id) {
                // The holder of the lock may be dropping what is left, for as long as that takes.
                return None;
            }
            wait();
        }
    }

    /// Does the same for the clones of the row's waker, which outlive the work. For a parent process's row, also
    /// returns `None` if the lock is held, because that may be for ever.
    pub(super) fn details_for_clones(&self, id: RowId) -> Option<RowGuard<'_, Details>> {
        let has_clones = || {
            let state = self.state.load(Ordering::Acquire);
            (state >> 32) as u32 == id.generation() && state as u32 & (flags::LIVE | flags::DRAINS) != 0
        };
        loop {
            if let Some(details) = try_lock(&self.details) {
                return has_clones().then_some(details);
            }
            if !self.is_own() || !has_clones() {
                return None;
            }
            wait();
        }
    }

    /// Returns the clock ticks at the beginning, or `None` while the clock stands still.
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

    /// Makes the monitor compute the row's deadline again, after the clock was stopped or the threshold changed.
    pub(crate) fn forget_deadline(&self, id: RowId) {
        // The monitor sets the flag, and then checks whether the clock and the threshold are still what it saw. With a
        // fence on both sides, one of the two notices the other.
        fence(Ordering::SeqCst);
        if self.flags() & flags::QUEUED != 0 {
            self.update(id, 0, flags::QUEUED);
        }
    }

    /// Returns the threshold in nanoseconds, or `u64::MAX` for never.
    #[inline]
    pub(crate) fn threshold(&self) -> u64 {
        self.threshold.load(Ordering::Relaxed)
    }

    /// Sets the threshold in nanoseconds, or `u64::MAX` for never.
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

    /// Counts a poll. Only the thread inside the poll writes this, so no read-modify-write is needed.
    #[inline]
    pub(crate) fn count_poll(&self) {
        self.polls.store(self.polls.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn has_limit(&self) -> bool {
        self.marks.load(Ordering::Acquire) & LIMITED != 0
    }

    /// Returns the limit that a box shares the row with.
    pub(crate) fn limit(&self) -> Option<RowLimit> {
        if !self.has_limit() {
            return None;
        }
        let (id, _) = self.live()?;
        match self.details(id)?.work {
            Work::Request(limit) => limit.some(),
            _ => None,
        }
    }

    /// Sets a limit that a box shares the row with. For the thread that is inside of it, so that it is live. Returns false
    /// if the row isn't a request's.
    #[inline]
    pub(super) fn set_limit(&self, limit: SmallLimit) -> bool {
        match &mut lock(&self.details).work {
            Work::Request(place) => *place = limit,
            _ => return false,
        }
        self.mark(LIMITED, true);
        true
    }

    #[inline]
    pub(super) fn clear_limit(&self) {
        self.mark(LIMITED, false);
    }

    #[inline]
    pub(crate) fn is_completed(&self) -> bool {
        self.marks.load(Ordering::Relaxed) & COMPLETED != 0
    }

    #[inline]
    pub(crate) fn set_completed(&self, completed: bool) {
        self.mark(COMPLETED, completed);
    }

    #[inline]
    fn mark(&self, mark: u8, set: bool) {
        let marks = self.marks.load(Ordering::Relaxed);
        self.marks.store(if set { marks | mark } else { marks & !mark }, Ordering::Release);
    }

    #[inline]
    pub(crate) fn policy(&self) -> PolicyId {
        PolicyId::from_bits(self.policy.load(Ordering::Relaxed))
    }

    pub(crate) fn set_policy(&self, policy: PolicyId) {
        self.policy.store(policy.to_bits(), Ordering::Relaxed);
    }
}
