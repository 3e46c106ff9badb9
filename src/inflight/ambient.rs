//! The box that the calling code runs in: a thread knows the innermost row that a box can tell that its time is up, while
//! the box's future is polled or its closure runs.
//!
//! That row is the box itself, or an heir: a task or a blocking closure that was handed on within boxes, and which the
//! monitor tells when one of them expires.

use std::cell::Cell;
use std::sync::Arc;

use super::subject::Inherited;
use super::{Clock, Row, RowId, Timebox, Work, flags, table};

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
    pub(crate) fn inherited(&self) -> Option<Arc<Vec<Inherited>>> {
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
            Around::Inherited(inherited) => live_deadline(inherited),
        };
        nearest = Some(nearest.unwrap_or(u64::MAX).min(deadline));
    });
    nearest
}

/// What the calling code passes on to the work that it hands on.
pub(super) fn inheritance() -> Option<Arc<Vec<Inherited>>> {
    INNERMOST.get()?;
    let mut boxes = Vec::new();
    walk(|step| match step {
        Around::Box(row, id) => {
            if let Some(timebox) = row.timebox(id) {
                let (label, limit) = (timebox.label().cloned(), row.threshold());
                boxes.push(Inherited { id, policy: row.policy(), label, limit, deadline: row.deadline() });
            }
            // The monitor looks for heirs when it expires.
            row.update(id, flags::PARENT, 0);
        }
        Around::Inherited(inherited) => boxes.push(inherited.clone()),
    });
    (!boxes.is_empty()).then(|| Arc::new(boxes))
}

/// One box of those around the calling code.
pub(crate) enum Around<'a> {
    /// Itself.
    Box(&'static Row, RowId),
    /// As work that was handed on remembers it.
    Inherited(&'a Inherited),
}

/// The boxes around the calling code, from the innermost out.
pub(crate) fn walk(mut visit: impl FnMut(Around<'_>)) {
    let mut next = INNERMOST.get();
    for _ in 0..MAX_DEPTH {
        let Some((row, (id, flags))) = next.and_then(|row| Some((row, row.live()?))) else { return };
        if flags & flags::BOX == 0 {
            row.inherited().iter().flat_map(|boxes| boxes.iter()).for_each(|one| visit(Around::Inherited(one)));
            return;
        }
        visit(Around::Box(row, id));
        let around = row.timebox(id).map_or(RowId::NONE, |timebox| timebox.around());
        next = table().row(around).filter(|row| row.is_live(around));
    }
}
