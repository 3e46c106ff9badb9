//! An open box: its row, or the limit that it shares the row of its request with, and the polling of work in it. Everything
//! else is in the row, or with the owner.

use std::borrow::Cow;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use super::core::Step;
use super::enabled;
use super::interrupted::{self, Interrupted};
use crate::capture;
use crate::capture::frame_address;
use crate::capture::{RowId, ThreadSlot};
use crate::clock::Clock;
use crate::counts::COUNTS;
use crate::inflight::{
    self, Details, Ended, Inside, PolicyId, PollKind, Registered, Row, RowLimit, Scope, SharedLimit, Timebox, Watched,
    Work, flags,
};
use crate::report;
use crate::sync::count;

/// An open box. Ends when it is dropped. Its owner drops the work before that.
#[derive(Debug)]
pub(crate) enum Open {
    /// With a row, or without one because boxes are switched off or it would have no effect.
    Own(Watched),
    /// A layer's, in the row of its request.
    Shared(SharedLimit),
}

/// The label of a box, if it has one.
type Label<'a> = Option<&'a Cow<'static, str>>;

/// A poll in the box that has begun.
#[derive(Debug)]
pub(crate) struct Begun {
    inside: Option<Inside>,
    scope: Option<Scope>,
    /// If it is not plain, [`Open::seen`] makes the poll.
    pub(crate) kind: PollKind,
}

/// Code that runs until this is dropped is in the box.
#[derive(Debug)]
pub(crate) struct Entered {
    _scope: Scope,
    _inside: Option<Inside>,
}

/// Returns where a copy of the stack ends that shows who polls a box, too: in the frame of the outermost poll that this
/// thread is in. A box often holds nothing but a library's future, and the application's own line is around it.
fn with_callers(frame: usize) -> usize {
    ThreadSlot::existing().map_or(frame, |slot| slot.frame().max(frame))
}

impl Open {
    pub(crate) const fn none() -> Self {
        Self::Own(Watched::off())
    }

    /// Opens a layer's box of `limit` nanoseconds, which begins now. `fill` adds to its row. If another layer has a row for
    /// the request, the box shares it, provided that it `ends_with_response`.
    #[inline]
    pub(crate) fn of_layer(
        policy: PolicyId,
        limit: u64,
        label: Label<'_>,
        ends_with_response: bool,
        fill: impl FnOnce(&mut Details),
    ) -> Self {
        if limit == u64::MAX || !enabled::is_enabled() {
            return Self::none();
        }
        let started = Clock::get().ticks();
        if limit > 0
            && label.is_none()
            && ends_with_response
            && let Some(shared) = SharedLimit::begin(RowLimit { started, limit, policy })
        {
            report::expect_box(policy, limit);
            return Self::Shared(shared);
        }
        match around(limit, started) {
            Some(around) => Self::register(policy, limit, started, around, (label, 0), fill),
            None => Self::none(),
        }
    }

    /// Opens a box in `around`, of `limit` nanoseconds since `started`, with a label and a grace.
    #[inline]
    pub(super) fn register(
        policy: PolicyId,
        limit: u64,
        started: u64,
        around: RowId,
        (label, grace): (Label<'_>, u64),
        fill: impl FnOnce(&mut Details),
    ) -> Self {
        let slot = ThreadSlot::existing();
        let inside = slot.map_or(RowId::NONE, ThreadSlot::current);
        // Before it has a row, so that it is never taken for a request, not even for a moment.
        match slot {
            Some(slot) => slot.count_box(),
            None => count(&COUNTS.timeboxes),
        }
        let up = match (limit, grace) {
            (0, 0) => flags::EXPIRED | flags::OVER,
            (0, _) => flags::EXPIRED,
            _ => 0,
        };
        let registered = Registered::timebox(policy, limit, started, up, |details| {
            let timebox = Timebox::new(inside, around, label, grace);
            // Most rows that a box gets belonged to a box before, so there is almost nothing to drop.
            match &mut details.work {
                Work::Timebox(old) => *old = timebox,
                other => *other = Work::Timebox(timebox),
            }
            fill(details);
        });
        match (&registered, slot) {
            (Some(registered), _) => {
                report::expect_box(policy, limit);
                if around != RowId::NONE {
                    inflight::tell_box(registered.row(), registered.id(), around);
                }
            }
            (None, Some(slot)) => slot.uncount_box(),
            (None, None) => drop(COUNTS.timeboxes.fetch_sub(1, Relaxed)),
        }
        Self::Own(Watched::new(registered))
    }

    /// Returns the row, if it has one of its own.
    #[inline]
    pub(super) fn row(&self) -> Option<(&'static Row, RowId)> {
        self.own()?.row()
    }

    #[inline]
    fn own(&self) -> Option<&Watched> {
        match self {
            Self::Own(own) => Some(own),
            Self::Shared(_) => None,
        }
    }

    /// Returns its row. If it has shared one until now, it gets its own.
    #[inline]
    fn make_own(&mut self) -> &mut Watched {
        if let Self::Shared(_) = self {
            self.give_row();
        }
        match self {
            Self::Own(own) => own,
            Self::Shared(_) => unreachable!("it has just got its own"),
        }
    }

    #[cold]
    #[inline(never)]
    fn give_row(&mut self) {
        if let Self::Shared(shared) = std::mem::replace(self, Self::none()) {
            *self = Self::Own(Watched::new(shared.into_own()));
        }
    }

    /// To be called after the box was [entered](Self::enter): code in it may have made it get a row.
    #[inline]
    pub(crate) fn settle(&mut self) {
        if let Self::Shared(shared) = self
            && !shared.is_shared()
        {
            self.give_row();
        }
    }

    /// Polls a part of the work. The box goes on when that part is ready. A ready value wins over a limit that has
    /// passed.
    #[inline]
    pub(crate) fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        label: impl FnOnce() -> Option<Cow<'static, str>>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Step<T> {
        let frame = frame_address!();
        let begun = self.begin(frame, cx);
        let kind = begun.kind;
        let result =
            if kind == PollKind::Plain { poll(cx) } else { self.seen(cx, with_callers(frame), kind, &mut poll) };
        let is_over = self.leave(begun, cx, result.is_pending());
        match result {
            Poll::Ready(value) => Step::Ready(value),
            Poll::Pending if is_over => self.last_with(with_callers, kind, cx, label, poll),
            Poll::Pending => Step::Pending,
        }
    }

    /// The first part of [`Open::poll`], for callers that do not want to move a large value around. `frame` is an
    /// address in the caller's frame.
    #[inline]
    pub(crate) fn begin(&mut self, frame: usize, cx: &Context<'_>) -> Begun {
        let own = match self {
            Self::Own(own) => own,
            Self::Shared(shared) if shared.holds(cx.waker()) => {
                return Begun { inside: None, scope: Some(shared.enter()), kind: PollKind::Plain };
            }
            Self::Shared(_) => self.make_own(),
        };
        let row = own.row();
        let inside = own.begin(frame);
        let kind = own.kind(&inside, cx);
        Begun { inside, scope: row.map(|(row, _)| Scope::enter(row)), kind }
    }

    /// Makes a poll that isn't plain.
    #[cold]
    #[inline(never)]
    pub(crate) fn seen<T>(
        &mut self,
        cx: &mut Context<'_>,
        frame: usize,
        kind: PollKind,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.make_own().seen(cx, frame, kind, poll)
    }

    /// After the poll: returns whether it is pending and its time is up. Then call [`Open::last`].
    #[inline]
    pub(crate) fn leave(&mut self, begun: Begun, cx: &Context<'_>, pending: bool) -> bool {
        let Begun { inside, scope, kind } = begun;
        drop(scope);
        match self {
            Self::Own(own) => own.leave(inside, kind, pending.then(|| cx.waker())),
            Self::Shared(shared) if shared.is_shared() && (!pending || shared.keep_waker(cx.waker())) => return false,
            Self::Shared(_) => self.leave_with_row(cx, pending),
        }
        // After the waker is kept, so that the one who sets the flag later finds it.
        pending && self.row().is_some_and(|(row, _)| row.flags() & flags::OVER != 0)
    }

    /// Ends a poll in which it has turned out that the box needs a row of its own.
    #[cold]
    #[inline(never)]
    fn leave_with_row(&mut self, cx: &Context<'_>, pending: bool) {
        let own = self.make_own();
        if let Some((row, _)) = own.row() {
            row.count_poll();
        }
        own.leave(None, PollKind::Plain, pending.then(|| cx.waker()));
    }

    /// The time is up. Polls once more, to see where the work waits, and gives up.
    #[cold]
    #[inline(never)]
    pub(crate) fn last<T>(
        &mut self,
        kind: PollKind,
        cx: &mut Context<'_>,
        label: impl FnOnce() -> Option<Cow<'static, str>>,
        poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Step<T> {
        self.last_with(|frame| frame, kind, cx, label, poll)
    }

    /// Does the same. `end` says where copies of the stack end, given an address in the frame of a poll.
    #[cold]
    #[inline(never)]
    fn last_with<T>(
        &mut self,
        end: fn(usize) -> usize,
        mut kind: PollKind,
        cx: &mut Context<'_>,
        label: impl FnOnce() -> Option<Cow<'static, str>>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Step<T> {
        // A traced poll shows where the work waits. If nobody kept the waker, the second one does.
        for _ in 0..if kind == PollKind::Traced { 1 } else { 2 } {
            if kind == PollKind::Traced && !self.is_unseen() {
                break;
            }
            let frame = frame_address!();
            let begun = self.begin(frame, cx);
            kind = begun.kind;
            let result = if kind == PollKind::Plain { poll(cx) } else { self.seen(cx, end(frame), kind, &mut poll) };
            self.leave(begun, cx, result.is_pending());
            if let Poll::Ready(value) = result {
                return Step::Ready(value);
            }
        }
        Step::Interrupted(self.interrupt(label()))
    }

    /// Returns whether the last traced poll left no stack.
    #[cold]
    fn is_unseen(&self) -> bool {
        let details = self.row().and_then(|(row, id)| row.details(id));
        let trace = details.as_ref().and_then(|details| details.trace.as_deref());
        trace.is_some_and(|trace| trace.look_below)
    }

    /// Enters the box: code that runs until the value is dropped is in it. `frame` is an address in the caller's frame.
    #[inline]
    pub(crate) fn enter(&self, frame: usize) -> Option<Entered> {
        match self {
            Self::Own(own) => {
                let (row, _) = own.row()?;
                let inside = own.enter(frame);
                Some(Entered { _scope: Scope::enter(row), _inside: inside })
            }
            Self::Shared(shared) => Some(Entered { _scope: shared.enter(), _inside: None }),
        }
    }

    /// Runs a closure in the box.
    pub(crate) fn run<T>(&self, f: impl FnOnce() -> T) -> T {
        let frame = frame_address!();
        let _inside = self.enter(frame);
        f()
    }

    /// Returns whether the row has one of these flags.
    pub(super) fn has(&self, flags: u32) -> bool {
        self.row().is_some_and(|(row, _)| row.flags() & flags != 0)
    }

    /// The work will be dropped now. Returns the interruption. If it is a layer's box, reports it.
    #[cold]
    #[inline(never)]
    pub(super) fn interrupt(&mut self, label: Option<Cow<'static, str>>) -> Interrupted {
        capture::forget_dead_frames();
        let own = self.make_own();
        own.finish(|| (Ended::Interrupted, None));
        own.complete();
        match own.row() {
            Some((row, id)) => {
                if row.policy() != PolicyId::NONE {
                    interrupted::report(row, id);
                }
                Interrupted::dropped(row, id, label)
            }
            // The row's owner is here, so there is a row.
            None => Interrupted::unknown(label),
        }
    }

    /// Gives the box to its successor: a response body takes over from the response.
    #[inline]
    pub(crate) fn take(&mut self) -> Self {
        match self {
            Self::Own(own) => Self::Own(own.take()),
            // Its limit ends with the response.
            Self::Shared(_) => Self::none(),
        }
    }

    /// Ends the box, after its work.
    #[inline]
    pub(crate) fn end(&mut self) {
        match self {
            Self::Own(own) => {
                own.complete();
                own.end();
            }
            Self::Shared(shared) => shared.end(),
        }
    }
}

/// Returns whether an inner box has an effect: only if its deadline is before that of the box around it. Both are in
/// nanoseconds.
#[inline]
pub(super) fn is_effective(deadline: u64, around: Option<u64>) -> bool {
    deadline != u64::MAX && around.is_none_or(|around| deadline < around)
}

/// Returns the id of the row that a box is in, or `RowId::NONE`. Returns `None` if the box has no effect there,
/// because less time is left.
#[inline]
pub(super) fn around(limit: u64, started: u64) -> Option<RowId> {
    match inflight::innermost() {
        Some(row) => outer(row, limit, started),
        None => Some(RowId::NONE),
    }
}

#[inline(never)]
fn outer(row: &'static Row, limit: u64, started: u64) -> Option<RowId> {
    let Some((id, flags)) = row.live() else { return Some(RowId::NONE) };
    if flags & flags::PROFILED != 0 {
        return None;
    }
    // Boxes that work has inherited may end before the work does, so they cannot stand in for the new one.
    let deadline = Clock::get().nanos(started).saturating_add(limit);
    let around = (flags & flags::BOX != 0).then(|| row.deadline());
    is_effective(deadline, around).then_some(id)
}
