//! One row of the table: what a worker writes at every poll, and, behind a lock, what it writes once.

use std::task::Waker;

use super::clones::{MANY_CLONES, reaches_somebody};
use super::{Job, PolicyId, Request, Subject, Trace, Work, flags};
use crate::capture;
use crate::capture::{Poller, RowId};
use crate::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use crate::sync::{RowGuard, RowLock, lock, try_lock, wait};

/// `started` of a row whose clock stands still, for a body that nobody is waiting for.
const PAUSED: u64 = u64::MAX;

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
pub(super) const NOBODY: usize = 0;
/// The waker was moved out to be woken. A poll will follow, unless the work ends or its task does not poll it.
pub(super) const WOKEN: usize = 1;
/// There was no waker to move out.
pub(super) const ASKED: usize = 2;
/// The same, but one was moved out before.
pub(super) const ASKED_AGAIN: usize = 3;
/// There is one, which isn't a tokio task's.
pub(super) const OTHER: usize = 4;

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
    /// Whether the work has an outcome. Only the owner uses it.
    completed: AtomicBool,
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

/// The part of a row behind its lock. Valid for the generation that `state` shows while the lock is held.
///
/// It has no `Debug`, and neither has anything that holds a request's parts or a copied stack, because output of `{:?}`
/// must not show them.
#[derive(Default)]
pub(crate) struct Details {
    pub(crate) work: Work,
    /// The request, if the work is one.
    pub(crate) request: Request,
    /// Wakes the task that polls the row. A request that has not suspended yet has none.
    pub(crate) waker: Option<Waker>,
    /// Waits and polls since arming.
    pub(crate) trace: Option<Box<Trace>>,
}

impl Details {
    /// Returns a copy of what the work is. It shares nothing that somebody else's code would have to free. So it may be
    /// dropped anywhere, even after the work has ended.
    pub(crate) fn subject(&self) -> Subject {
        match &self.work {
            Work::Nothing => Subject::Nothing,
            Work::Request => Subject::Request(self.request.copy()),
            Work::Job(job) => Subject::Job(Job { name: job.name.clone(), reports: None }),
            Work::Child(child) => Subject::Child(child.clone()),
            // A layer's box, if no other layer has a row for the request.
            Work::Timebox(_) if self.request.path.is_some() => Subject::Request(self.request.copy()),
            Work::Timebox(timebox) => Subject::Timebox(timebox.clone()),
        }
    }
}

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
            completed: AtomicBool::new(false),
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
        self.completed.store(false, Ordering::Relaxed);
        let generation = (self.state.load(Ordering::Relaxed) >> 32) as u32;
        self.publish((generation as u64) << 32 | (flags::LIVE | extra) as u64);
        RowId::new(self.index, generation)
    }

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
                    Work::Nothing | Work::Request | Work::Child(_) | Work::Timebox(_) => None,
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
    pub(super) fn drain(&self) -> (Details, bool) {
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
    pub(super) fn drained(&self, details: &mut Details) -> Option<Waker> {
        self.end_generation(self.state.load(Ordering::Relaxed));
        details.waker.take()
    }

    #[inline]
    fn end_generation(&self, state: u64) {
        let next = ((state >> 32) as u32).wrapping_add(1);
        self.publish((next as u64) << 32);
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
