//! The box itself: opens a row with a limit, polls work in it, and says when it is interrupted.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::interrupted::{self, Interrupted};
use super::limit::{Limit, Time};
use super::switch;
use crate::inflight::{
    self, Ambient, Clock, Details, PolicyId, Registered, Row, RowId, ThreadSlot, Timebox, Watched, Work, flags,
    frame_address, nanos,
};
use crate::monitor;
use crate::report::log_safely;

/// What came of a poll.
pub(crate) enum Step<T> {
    Ready(T),
    Pending,
    /// The owner drops its work at once, and then calls [`Core::end`].
    Interrupted(Interrupted),
}

/// A box around work that its owner holds, and drops before the box.
#[derive(Debug)]
pub(crate) struct Core {
    limit: Limit,
    /// [`CLOSED`], [`OPEN`], or the ticks at the beginning of a box that has a limit and no row: it has no effect where it is.
    began: u64,
    watched: Watched,
}

const CLOSED: u64 = u64::MAX;
const OPEN: u64 = 0;

/// Whether an inner box has an effect: only if its deadline is before that of the box around it. Both in nanoseconds.
#[inline]
pub(super) fn is_effective(deadline: u64, around: Option<u64>) -> bool {
    deadline != u64::MAX && around.is_none_or(|around| deadline < around)
}

impl Core {
    /// A box that opens at its first poll: then its clock starts.
    #[inline]
    pub(crate) fn closed(limit: Limit) -> Self {
        Self { limit, began: CLOSED, watched: Watched::off() }
    }

    pub(super) fn limit(&mut self) -> &mut Limit {
        &mut self.limit
    }

    /// Opens the box now. Its reports go where `policy` says; `fill` adds to its row.
    #[inline]
    pub(crate) fn open(&mut self, policy: PolicyId, fill: impl FnOnce(&mut Details)) {
        self.began = OPEN;
        if !switch::is_enabled() {
            return;
        }
        // What is left is looked up first: between the two clocks, a box is late and not early.
        let (limit, started) = match &self.limit.time {
            Time::For(nanos) => (*nanos, Clock::get().ticks()),
            Time::Until(deadline) => (nanos(deadline.saturating_duration_since(Instant::now())), Clock::get().ticks()),
            Time::Quota(_) | Time::Running(_) => self.enter_quota(),
        };
        if limit == u64::MAX {
            return;
        }
        match around(limit, started) {
            Some(around) => self.register(policy, limit, started, around, fill),
            None => self.began = started,
        }
    }

    #[inline]
    fn register(&mut self, policy: PolicyId, limit: u64, started: u64, around: RowId, fill: impl FnOnce(&mut Details)) {
        let inside = ThreadSlot::existing().map_or(RowId::NONE, ThreadSlot::current);
        let (label, grace) = self.limit.extra.as_ref().map_or((None, 0), |extra| (extra.label.as_ref(), extra.grace));
        let up = if limit == 0 && grace == 0 { flags::EXPIRED | flags::OVER } else { 0 };
        let registered = Registered::timebox(policy, limit, started, up, |details| {
            let timebox = Timebox::new(inside, around, label, grace);
            // Most rows that a box gets had one before: there is next to nothing to drop.
            match &mut details.work {
                Work::Timebox(old) => *old = timebox,
                other => *other = Work::Timebox(timebox),
            }
            fill(details);
        });
        self.watched = Watched::new(registered);
    }

    /// A box that had no effect inside another may be polled elsewhere by now, or have outlived the other: then it has its
    /// limit again, which began with its first poll.
    #[cold]
    #[inline(never)]
    fn reconsider(&mut self) -> Option<(&'static Row, RowId)> {
        let started = self.began;
        if started == OPEN {
            return None;
        }
        let clock = Clock::get();
        let elapsed = clock.nanos(clock.ticks()).saturating_sub(clock.nanos(started));
        let limit = match &self.limit.time {
            Time::For(nanos) => *nanos,
            Time::Until(deadline) => nanos(deadline.saturating_duration_since(Instant::now())).saturating_add(elapsed),
            Time::Quota(_) => return None,
            Time::Running(running) => running.left(),
        };
        let around = around(limit, started)?;
        self.began = OPEN;
        self.register(PolicyId::NONE, limit, started, around, |_| {});
        // Less is left than the monitor would think of a new box.
        monitor::expect_box(PolicyId::NONE, limit.saturating_sub(elapsed));
        self.watched.row()
    }

    /// A box of a quota begins, whether or not it will have an effect. Returns the nanoseconds that are left, and the ticks at
    /// which they were.
    #[cold]
    #[inline(never)]
    fn enter_quota(&mut self) -> (u64, u64) {
        let clock = Clock::get();
        let started = clock.ticks();
        // A box opens once.
        let Time::Quota(quota) = &self.limit.time else { return (0, started) };
        let running = quota.enter(clock.nanos(started));
        let left = running.left();
        self.limit.time = Time::Running(running);
        (left, started)
    }

    /// The box is over as far as its quota is concerned.
    #[inline]
    fn leave_quota(&mut self) {
        if let Time::Running(_) = self.limit.time {
            self.limit.time = Time::For(0);
        }
    }

    /// Polls the work, and ends the box when it is ready. What is ready wins over a limit that has passed.
    #[inline]
    pub(crate) fn poll<T>(&mut self, cx: &mut Context<'_>, poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Step<T> {
        let step = self.poll_part(cx, poll);
        if matches!(step, Step::Ready(_)) {
            self.end();
        }
        step
    }

    /// Polls a part of the work: the box goes on when that is ready.
    #[inline]
    pub(crate) fn poll_part<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Step<T> {
        if self.began == CLOSED {
            self.open(PolicyId::NONE, |_| {});
        }
        let Some((row, _)) = self.watched.row().or_else(|| self.reconsider()) else {
            return match poll(cx) {
                Poll::Ready(value) => Step::Ready(value),
                Poll::Pending => Step::Pending,
            };
        };
        let frame = frame_address!();
        let (mut result, mut traced) = self.poll_once(row, cx, frame, &mut poll);
        if result.is_pending() {
            // After the waker is kept: whoever sets the flag later finds it.
            if row.flags() & flags::UP == 0 || row.flags() & flags::OVER == 0 {
                return Step::Pending;
            }
            // Where it waits is seen in a traced poll; where nobody keeps the waker, in the second.
            for _ in 0..2 {
                if traced && !self.is_unseen() {
                    break;
                }
                (result, traced) = self.poll_once(row, cx, frame, &mut poll);
                if result.is_ready() {
                    break;
                }
            }
        }
        match result {
            Poll::Ready(value) => Step::Ready(value),
            Poll::Pending => Step::Interrupted(self.interrupt()),
        }
    }

    #[inline]
    fn poll_once<T>(
        &mut self,
        row: &'static Row,
        cx: &mut Context<'_>,
        frame: usize,
        poll: &mut impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> (Poll<T>, bool) {
        let inside = self.watched.begin(frame);
        let ambient = Ambient::enter(row);
        let traced = self.watched.is_traced(&inside);
        let result = if traced { self.watched.traced(cx, frame, poll) } else { poll(cx) };
        drop(ambient);
        self.watched.leave(inside, traced, result.is_pending().then(|| cx.waker()));
        (result, traced)
    }

    /// Whether the last traced poll left no stack.
    #[cold]
    fn is_unseen(&self) -> bool {
        let details = self.watched.row().and_then(|(row, id)| row.details(id));
        let trace = details.as_ref().and_then(|details| details.trace.as_deref());
        trace.is_some_and(|trace| trace.look_below)
    }

    /// Runs a closure in the box.
    pub(crate) fn run<T>(&mut self, f: impl FnOnce() -> T) -> T {
        let frame = frame_address!();
        let Some((row, _)) = self.watched.row() else { return f() };
        let inside = self.watched.enter(frame);
        let ambient = Ambient::enter(row);
        let result = f();
        drop(ambient);
        drop(inside);
        result
    }

    /// Whether there is nothing left from the beginning.
    pub(crate) fn is_up(&self) -> bool {
        self.watched.row().is_some_and(|(row, _)| row.flags() & flags::OVER != 0)
    }

    /// The work will be dropped now: what is to be said of it.
    #[cold]
    #[inline(never)]
    pub(crate) fn interrupt(&mut self) -> Interrupted {
        self.watched.complete();
        let label = self.limit.extra.as_ref().and_then(|extra| extra.label.clone());
        let interrupted = match self.watched.row() {
            Some((row, id)) => {
                if row.policy() != PolicyId::NONE {
                    interrupted::report(row, id);
                }
                Interrupted::dropped(row, id, label)
            }
            // The row's owner is here: there is one.
            None => Interrupted::unknown(label),
        };
        if let Some(extra) = self.limit.extra.as_mut().filter(|extra| extra.hook.is_some()) {
            extra.interrupted = Some(interrupted.clone());
        }
        interrupted
    }

    /// Gives the open box to a successor: a response body takes over from the response.
    pub(crate) fn take(&mut self) -> Self {
        let limit = std::mem::replace(&mut self.limit, Limit::from(Duration::MAX));
        Self { limit, began: self.began, watched: self.watched.take() }
    }

    /// Ends the box, after its work: frees the row, and calls the hook if the limit had passed.
    #[inline]
    pub(crate) fn end(&mut self) {
        if self.limit.extra.is_some() {
            self.call_hook();
        }
        self.watched.complete();
        self.watched.end();
        self.leave_quota();
    }

    #[cold]
    fn call_hook(&mut self) {
        let expired = self.watched.row().is_some_and(|(row, _)| row.flags() & flags::EXPIRED != 0);
        let Some(extra) = self.limit.extra.as_mut().filter(|_| expired) else { return };
        let Some(hook) = extra.hook.take() else { return };
        let hook = hook.into_inner().unwrap_or_else(PoisonError::into_inner);
        let interrupted = extra.interrupted.take().unwrap_or_else(|| self.interrupt());
        if catch_unwind(AssertUnwindSafe(|| hook(&interrupted))).is_err() {
            log_safely(|| tracing::error!(target: "heeler", "a timebox's on_interrupt hook panicked"));
        }
    }
}

/// The name of what a box is in, or none; `None` if it has no effect there, for less time is left.
#[inline]
fn around(limit: u64, started: u64) -> Option<RowId> {
    match inflight::innermost() {
        Some(row) => outer(row, limit, started),
        None => Some(RowId::NONE),
    }
}

#[inline(never)]
fn outer(row: &'static Row, limit: u64, started: u64) -> Option<RowId> {
    let Some((id, flags)) = row.live() else { return Some(RowId::NONE) };
    // Boxes that work has inherited may end before it does: they do not stand for the new one.
    let deadline = Clock::get().nanos(started).saturating_add(limit);
    let around = (flags & flags::BOX != 0).then(|| row.deadline());
    is_effective(deadline, around).then_some(id)
}

impl Drop for Core {
    #[inline]
    fn drop(&mut self) {
        // Not by way of `end`: work that is dropped before it has an outcome is abandoned, which its row may have to say.
        if self.limit.extra.is_some() {
            self.call_hook();
        }
    }
}

/// Of a limit in nanoseconds.
pub(super) fn duration(nanos: u64) -> Duration {
    if nanos == u64::MAX { Duration::MAX } else { Duration::from_nanos(nanos) }
}
