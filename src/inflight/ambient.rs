//! The box that the calling code runs in: a thread knows the innermost row that a box can tell that its time is up, while
//! the box's future is polled or its closure runs.
//!
//! That row is the box itself, or an heir: a task or a blocking closure that was handed on within boxes, and which the
//! monitor tells when one of them expires.

use std::cell::Cell;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Mutex};

use super::subject::Inherited;
use super::{Clock, Job, PolicyId, Registered, Row, RowId, ThreadSlot, Timebox, Work, flags, table, work_of};
use crate::sync::lock_std;

thread_local! {
    // Without a destructor, so that an access costs no check and works while the thread ends.
    static INNERMOST: Cell<Option<&'static Row>> = const { Cell::new(None) };
}

/// Boxes within boxes that an heir remembers, and that anybody walks.
const MAX_DEPTH: usize = 64;

/// The row that tells the calling code that its time is up.
#[inline]
pub(crate) fn innermost() -> Option<&'static Row> {
    INNERMOST.get()
}

/// The calling thread is inside a row, as far as boxes go, until the value is dropped.
#[derive(Debug)]
pub(crate) struct Ambient {
    previous: Option<&'static Row>,
}

impl Ambient {
    #[inline]
    pub(crate) fn enter(row: &'static Row) -> Self {
        let previous = INNERMOST.get();
        // A box that began elsewhere, and is polled inside one that ends sooner: that one tells its work. Where boxes begin
        // inside each other, the inner one ends sooner.
        let sooner = previous.filter(|previous| previous.deadline() < row.deadline());
        INNERMOST.set(Some(sooner.unwrap_or(row)));
        Self { previous }
    }

    /// The same for an heir, which has no deadline of its own: it knows the boxes that it was handed on in.
    #[inline]
    pub(crate) fn enter_heir(row: &'static Row) -> Self {
        Self { previous: INNERMOST.replace(Some(row)) }
    }
}

/// Everything that the calling thread runs from here on is a profile's, also what was not handed on by heeler's functions: no
/// limit holds there.
pub(crate) fn stand_aside_for_good() {
    static ROW: Mutex<Option<&'static Row>> = Mutex::new(None);
    let mut row = lock_std(&ROW);
    // If the table is full, the next thread may be luckier.
    if row.is_none() {
        let registered = Registered::new(PolicyId::NONE, u64::MAX, flags::PROFILED, |details| {
            details.work = Work::Job(Box::new(Job { name: "profiles".into(), reports: None }));
        });
        *row = registered.map(|registered| {
            let row = registered.row();
            // For the life of the process.
            std::mem::forget(registered);
            row
        });
    }
    INNERMOST.set(*row);
}

/// Whether the calling code runs for a profile, where no limit or threshold holds.
pub(crate) fn is_aside() -> bool {
    innermost().is_some_and(|row| row.flags() & flags::PROFILED != 0)
}

impl Drop for Ambient {
    #[inline]
    fn drop(&mut self) {
        INNERMOST.set(self.previous);
    }
}

impl Row {
    /// When the limit or the threshold passes, in nanoseconds of [`super::now`]; `u64::MAX` for never.
    pub(crate) fn deadline(&self) -> u64 {
        let started = self.started().map_or(u64::MAX, |ticks| Clock::get().nanos(ticks));
        started.saturating_add(self.threshold())
    }

    /// Of a box: what it is and what it is in; `None` if `id` is no box, or over.
    pub(crate) fn timebox(&self, id: RowId) -> Option<Timebox> {
        match &self.details(id)?.work {
            Work::Timebox(timebox) => Some(timebox.clone()),
            _ => None,
        }
    }

    /// Of an heir: the boxes that it was handed on in.
    pub(crate) fn inherited(&self) -> Option<Arc<Vec<Arc<Inherited>>>> {
        let (id, _) = self.live()?;
        match &self.details(id)?.work {
            Work::Child(child) => child.boxes.clone(),
            _ => None,
        }
    }
}

/// The box's deadline as long as it runs, in nanoseconds; else `u64::MAX`.
fn live_deadline(inherited: &Inherited) -> u64 {
    let lives = table().row(inherited.id).is_some_and(|row| row.is_live(inherited.id));
    if lives { inherited.deadline } else { u64::MAX }
}

/// The earliest deadline of the boxes that the calling code runs in, in nanoseconds; `None` outside of any.
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

/// What the calling code passes on to the work that it hands on.
pub(super) fn inheritance() -> Option<Arc<Vec<Arc<Inherited>>>> {
    INNERMOST.get()?;
    let mut boxes = Vec::new();
    walk(|step| match step {
        Around::Box(row, id) => {
            boxes.extend(row.timebox(id).map(|timebox| Arc::new(Inherited::new(row, id, &timebox))));
        }
        Around::Inherited(.., inherited) => boxes.push(Arc::clone(inherited)),
    });
    (!boxes.is_empty()).then(|| Arc::new(boxes))
}

/// A new heir, which nobody runs yet, is told what has expired by now. What expires from here on, the monitor tells it.
pub(super) fn tell_heir(heir: &'static Row, id: RowId, boxes: &[Arc<Inherited>]) {
    // Of a box that is there: both the monitor and this update its state, and the later one sees what the other did. Of one
    // that is gone: the work that hands on has inherited it itself, and shares what it knows.
    for inherited in boxes {
        let before = table().row(inherited.id).and_then(|row| row.update(inherited.id, flags::PARENT, 0));
        if before.is_some_and(|before| before & flags::EXPIRED != 0) {
            inherited.expire();
        }
    }
    fence(Ordering::SeqCst);
    if boxes.iter().any(|inherited| inherited.has_expired()) {
        heir.update(id, flags::INHERITED, 0);
    }
}

/// A new box within what was told is told, too.
#[cold]
#[inline(never)]
pub(crate) fn tell_box(row: &'static Row, id: RowId, around: RowId) {
    fence(Ordering::SeqCst);
    let told = table().row(around).is_some_and(|row| row.is_live(around) && row.flags() & flags::INHERITED != 0);
    if told {
        row.update(id, flags::INHERITED, 0);
    }
}

/// One box of those around the calling code.
pub(crate) enum Around<'a> {
    /// Itself.
    Box(&'static Row, RowId),
    /// As work that was handed on remembers it: the work's row, and what it remembers.
    Inherited(&'static Row, RowId, &'a Arc<Inherited>),
}

/// The limits and thresholds around the calling code hold no longer.
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
    let work = work_of(ThreadSlot::existing().map_or(RowId::NONE, ThreadSlot::current));
    if let Some(row) = table().row(work).filter(|row| row.is_live(work)) {
        lift(row, work);
    }
}

/// The boxes around the calling code, from the innermost out.
pub(crate) fn walk(mut visit: impl FnMut(Around<'_>)) {
    let mut next = INNERMOST.get();
    for _ in 0..MAX_DEPTH {
        let Some((row, (id, flags))) = next.and_then(|row| Some((row, row.live()?))) else { return };
        if flags & flags::BOX == 0 {
            let inherited = row.inherited();
            inherited.iter().flat_map(|boxes| boxes.iter()).for_each(|one| visit(Around::Inherited(row, id, one)));
            return;
        }
        visit(Around::Box(row, id));
        let around = row.timebox(id).map_or(RowId::NONE, |timebox| timebox.around());
        next = table().row(around).filter(|row| row.is_live(around));
    }
}
