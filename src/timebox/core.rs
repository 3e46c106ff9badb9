//! The box itself: opens a row with a limit, polls work in it, and says when it is interrupted.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::enabled;
use super::interrupted::Interrupted;
use super::limit::{Limit, Time};
use super::open::{Open, around};
use crate::capture::RowId;
use crate::clock::Clock;
use crate::inflight::{Details, PolicyId, flags, nanos};
use crate::log::log_safely;
use crate::report;

/// The outcome of a poll.
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
    /// [`CLOSED`], [`OPEN`], or the ticks at the beginning of a box that has a limit but no row: it has no effect where
    /// it is.
    began: u64,
    open: Open,
}

const CLOSED: u64 = u64::MAX;
const OPEN: u64 = 0;

impl Core {
    /// A box that opens at its first poll, when its clock starts.
    #[inline]
    pub(crate) fn closed(limit: Limit) -> Self {
        Self { limit, began: CLOSED, open: Open::none() }
    }

    pub(super) fn limit(&mut self) -> &mut Limit {
        &mut self.limit
    }

    /// Opens the box now. Its reports go where `policy` says; `fill` adds to its row.
    #[inline]
    pub(crate) fn open(&mut self, policy: PolicyId, fill: impl FnOnce(&mut Details)) {
        self.began = OPEN;
        if !enabled::is_enabled() {
            return;
        }
        // Looks up what is left before it reads the clock: a box may then be late, but never early.
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
        let (label, grace) = self.limit.extra.as_ref().map_or((None, 0), |extra| (extra.label.as_ref(), extra.grace));
        self.open = Open::register(policy, limit, started, around, (label, grace), fill);
    }

    /// A box that had no effect inside another one may be polled elsewhere by now, or the other one may have ended.
    /// Then its own limit, which began with its first poll, counts again.
    #[cold]
    #[inline(never)]
    fn reconsider(&mut self) {
        let started = self.began;
        if started == OPEN {
            return;
        }
        let clock = Clock::get();
        let elapsed = clock.nanos(clock.ticks()).saturating_sub(clock.nanos(started));
        let limit = match &self.limit.time {
            Time::For(nanos) => *nanos,
            Time::Until(deadline) => nanos(deadline.saturating_duration_since(Instant::now())).saturating_add(elapsed),
            Time::Quota(_) => return,
            Time::Running(running) => running.left(),
        };
        let Some(around) = around(limit, started) else { return };
        self.began = OPEN;
        self.register(PolicyId::NONE, limit, started, around, |_| {});
        // Less is left than the monitor expects of a new box.
        report::expect_box(PolicyId::NONE, limit.saturating_sub(elapsed));
    }

    /// Begins a box of a quota, whether or not it will have an effect. Returns the nanoseconds that are left, and the
    /// ticks at that moment.
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

    /// Ends the box as far as its quota is concerned.
    #[inline]
    fn leave_quota(&mut self) {
        if let Time::Running(_) = self.limit.time {
            self.limit.time = Time::For(0);
        }
    }

    /// Polls the work, and ends the box when it is ready. A ready value wins over a limit that has passed.
    #[inline]
    pub(crate) fn poll<T>(&mut self, cx: &mut Context<'_>, poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Step<T> {
        let step = self.poll_part(cx, poll);
        if matches!(step, Step::Ready(_)) {
            self.end();
        }
        step
    }

    /// Polls a part of the work. The box goes on when that part is ready.
    #[inline]
    pub(crate) fn poll_part<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Step<T> {
        if self.began == CLOSED {
            self.open(PolicyId::NONE, |_| {});
        }
        if self.open.row().is_none() {
            self.reconsider();
        }
        let extra = &self.limit.extra;
        let step = self.open.poll(cx, || extra.as_ref().and_then(|extra| extra.label.clone()), poll);
        if let Step::Interrupted(interrupted) = &step {
            self.note(interrupted);
        }
        step
    }

    /// Remembers the interruption for the hook.
    #[cold]
    fn note(&mut self, interrupted: &Interrupted) {
        if let Some(extra) = self.limit.extra.as_mut().filter(|extra| extra.hook.is_some()) {
            extra.interrupted = Some(interrupted.clone());
        }
    }

    /// Runs a closure in the box.
    pub(crate) fn run<T>(&mut self, f: impl FnOnce() -> T) -> T {
        self.open.run(f)
    }

    /// Returns whether there was no time left from the beginning.
    pub(crate) fn is_up(&self) -> bool {
        self.open.has(flags::EXPIRED)
    }

    /// The work will be dropped now. Returns the interruption to report.
    #[cold]
    #[inline(never)]
    pub(crate) fn interrupt(&mut self) -> Interrupted {
        let label = self.limit.extra.as_ref().and_then(|extra| extra.label.clone());
        let interrupted = self.open.interrupt(label);
        self.note(&interrupted);
        interrupted
    }

    /// Ends the box, after its work: frees the row, and calls the hook if the limit had passed.
    #[inline]
    pub(crate) fn end(&mut self) {
        if self.limit.extra.is_some() {
            self.call_hook();
        }
        self.open.end();
        self.leave_quota();
    }

    #[cold]
    fn call_hook(&mut self) {
        let expired = self.open.has(flags::EXPIRED);
        let Some(extra) = self.limit.extra.as_mut().filter(|_| expired) else { return };
        let Some(hook) = extra.hook.take() else { return };
        let hook = hook.into_inner().unwrap_or_else(PoisonError::into_inner);
        let interrupted = extra.interrupted.take().unwrap_or_else(|| self.interrupt());
        if catch_unwind(AssertUnwindSafe(|| hook(&interrupted))).is_err() {
            log_safely(|| tracing::error!(target: "heeler", "a timebox's on_interrupt hook panicked"));
        }
    }
}

impl Drop for Core {
    #[inline]
    fn drop(&mut self) {
        // Does not call `end`: work that is dropped before it has an outcome is abandoned, and its row may have to say
        // so.
        if self.limit.extra.is_some() {
            self.call_hook();
        }
    }
}

/// Turns a limit in nanoseconds into a duration.
pub(super) fn duration(nanos: u64) -> Duration {
    if nanos == u64::MAX { Duration::MAX } else { Duration::from_nanos(nanos) }
}
