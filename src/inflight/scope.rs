//! The box that the calling code runs in. While a box's future is polled or its closure runs, the thread knows the
//! innermost row that a box can tell that its time is up.
//!
//! That row is the box itself, or an inheritor: a task or a blocking closure that was handed on within boxes. The
//! monitor tells the inheritor when one of them expires.

use std::cell::Cell;
use std::panic::Location;
use std::sync::Arc;

use super::subject::{Inheritance, Inherited, More};
use super::{Audience, Child, How, Row, Timebox, Work, current_row, flags, shared_limit, table, work_of};
use crate::capture::RowId;
use crate::clock::Clock;

thread_local! {
    // Has no destructor, so that an access costs no check and works while the thread ends.
    static INNERMOST: Cell<Option<&'static Row>> = const { Cell::new(None) };
}

/// How many boxes within boxes an inheritor remembers, and any walk visits.
const MAX_DEPTH: usize = 64;

/// Returns the row that tells the calling code that its time is up. A box that shares the row of its request gets one of
/// its own for that.
#[inline]
pub(crate) fn innermost() -> Option<&'static Row> {
    let row = INNERMOST.get()?;
    if row.has_limit() { Some(own_row_of(row)) } else { Some(row) }
}

#[cold]
#[inline(never)]
fn own_row_of(request: &'static Row) -> &'static Row {
    let row = shared_limit::row_of(request);
    INNERMOST.set(Some(row));
    row
}

/// Returns the same as [`innermost`], but for a box that shares the row of its request that row.
#[inline]
pub(crate) fn peek() -> Option<&'static Row> {
    INNERMOST.get()
}

/// While this value exists, the calling thread is inside a row, as far as boxes are concerned.
#[derive(Debug)]
pub(crate) struct Scope {
    previous: Option<&'static Row>,
}

impl Scope {
    #[inline]
    pub(crate) fn enter(row: &'static Row) -> Self {
        let previous = innermost();
        // A box that began elsewhere may be polled inside one that ends sooner. Then the outer one tells its work. If
        // boxes begin inside each other, the inner one ends sooner. A row of a parent process is inert.
        let sooner =
            previous.filter(|previous| previous.process() == row.process() && previous.deadline() < row.deadline());
        INNERMOST.set(Some(sooner.unwrap_or(row)));
        Self { previous }
    }

    /// Enters a box that shares that row. No box is around it.
    #[inline]
    pub(super) fn enter_shared(row: &'static Row) -> Self {
        Self { previous: INNERMOST.replace(Some(row)) }
    }

    /// Does the same for an inheritor, which has no deadline of its own. It knows the boxes that it was handed on in.
    #[inline]
    pub(crate) fn enter_inheritor(row: &'static Row) -> Self {
        Self { previous: INNERMOST.replace(Some(row)) }
    }
}

/// Returns whether the calling code runs for a profile, where no limit or threshold applies.
pub(crate) fn is_aside() -> bool {
    peek().is_some_and(|row| row.flags() & flags::PROFILED != 0)
}

impl Drop for Scope {
    #[inline]
    fn drop(&mut self) {
        INNERMOST.set(self.previous);
    }
}

impl Row {
    /// Returns when the limit or the threshold passes, in nanoseconds of [`now`](crate::clock::now), or `u64::MAX` for
    /// never.
    pub(crate) fn deadline(&self) -> u64 {
        let started = self.started().map_or(u64::MAX, |ticks| Clock::get().nanos(ticks));
        started.saturating_add(self.threshold())
    }

    /// Returns the box and what it is in, or `None` if `id` isn't a box, or is over.
    pub(crate) fn timebox(&self, id: RowId) -> Option<Timebox> {
        match &self.details(id)?.work {
            Work::Timebox(timebox) => Some(timebox.clone()),
            _ => None,
        }
    }

    /// Returns the box's grace: how long its work may take to end by itself once its limit has passed, in nanoseconds.
    pub(crate) fn grace(&self, id: RowId) -> u64 {
        match self.details(id).as_deref().map(|details| &details.work) {
            Some(Work::Timebox(timebox)) => timebox.grace(),
            _ => 0,
        }
    }

    /// Returns what an inheritor has of the boxes that it was handed on in.
    pub(crate) fn inheritance(&self, id: RowId) -> Option<Arc<Inheritance>> {
        match &self.details(id)?.work {
            Work::Child(child) => child.boxes.clone(),
            _ => None,
        }
    }

    /// Returns what was handed on within the box and still runs: how, and where. Takes time only if something was.
    pub(crate) fn handed_on(&self, id: RowId) -> Vec<(How, &'static Location<'static>)> {
        let inherited = match self.details(id).as_deref().map(|details| &details.work) {
            Some(Work::Timebox(Timebox { more: Some(more), .. })) => more.inherited.clone(),
            _ => None,
        };
        let child = |id: RowId| match &table().row(id)?.details(id)?.work {
            Work::Child(Child { how, boxes: Some(inheritance), .. }) => Some((*how, inheritance.at)),
            _ => None,
        };
        inherited.map(|inherited| inherited.inheritors.living()).into_iter().flatten().filter_map(child).collect()
    }

    /// Returns what work that is handed on within the box has of it.
    fn inherited(&self, id: RowId) -> Option<Arc<Inherited>> {
        let mut details = self.details(id)?;
        let Work::Timebox(timebox) = &mut details.work else { return None };
        let more = timebox.more.get_or_insert_with(|| Box::new(More::default()));
        if more.inherited.is_none() {
            let inherited = Inherited::new(self, id, more.label.clone());
            // The flag is set under the lock that is held here, see `expire`.
            if self.flags() & flags::EXPIRED != 0 {
                inherited.inheritors.close();
            }
            more.inherited = Some(Arc::new(inherited));
        }
        more.inherited.clone()
    }

    /// Sets the flags of `set`, because the limit of the box has passed. Returns the flags from before, and the rows to
    /// tell in addition to the box itself, or `None` if the box is over.
    ///
    /// Code that hands on work later, within the box or within what was handed on in it, learns this from the
    /// [`Audience`] and tells the new work itself.
    pub(crate) fn expire(&self, id: RowId, set: u32) -> Option<(u32, Vec<RowId>)> {
        // Under the lock, so that the box can neither end nor hand on for the first time in between.
        let details = self.details(id)?;
        let before = self.update(id, set, 0)?;
        let inherited = match &details.work {
            Work::Timebox(timebox) => timebox.more.as_ref().and_then(|more| more.inherited.clone()),
            _ => None,
        };
        drop(details);
        Some((before, inherited.map(|inherited| inherited.inheritors.close()).unwrap_or_default()))
    }
}

/// Returns the box's deadline while it runs, in nanoseconds, otherwise `u64::MAX`.
fn live_deadline(inherited: &Inherited) -> u64 {
    let Some(row) = table().row(inherited.id) else { return u64::MAX };
    // It may have been lifted since then.
    let deadline = row.deadline();
    if row.is_live(inherited.id) { deadline } else { u64::MAX }
}

/// Returns the earliest deadline of the boxes that the calling code runs in, in nanoseconds, or `None` outside of any.
pub(crate) fn nearest_deadline() -> Option<u64> {
    let mut nearest = None;
    walk(|step| {
        let deadline = match step {
            Around::Box(row, _) => row.deadline(),
            Around::Inherited(.., inherited) => live_deadline(inherited),
        };
        nearest = Some(nearest.unwrap_or(u64::MAX).min(deadline));
    });
    nearest
}

/// Returns what the calling code passes on to work that it hands on.
pub(super) fn inheritance(at: &'static Location<'static>) -> Option<Arc<Inheritance>> {
    innermost()?;
    let mut boxes = Vec::new();
    walk(|step| match step {
        Around::Box(row, id) => boxes.extend(row.inherited(id)),
        Around::Inherited(.., inherited) => boxes.push(Arc::clone(inherited)),
    });
    (!boxes.is_empty()).then(|| Arc::new(Inheritance { at, boxes, inner: Audience::default() }))
}

/// Tells a new inheritor, which nothing runs yet, what has expired by now. The monitor tells it what expires later.
pub(super) fn tell_inheritor(inheritor: &'static Row, id: RowId, inheritance: &Inheritance) {
    let expired = inheritance.boxes.iter().filter(|inherited| !inherited.inheritors.join(id)).count();
    if expired > 0 {
        inheritance.inner.close();
        inheritor.update(id, flags::INHERITED, 0);
    }
}

/// Makes a new box within work that was handed on learn when that work is told, or at once if it has been.
#[cold]
#[inline(never)]
pub(crate) fn tell_box(row: &'static Row, id: RowId, around: RowId) {
    if inheritance_around(around).is_some_and(|inheritance| !inheritance.inner.join(id)) {
        row.update(id, flags::INHERITED, 0);
    }
}

/// Returns the inheritance of the inheritor that `id` is, or that is around the boxes around it.
fn inheritance_around(mut id: RowId) -> Option<Arc<Inheritance>> {
    for _ in 0..MAX_DEPTH {
        let row = table().row(id).filter(|row| row.flags() & (flags::BOX | flags::INHERITOR) != 0)?;
        match &row.details(id)?.work {
            Work::Timebox(timebox) => id = timebox.around(),
            Work::Child(child) => return child.boxes.clone(),
            _ => return None,
        }
    }
    None
}

/// One box of those around the calling code.
pub(crate) enum Around<'a> {
    /// The box itself.
    Box(&'static Row, RowId),
    /// A box as work that was handed on remembers it: the work's row, and what it remembers.
    Inherited(&'static Row, RowId, &'a Arc<Inherited>),
}

/// Lifts the limits and thresholds around the calling code.
pub(crate) fn lift_limits() {
    let lift = |row: &'static Row, id: RowId| {
        row.set_threshold(u64::MAX);
        row.forget_deadline(id);
    };
    walk(|step| {
        if let Around::Box(row, id) = step {
            lift(row, id);
        }
    });
    let work = work_of(current_row());
    if let Some(row) = table().row(work).filter(|row| row.is_live(work)) {
        lift(row, work);
    }
}

/// Lifts the limits and thresholds around the calling code, and leaves its request out of dumps: it asks heeler itself.
#[cfg(feature = "console")]
pub(crate) fn step_aside() {
    lift_limits();
    let work = work_of(current_row());
    if let Some(row) = table().row(work) {
        row.update(work, flags::UNLISTED, 0);
    }
}

/// Visits the boxes around the calling code, from the innermost out.
pub(crate) fn walk(mut visit: impl FnMut(Around<'_>)) {
    let mut next = innermost();
    for _ in 0..MAX_DEPTH {
        let Some((row, (id, flags))) = next.and_then(|row| Some((row, row.live()?))) else { return };
        if flags & flags::BOX == 0 {
            let inheritance = row.inheritance(id);
            let boxes = inheritance.iter().flat_map(|inheritance| &inheritance.boxes);
            boxes.for_each(|one| visit(Around::Inherited(row, id, one)));
            return;
        }
        visit(Around::Box(row, id));
        let around = row.timebox(id).map_or(RowId::NONE, |timebox| timebox.around());
        next = table().row(around).filter(|row| row.is_live(around));
    }
}
