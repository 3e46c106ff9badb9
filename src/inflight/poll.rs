//! Polling watched work: the only place where a request pays, and the only one where it is traced.

use std::cell::Cell;
use std::task::{Context, Poll, Waker};

use super::lending::{Loan, is_kept, passed_on, to_wake};
use super::registered::wake_self;
use super::{
    Ended, Inside, Registered, Row, Scope, Silence, Trace, budget, clones, ending, executors, flags, giving_way,
    monitor_link,
};
use crate::capture::RowId;
use crate::capture::frame_address;
use crate::capture::{self, Arena, RowWaker};
use crate::clock::now;

/// Work with its own row, or without one because watching is off or an outer layer has one.
#[derive(Debug)]
pub(crate) struct Watched(Option<Registered>);

/// How work is polled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PollKind {
    Plain,
    /// Within other work, whose poll is traced.
    Within,
    /// With a row's waker, because the executor isn't tokio's or outer work has lent one.
    Lent,
    Traced,
}

thread_local! {
    /// Buffers for the stacks of traced polls, made as needed: one for each level of nesting.
    static ARENAS: Cell<Vec<Arena>> = const { Cell::new(Vec::new()) };
}

/// How many arenas a thread keeps. More nested traced polls than this are rare.
const MAX_ARENAS: usize = 4;

pub(super) fn take_arena() -> Arena {
    let kept = ARENAS.try_with(|arenas| {
        let mut list = arenas.take();
        let arena = list.pop();
        arenas.set(list);
        arena
    });
    kept.ok().flatten().unwrap_or_else(Arena::new)
}

pub(super) fn give_arena(arena: Arena) {
    // While the thread ends, nothing can use it again.
    let _ = ARENAS.try_with(|arenas| {
        let mut list = arenas.take();
        if list.len() < MAX_ARENAS {
            list.push(arena);
        }
        arenas.set(list);
    });
}

impl Watched {
    pub(crate) fn new(registered: Option<Registered>) -> Self {
        Self(registered)
    }

    pub(crate) const fn off() -> Self {
        Self(None)
    }

    /// Returns the row and its name, if there is one.
    #[inline]
    pub(crate) fn row(&self) -> Option<(&'static Row, RowId)> {
        self.0.as_ref().map(|registered| (registered.row(), registered.id()))
    }

    /// Until the value is dropped, the boxes that the work was handed on in are around what runs. For profiled work, no
    /// box is.
    pub(crate) fn within_boxes(&self) -> Option<Scope> {
        let row = self.row()?.0;
        (row.flags() & (flags::INHERITOR | flags::PROFILED) != 0).then(|| Scope::enter_inheritor(row))
    }

    /// Marks the work as having an outcome. Dropping it from here on abandons nothing.
    #[inline]
    pub(crate) fn complete(&self) {
        if let Some(registered) = &self.0 {
            registered.complete(true);
        }
    }

    /// Notes how the work has ended, if a report about it was made. Call it before the row is freed or paused. For other
    /// work this is one load, which the end needs anyway.
    #[inline]
    pub(crate) fn finish(&self, how: impl FnOnce() -> (Ended, Option<u16>)) {
        if let Some((row, id)) = self.row()
            && row.flags() & flags::FOLLOWED != 0
        {
            let (how, status) = how();
            ending::note(row, id, how, status);
        }
    }

    /// Gives the row to a successor: a response body takes over from the response.
    pub(crate) fn take(&mut self) -> Self {
        Self(self.0.take())
    }

    /// Frees the row. In place, because moving what was just written takes longer than freeing it.
    #[inline]
    pub(crate) fn end(&mut self) {
        self.0 = None;
    }

    /// Stops the row's clock, forgets what was recorded until now, and sets the flags of `set`.
    #[inline]
    pub(crate) fn pause(&mut self, set: u32) {
        if let Some(registered) = &mut self.0 {
            let row = registered.row();
            row.restart(None);
            // The next stretch has its own record.
            row.forget_deadline(registered.id());
            const RECORDED: u32 = flags::ARMED | flags::REPORTED | flags::FOLLOWED | flags::WANTED;
            if set != 0 || row.flags() & RECORDED != 0 {
                let clear = RECORDED & !monitor_link::initial_flags();
                row.update(registered.id(), set, clear);
                let record = row.details(registered.id()).and_then(|mut details| details.trace.take());
                drop(record);
            }
        }
    }

    /// Starts the row's clock, unless it is running.
    #[inline]
    pub(crate) fn resume(&mut self, ticks: impl FnOnce() -> u64) {
        if let Some(registered) = &self.0
            && registered.row().started().is_none()
        {
            registered.row().restart(Some(ticks()));
        }
    }

    /// Makes what runs until the value is dropped (a service's `call`, a closure on a blocking thread) a part of the
    /// work. `frame` is an address in the caller's frame.
    #[inline]
    pub(crate) fn enter(&self, frame: usize) -> Option<Inside> {
        let registered = self.0.as_ref()?;
        Inside::enter(registered.row(), registered.id(), frame)
    }

    /// Polls the work. Work that finishes is complete. Work that panics or is dropped later isn't.
    ///
    /// If watching is off, this costs one branch. If it is on, it costs some ten plain stores to memory that no other
    /// worker writes, and a clone of the waker the first time that it returns `Pending`.
    #[inline(always)]
    pub(crate) fn poll<T>(&mut self, cx: &mut Context<'_>, poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        let frame = frame_address!();
        let inside = self.begin(frame);
        let kind = self.kind(&inside, cx);
        let result = if kind == PollKind::Plain { poll(cx) } else { self.seen(cx, frame, kind, poll) };
        self.leave(inside, kind, result.is_pending().then(|| cx.waker()));
        result
    }

    /// Does the first part of [`Watched::poll`].
    #[inline]
    pub(crate) fn begin(&mut self, frame: usize) -> Option<Inside> {
        let registered = self.0.as_mut()?;
        let inside = Inside::enter(registered.row(), registered.id(), frame)?;
        // Stays if the poll panics, because then the work is over, and not because a client is missing.
        registered.complete(true);
        Some(inside)
    }

    /// Returns whether a layer that shares the row has asked for the response body.
    #[inline]
    pub(crate) fn wants_body(&self) -> bool {
        self.0.as_ref().is_some_and(|registered| registered.row().flags() & flags::WATCH_BODY != 0)
    }

    /// Returns how to poll.
    #[inline]
    pub(crate) fn kind(&self, inside: &Option<Inside>, cx: &Context<'_>) -> PollKind {
        if inside.as_ref().is_some_and(|inside| inside.row().flags() & flags::TRACED != 0) {
            PollKind::Traced
        } else if executors::is_tokio_task(cx.waker()) {
            PollKind::Plain
        } else {
            self.uncommon_kind(cx.waker())
        }
    }

    #[cold]
    #[inline(never)]
    fn uncommon_kind(&self, waker: &Waker) -> PollKind {
        if executors::is_tokio(waker) {
            PollKind::Plain
        } else if self.0.is_some() && capture::LENDS {
            PollKind::Lent
        } else if capture::is_traced(waker) {
            PollKind::Within
        } else {
            PollKind::Plain
        }
    }

    /// Does a poll that isn't plain.
    #[cold]
    #[inline(never)]
    pub(crate) fn seen<T>(
        &mut self,
        cx: &mut Context<'_>,
        frame: usize,
        kind: PollKind,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        match &mut self.0 {
            Some(registered) if kind == PollKind::Traced => traced(registered, cx, frame, poll),
            Some(registered) if kind == PollKind::Lent => lent(registered, cx, poll),
            _ => capture::poll_within(cx, poll),
        }
    }

    /// Does the last part of [`Watched::poll`].
    #[inline]
    pub(crate) fn leave(&mut self, inside: Option<Inside>, kind: PollKind, pending: Option<&Waker>) {
        let Some(registered) = self.0.as_mut() else { return };
        let keeps = matches!(kind, PollKind::Plain | PollKind::Within);
        let Some(inside) = inside else { return unwatched(registered, pending.filter(|_| keeps)) };
        registered.row().count_poll();
        if let Some(waker) = pending {
            if keeps {
                registered.keep_waker(waker);
            }
            registered.complete(false);
            if kind != PollKind::Traced && inside.row().flags() & flags::ARMED != 0 {
                end_untraced(registered, waker);
            }
        }
        drop(inside);
    }
}

/// Runs after a poll on a thread that is ending. Work that must be told that a limit has passed still needs to be
/// woken.
#[cold]
#[inline(never)]
fn unwatched(registered: &Registered, pending: Option<&Waker>) {
    if let Some(waker) = pending {
        registered.keep_waker(waker);
    }
}

/// A poll of an armed request.
#[inline(always)]
fn traced<T>(
    registered: &mut Registered,
    cx: &mut Context<'_>,
    frame: usize,
    poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    let mut arena = take_arena();
    let had_budget = tokio::task::coop::has_budget_remaining();
    let look_below = begin(registered, cx.waker());
    let waker = cx.waker();
    // If a row's waker is passed on, uses that. Under a profile's waker, which must see each clone, uses that one.
    // Otherwise uses the row's own.
    let loan = if capture::LENDS && !capture::is_tracing(waker) && capture::row_of(waker).is_none() {
        Loan::begin(registered, waker, true)
    } else {
        None
    };
    let row = match &loan {
        Some(loan) => Some(loan.waker),
        None => passed_on(waker),
    };
    if let Some(row) = row {
        giving_way::before(row, waker);
    }
    let result = capture::trace(&mut arena, frame, look_below, row.map(|row| (row, clones::rows())), cx, poll);
    if result.is_pending() {
        if loan.is_none() {
            // Before the monitor hears of it, because it may want to wake the task again.
            registered.keep_waker(cx.waker());
        }
        end(registered, &mut arena, had_budget, (look_below, row), cx.waker());
        if let Some(loan) = &loan {
            loan.pending(cx.waker());
        }
    }
    give_arena(arena);
    result
}

/// Does a poll by an executor other than tokio, or within such work.
#[inline(always)]
fn lent<T>(registered: &Registered, cx: &mut Context<'_>, poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    let waker = cx.waker();
    let is_passed_on = capture::is_tracing(waker) || capture::row_of(waker).is_some();
    let loan = if is_passed_on { None } else { Loan::begin(registered, waker, false) };
    let Some(loan) = loan else {
        let result = capture::poll_within(cx, poll);
        if result.is_pending() {
            registered.keep_waker(cx.waker());
        }
        return result;
    };
    let result = poll(&mut Context::from_waker(&loan.lend()));
    if result.is_pending() {
        loan.pending(waker);
    }
    result
}

fn begin(registered: &Registered, waker: &Waker) -> bool {
    let now = now();
    let was_polled = registered.row().polls() > 0;
    let Some(mut details) = registered.row().details(registered.id()) else { return false };
    let trace = details.trace.get_or_insert_with(|| Box::new(Trace::new(now, was_polled)));
    trace.is_within = capture::is_traced(waker);
    trace.begin_poll(now, capture::is_tracing(waker));
    #[cfg(feature = "otel")]
    super::otel::note_span(registered.row(), &mut trace.span);
    trace.look_below
}

/// Ends a traced poll. `lent` is the row's waker that the poll had.
fn end(
    registered: &Registered,
    arena: &mut Arena,
    had_budget: bool,
    (looked_below, lent): (bool, Option<RowWaker>),
    waker: &Waker,
) {
    let (row, id) = (registered.row(), registered.id());
    let flags = row.flags();
    let (wanted, forced) = (flags & flags::WANTED != 0, flags & (flags::WANTED | flags::EXPIRED) != 0);
    let now = now();
    let is_silent = arena.clones == 0 && arena.wakes == 0;
    // Whether the waker has clones, even if they are from an earlier poll.
    let is_kept = lent.is_some_and(is_kept);
    let mut silent = is_silent && !is_kept;
    let key = if is_silent && is_kept { None } else { arena.key(&capture::code_range()) };
    if let Some(lent) = lent.filter(|_| arena.is_unsettled()) {
        let known = row.details(id).and_then(|details| details.trace.as_ref()?.gives_way_at(key, forced));
        giving_way::after(lent, waker, arena, known);
    }
    {
        let Some(mut details) = row.details(id) else { return };
        if let Some(trace) = &mut details.trace {
            if is_silent && is_kept {
                trace.go_on_waiting(now);
            } else {
                trace.end_poll(now, arena, key, had_budget, forced, || budget::COPIES.take(now));
                // If an earlier poll has kept a waker, it is known where.
                silent &= trace.silence != Some(Silence::Earlier);
            }
            trace.look_below = silent;
            // This poll is counted when it has ended.
            trace.polls = row.polls().wrapping_add(1);
        }
    }
    if !wanted {
        return;
    }
    if silent && !looked_below && capture::sys::SUPPORTED {
        // Nobody kept the waker, so there is no stack. Poll once more, and this time look at what the poll leaves
        // behind.
        wake_self(to_wake(waker));
        return;
    }
    row.update(id, 0, flags::WANTED);
    monitor_link::answered();
}

/// Runs after an untraced poll during which the request was armed. Polls it once more, to see where it waits. There are
/// never more of these at a time than threads that poll.
#[cold]
#[inline(never)]
fn end_untraced(registered: &Registered, waker: &Waker) {
    let now = now();
    if let Some(mut details) = registered.row().details(registered.id())
        && let Some(trace) = &mut details.trace
    {
        trace.end_untraced(now);
    }
    wake_self(to_wake(waker));
}
