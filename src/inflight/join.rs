//! Rows that refer to other rows: layers that share one, and children.

use std::panic::Location;

use super::scope::{inheritance, tell_inheritor};
use super::{Child, Details, How, Origin, Policy, PolicyId, Registered, Watched, Work, flags, table};
use crate::capture::{RowId, ThreadSlot};
use crate::counts::COUNTS;
use crate::sync::count;

/// If an outer layer has a row for the current request, joins it. The shorter threshold counts, and brings its layer's
/// reports along. `body` counts if it is true for either. The monitor must be told of the threshold.
#[inline]
pub(crate) fn join(policy: &'static Policy, threshold: u64, body: bool) -> bool {
    let Some(slot) = ThreadSlot::existing() else { return false };
    let id = slot.current();
    id != RowId::NONE && adopt(id, policy, threshold, body)
}

#[cold]
fn adopt(id: RowId, policy: &'static Policy, threshold: u64, body: bool) -> bool {
    let id = work_of(id);
    if is_profiled(id) {
        return true;
    }
    let Some(row) = table().row(id).filter(|_| is_request(id)) else { return false };
    if threshold < row.threshold() {
        row.set_threshold(threshold);
        row.set_policy(policy.id);
        row.forget_deadline(id);
    }
    if body {
        row.update(id, flags::WATCH_BODY, 0);
    }
    true
}

/// Returns a row for work that the current work hands on, or none outside of watched work.
pub(crate) fn child(how: How, at: &'static Location<'static>, extra: u32) -> Watched {
    let current = current_row();
    // A box alone is enough, even one that has outlived the work that it began in.
    let becomes_parent = |id: &RowId| table().row(*id).is_some_and(|row| row.update(*id, flags::PARENT, 0).is_some());
    let Some(parent) = [work_of(current), current].into_iter().find(becomes_parent) else { return Watched::off() };
    // A member of a set is polled within the box, so it needs nothing to remember the box.
    let boxes = if matches!(how, How::WatchChild) { None } else { inheritance(at) };
    let inheritor = if boxes.is_some() { flags::INHERITOR } else { 0 };
    let profiled = if is_profiled(parent) { flags::PROFILED } else { 0 };
    let fill = |details: &mut Details| details.work = Work::Child(Child { parent, how, boxes: boxes.clone() });
    let registered = Registered::new(PolicyId::NONE, u64::MAX, flags::CHILD | inheritor | profiled | extra, fill);
    if let Some(registered) = &registered {
        count(&COUNTS.children);
        if let Some(inheritance) = &boxes {
            tell_inheritor(registered.row(), registered.id(), inheritance);
        }
    }
    Watched::new(registered)
}

/// Returns the innermost row that the calling code runs in, or [`RowId::NONE`].
pub(crate) fn current_row() -> RowId {
    ThreadSlot::existing().map_or(RowId::NONE, ThreadSlot::current)
}

/// Returns whether the calling code runs for a request that has a row.
#[inline]
pub(crate) fn is_in_request() -> bool {
    let current = current_row();
    current != RowId::NONE && is_request(work_of(current))
}

fn is_request(id: RowId) -> bool {
    table().row(id).is_some_and(|row| row.is_live(id) && row.flags() & flags::REQUEST != 0)
}

/// Returns whether the row's request is profiled.
fn is_profiled(id: RowId) -> bool {
    table().row(id).is_some_and(|row| row.is_live(id) && row.flags() & flags::PROFILED != 0)
}

/// Returns what a box is a part of if `id` is one, otherwise `id`.
pub(crate) fn work_of(mut id: RowId) -> RowId {
    // The limit is for a row that is reused during the search.
    for _ in 0..64 {
        let Some(row) = table().row(id).filter(|row| row.flags() & flags::BOX != 0) else { break };
        let Some(timebox) = row.timebox(id) else { break };
        id = timebox.inside;
    }
    id
}

/// Returns the request that `id` is a part of, or that its job belongs to. `None` once that is over.
pub(crate) fn origin(mut id: RowId) -> Option<Box<Origin>> {
    // The limit is for a row that is reused during the search.
    for _ in 0..64 {
        let row = table().row(id)?;
        let details = row.details(id)?;
        id = match &details.work {
            // A layer's box has the request, if no other layer has a row for it.
            Work::Request(_) | Work::Timebox(_) if details.request.path.is_some() => {
                return Some(Box::new(Origin { id, policy: row.policy(), request: details.request.copy() }));
            }
            Work::Job(job) if job.origin.is_some() => return job.origin.clone(),
            Work::Job(job) => job.inside,
            Work::Child(child) => child.parent,
            Work::Timebox(timebox) => timebox.inside,
            Work::Nothing | Work::Request(_) => return None,
        };
    }
    None
}

/// Returns the request or job at the root of `id`.
pub(crate) fn root(mut id: RowId) -> RowId {
    id = work_of(id);
    // A chain of parents cannot be a ring. The limit is for a row that is reused during the search.
    for _ in 0..64 {
        let Some(details) = table().row(id).and_then(|row| row.details(id)) else { break };
        let Work::Child(child) = &details.work else { break };
        let parent = child.parent;
        drop(details);
        id = work_of(parent);
    }
    id
}
