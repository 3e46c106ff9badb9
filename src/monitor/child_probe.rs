//! The child work of a row under diagnosis. Each piece is asked to be polled, or captured in its poll.

use std::collections::HashMap;

use super::ChildEvidence;
use super::long_poll::LongPoll;
use super::stacks::{CURRENT, Look, Stacks};
use crate::capture::RowId;
use crate::clock::now;
use crate::inflight::{How, Row, Work, flags, table};

const MAX_CHILDREN: usize = 32;
/// The search of the table for children may take a tenth of the time.
const COST_FACTOR: u64 = 10;

/// A row to capture: one that was asked to be polled, or that was seen in a poll.
pub(super) struct ChildProbe {
    pub(super) row: &'static Row,
    pub(super) id: RowId,
    how: &'static str,
    poll: LongPoll,
    pub(super) done: Option<ChildEvidence>,
}

impl ChildProbe {
    /// Creates a probe of any row.
    pub(super) fn of(row: &'static Row, id: RowId, how: &'static str, now: u64) -> Self {
        Self { row, id, how, poll: LongPoll::watch(row, now), done: None }
    }

    /// Returns whether it runs on a thread of the blocking pool.
    pub(super) fn needs_thread(&self) -> bool {
        self.how == How::SpawnBlocking.as_str()
    }

    /// Returns whether nothing has run it yet.
    pub(super) fn has_not_begun(&self) -> bool {
        self.row.polls() == 0 && !self.row.poller().has_polled() && self.row.is_live(self.id)
    }

    /// Looks once. Returns the evidence, if there is any yet.
    pub(super) fn look(&mut self, now: u64, stacks: &mut Stacks) -> Option<ChildEvidence> {
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
            let Look::Thread(thread, _) = stacks.of(slot, poll, CURRENT, false) else { return None };
            return Some(ChildEvidence { how: self.how, stacks: None, thread: Some(thread) });
        }
        let details = self.row.details(self.id)?;
        let trace = details.trace.as_ref()?;
        let stacks = trace.records[trace.current()?].stacks.clone();
        Some(ChildEvidence { how: self.how, stacks: Some(stacks), thread: None })
    }
}

/// The child rows of the process by their parents, collected once for several diagnoses that begin together.
#[derive(Debug, Default)]
pub(super) struct Children {
    by_parent: HashMap<RowId, Vec<(&'static Row, RowId, How)>>,
    /// Nothing searches the table again before this time.
    until: u64,
}

impl Children {
    /// Returns the living children of a row, and theirs.
    pub(super) fn of(&mut self, parent: RowId, now: u64) -> Vec<ChildProbe> {
        self.collect();
        let mut family = vec![parent];
        let mut found = Vec::new();
        let mut next = 0;
        while next < family.len() && found.len() < MAX_CHILDREN {
            let children = self.by_parent.get(&family[next]).into_iter().flatten();
            let living = children.filter(|(row, id, _)| row.is_live(*id)).take(MAX_CHILDREN - found.len());
            for &(row, id, how) in living {
                family.push(id);
                found.push(ChildProbe::of(row, id, how.as_str(), now));
            }
            next += 1;
        }
        found
    }

    fn collect(&mut self) {
        let began = now();
        if began < self.until {
            return;
        }
        self.by_parent.clear();
        for (parent, child) in table().rows().filter_map(child) {
            self.by_parent.entry(parent).or_default().push(child);
        }
        let ended = now();
        self.until = ended.saturating_add(ended.saturating_sub(began).saturating_mul(COST_FACTOR));
    }
}

fn child(row: &'static Row) -> Option<(RowId, (&'static Row, RowId, How))> {
    let (id, flags) = row.live()?;
    if flags & flags::CHILD == 0 {
        return None;
    }
    match &row.details(id)?.work {
        Work::Child(child) => Some((child.parent, (row, id, child.how))),
        _ => None,
    }
}
