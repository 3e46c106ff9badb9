//! A layer's box that shares the row of its request: the limit is a second deadline of that row. Most requests end long
//! before an eighth of it, and a row of its own would be written for nothing.
//!
//! ```text
//!          ┌─ the request ends ─────────────────────────────▶ nothing was written but the limit
//! shared ──┤
//!          └─ an eighth of the limit has passed,
//!             or code within asks which box it is in,
//!             or the work is not polled within the request ─▶ a row of its own, as any other box
//! ```
//!
//! A limit is shared only while waking the request's task polls the work. That is so if the request's row is the
//! innermost that the thread is in, and the work is polled with the waker that the row has. The waker is checked after
//! each poll that is pending. If the row gets another one later in the same poll, the one before is woken once: then the
//! work is polled, and notices.

use std::cell::RefCell;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Waker;

use super::lending::Keep;
use super::row::{OTHER, Row};
use super::scope::{self, Scope};
use super::{PolicyId, Registered, Timebox, Work, executors, flags, registered, table};
use crate::capture::{RowId, ThreadSlot};
use crate::clock::Clock;
use crate::counts::COUNTS;
use crate::sync::count;

/// A limit of a request's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowLimit {
    /// Clock ticks at the beginning of the box.
    pub(crate) started: u64,
    /// Nanoseconds.
    pub(crate) limit: u64,
    /// The box's layer.
    pub(crate) policy: PolicyId,
}

impl RowLimit {
    /// Returns when `nanos` nanoseconds have passed since it began.
    pub(crate) fn after(self, nanos: u64) -> u64 {
        Clock::get().nanos(self.started).saturating_add(nanos)
    }

    /// Returns when it passes.
    pub(crate) fn deadline(self) -> u64 {
        self.after(self.limit)
    }
}

/// A limit as a row keeps it, in two words: the policy is in the upper bits of the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SmallLimit {
    started: u64,
    packed: u64,
}

/// 78 hours.
const LIMIT_BITS: u32 = 48;

impl SmallLimit {
    pub(crate) const NONE: Self = Self { started: 0, packed: 0 };

    /// Returns the limit, or `None` for [`NONE`](Self::NONE).
    pub(super) fn some(self) -> Option<RowLimit> {
        (self != Self::NONE).then(|| self.get())
    }

    /// Returns `None` if it is too long, or if there are more layers than any program has.
    #[inline]
    fn of(limit: RowLimit) -> Option<Self> {
        let RowLimit { started, limit, policy } = limit;
        let fits = limit >> LIMIT_BITS == 0 && policy.to_bits() >> (u64::BITS - LIMIT_BITS) == 0;
        fits.then(|| Self { started, packed: u64::from(policy.to_bits()) << LIMIT_BITS | limit })
    }

    fn get(self) -> RowLimit {
        let Self { started, packed } = self;
        let policy = PolicyId::from_bits((packed >> LIMIT_BITS) as u32);
        RowLimit { started, limit: packed & ((1 << LIMIT_BITS) - 1), policy }
    }
}

/// A box that shares the row of its request, until it is dropped or gets a row of its own.
#[derive(Debug)]
pub(crate) struct SharedLimit {
    row: &'static Row,
    id: RowId,
    limit: SmallLimit,
}

thread_local! {
    /// The rows that code within shared boxes has asked for, and the requests that they belong to. A box takes its own
    /// after the poll. There is more than one only if such boxes are polled within each other.
    static MADE: RefCell<Vec<(RowId, Registered)>> = const { RefCell::new(Vec::new()) };
}

/// Takes the row that was made for the box of that request in the poll that ends.
fn take_made(request: RowId) -> Option<Registered> {
    let taken = MADE.try_with(|made| {
        let mut made = made.borrow_mut();
        let at = made.iter().position(|(id, _)| *id == request)?;
        Some(made.swap_remove(at).1)
    });
    let registered = taken.ok().flatten()?;
    registered.row().set_poller(registered.row().poller().ended());
    Some(registered)
}

/// Flags of the request's row that belong to the box.
const FLAGS: u32 = flags::BOX_DUE | flags::BOX_REPORTED;

impl SharedLimit {
    /// Begins a box that shares the row of the current request. Returns `None` if that isn't possible: outside of a
    /// request that is watched, within another box, or if the row has a limit already.
    #[inline]
    pub(crate) fn begin(limit: RowLimit) -> Option<Self> {
        let slot = ThreadSlot::existing()?;
        let id = slot.current();
        if id == RowId::NONE || scope::peek().is_some() {
            return None;
        }
        let row = table().row(id)?;
        const KINDS: u32 = flags::REQUEST | flags::PROFILED | flags::BODY | FLAGS;
        if row.flags() & KINDS != flags::REQUEST {
            return None;
        }
        let limit = SmallLimit::of(limit)?;
        if row.has_limit() || !row.set_limit(limit) {
            return None;
        }
        slot.count_shared_box();
        Some(Self { row, id, limit })
    }

    /// Returns whether the calling code runs in the request, and in nothing else that is watched.
    #[inline]
    fn is_within(&self) -> bool {
        self.id != RowId::NONE && ThreadSlot::existing().is_some_and(|slot| slot.current() == self.id)
    }

    /// Returns whether the row is still shared, if the box is polled with that waker now. Within another box it isn't,
    /// because that may end sooner.
    #[inline]
    pub(crate) fn holds(&self, waker: &Waker) -> bool {
        let is_free = self.row.flags() & flags::BOX_DUE == 0 && scope::peek().is_none();
        self.is_within() && is_free && self.is_shared() && (executors::is_tokio_task(waker) || is_for_task(waker))
    }

    /// Returns whether nothing has asked for a row of its own.
    #[inline]
    pub(crate) fn is_shared(&self) -> bool {
        self.row.has_limit()
    }

    /// Until the value is dropped, code runs in the box.
    #[inline]
    pub(crate) fn enter(&self) -> Scope {
        Scope::enter_shared(self.row)
    }

    /// After a poll that is pending: returns whether waking the request wakes what is polled with that waker.
    #[inline]
    pub(crate) fn keep_waker(&self, waker: &Waker) -> bool {
        executors::is_tokio_task(waker) && self.row.has_task(waker) || self.keep_first_waker(waker)
    }

    #[cold]
    #[inline(never)]
    fn keep_first_waker(&self, waker: &Waker) -> bool {
        let Keep::Clone(task) = Keep::of(waker) else { return false };
        if !executors::is_tokio_task(task) {
            return false;
        }
        if !self.row.has_task(task) {
            if self.row.waker_state() >= OTHER {
                return false;
            }
            registered::keep_waker(self.row, self.id, task);
        }
        true
    }

    /// Gives the box a row of its own. Returns `None` if there is none left. Then it has no effect any more.
    #[cold]
    #[inline(never)]
    pub(crate) fn into_own(self) -> Option<Registered> {
        take_made(self.id).or_else(|| own_row(self.row, self.id, self.limit.get()))
    }
}

impl Drop for SharedLimit {
    #[inline]
    fn drop(&mut self) {
        if self.id != RowId::NONE {
            self.drop_early();
        }
    }
}

impl SharedLimit {
    /// Ends the box, because its work is ready. The row is free for another limit.
    #[inline]
    pub(crate) fn end(&mut self) {
        self.row.clear_limit();
        if self.row.flags() & FLAGS != 0 {
            self.row.update(self.id, 0, FLAGS);
        }
        self.id = RowId::NONE;
    }

    /// The work is dropped, maybe where the request isn't. That may be over, and its row another's.
    #[cold]
    #[inline(never)]
    fn drop_early(&self) {
        // After a panic, nobody else takes it.
        drop(take_made(self.id));
        // While the lock is held, the row cannot change hands. Its marks are left alone: they are the other thread's.
        let Some(mut details) = self.row.details(self.id) else { return };
        match &mut details.work {
            Work::Request(limit) if *limit == self.limit => *limit = SmallLimit::NONE,
            _ => return,
        }
        drop(details);
        if self.is_within() {
            self.row.clear_limit();
        }
        self.row.update(self.id, 0, FLAGS);
    }
}

/// Returns whether the waker is that of a traced poll of a tokio task.
#[cold]
fn is_for_task(waker: &Waker) -> bool {
    matches!(Keep::of(waker), Keep::Clone(task) if executors::is_tokio_task(task))
}

/// Returns a row for a box that begins with what is left of `limit`.
fn own_row(request: &'static Row, id: RowId, limit: RowLimit) -> Option<Registered> {
    let RowLimit { started, limit: nanos, policy } = limit;
    let left = limit.deadline().saturating_sub(crate::clock::now());
    // Near its limit, its first poll is traced, so that it need not be asked for another one.
    let is_near = left <= nanos - nanos / 8;
    let up = match left {
        0 => flags::EXPIRED | flags::OVER,
        _ if is_near => flags::ARMED,
        _ => 0,
    };
    // What was reported of the request's poll was reported of the box.
    let is_live = request.is_live(id);
    let is_reported = is_live && request.flags() & flags::BOX_REPORTED != 0;
    let extra = up | if is_reported { flags::REPORTED } else { 0 };
    let inside = if is_live { id } else { RowId::NONE };
    // It was counted as a shared one. Before it has a row, so that it is never taken for a request.
    let slot = ThreadSlot::existing();
    match slot {
        Some(slot) => {
            slot.count_box();
            slot.uncount_shared_box();
        }
        None => count(&COUNTS.timeboxes),
    }
    let registered = Registered::timebox(policy, nanos, started, extra, |details| {
        details.work = Work::Timebox(Timebox::new(inside, RowId::NONE, None, 0));
    });
    match (&registered, slot) {
        // One whose time is up is told at its next poll. The monitor need not hurry for it.
        (Some(_), _) if left > 0 => super::monitor_link::expect(left.max(1_000_000)),
        (Some(_), _) => {}
        (None, Some(slot)) => slot.uncount_box(),
        (None, None) => drop(COUNTS.timeboxes.fetch_sub(1, Relaxed)),
    }
    registered
}

/// Gives the shared box around the calling code a row, because that code asks for it. Returns the row, or the
/// request's if there is none left.
#[cold]
#[inline(never)]
pub(super) fn row_of(request: &'static Row) -> &'static Row {
    let Some((id, limit)) = request.live().and_then(|(id, _)| Some((id, request.limit()?))) else { return request };
    let Some(registered) = own_row(request, id, limit) else { return request };
    let row = registered.row();
    // It is in the same poll.
    row.set_poller(request.poller());
    // While the thread ends, there is no list, and the row ends here.
    if MADE.try_with(|made| made.borrow_mut().push((id, registered))).is_err() {
        return request;
    }
    request.clear_limit();
    request.update(id, 0, FLAGS);
    row
}
