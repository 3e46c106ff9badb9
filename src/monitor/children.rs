//! The child work of a row that is hunted for: each piece is asked to be polled, or captured in its poll.

use super::long_poll::LongPoll;
use crate::capture::Sampler;
use crate::inflight::{Child, Row, RowId, Work, flags, table};
use crate::report::{ChildEvidence, ThreadEvidence};

const MAX_CHILDREN: usize = 32;

/// A row to be captured: asked to be polled, or seen in a poll.
pub(super) struct Prey {
    pub(super) row: &'static Row,
    pub(super) id: RowId,
    how: &'static str,
    poll: LongPoll,
    pub(super) done: Option<ChildEvidence>,
}

impl Prey {
    /// Looks once: what there is to say of it, if anything yet.
    pub(super) fn look(&mut self, now: u64, sampler: &mut Sampler) -> Option<ChildEvidence> {
        let (_, flags) = self.row.live().filter(|(id, _)| *id == self.id)?;
        if flags & flags::WANTED != 0 {
            let poller = self.row.poller();
            if !poller.is_polling() {
                self.poll.end();
                return None;
            }
            if !self.poll.is_too_long(poller, now) {
                return None;
            }
            let slot = poller.slot()?;
            let (_, poll) = slot.polling()?;
            let (thread, _) = ThreadEvidence::of(sampler.capture(slot, poll), slot)?;
            return Some(ChildEvidence { how: self.how, stacks: None, thread: Some(thread) });
        }
        let details = self.row.details(self.id)?;
        let trace = details.trace.as_ref()?;
        let stacks = trace.records[trace.last?].stacks.clone();
        Some(ChildEvidence { how: self.how, stacks: Some(stacks), thread: None })
    }
}

/// The child rows of the process, collected when the first hunt of a turn asks for them.
#[derive(Debug, Default)]
pub(super) struct Children(Option<Vec<(&'static Row, RowId, Child)>>);

impl Children {
    /// The living children of a row, and theirs.
    pub(super) fn of(&mut self, parent: RowId, now: u64) -> Vec<Prey> {
        let all = self.0.get_or_insert_with(|| table().rows().filter_map(child).collect());
        let mut family = vec![parent];
        let mut found = Vec::new();
        let mut next = 0;
        while next < family.len() && found.len() < MAX_CHILDREN {
            let parent = family[next];
            for (row, id, child) in all.iter().filter(|(_, _, child)| child.parent == parent) {
                let (row, id) = (*row, *id);
                family.push(id);
                found.push(Prey { row, id, how: child.how.as_str(), poll: LongPoll::watch(row, now), done: None });
            }
            next += 1;
        }
        found.truncate(MAX_CHILDREN);
        found
    }
}

fn child(row: &'static Row) -> Option<(&'static Row, RowId, Child)> {
    let (id, flags) = row.live()?;
    if flags & flags::CHILD == 0 {
        return None;
    }
    match &row.details(id)?.work {
        Work::Child(child) => Some((row, id, child.clone())),
        _ => None,
    }
}
