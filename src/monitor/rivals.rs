//! Those who hold what work under diagnosis waits for. They are asked to be polled, so that the report says where they
//! are now.

use super::child_probe::ChildProbe;
use super::contention::{Contention, Member};
use super::diagnosis::ask_for_poll;
use super::gather::subject_of;
use super::stacks::Stacks;
use super::{ContentionEvidence, HolderEvidence, OtherWork};
use crate::capture::{RowId, look};
use crate::clock::{Clock, now};
use crate::inflight::resources::{Entry, describe, snapshot, usage_of};
use crate::inflight::table;

/// The holders of what one piece of work waits for.
#[derive(Default)]
pub(super) struct Rivals {
    probes: Vec<ChildProbe>,
}

fn contention(id: RowId, children: &[ChildProbe]) -> Option<Contention> {
    let snapshot = snapshot();
    if snapshot.entries.is_empty() {
        return None;
    }
    let family: Vec<RowId> = std::iter::once(id).chain(children.iter().map(|child| child.id)).collect();
    Contention::of(&snapshot, &family, |row| table().row(row).map_or(0, crate::inflight::Row::polls))
}

/// Returns whether its waits are all that a row has: as many branches, or a thread that cannot poll any other.
fn waits_alone(member: &Member) -> bool {
    let Member { work: id, waits, blocks } = *member;
    let Some(row) = table().row(id).filter(|row| row.is_live(id)) else { return false };
    if blocks && row.poller().is_polling() {
        return true;
    }
    // If it is polled at this moment, that is the poll that it was asked for.
    let details = row.details(id);
    let trace = details.as_ref().and_then(|details| details.trace.as_deref());
    let current = trace.and_then(|trace| trace.records.get(trace.current()?));
    current.is_some_and(|wait| wait.stacks.list.len() + wait.lost as usize <= waits)
}

impl Rivals {
    /// Finds the holders, and asks them to be polled.
    pub(super) fn of(id: RowId, children: &[ChildProbe], now: u64) -> Self {
        let mut probes: Vec<ChildProbe> = Vec::new();
        for holder in contention(id, children).iter().flat_map(|contention| &contention.holders) {
            let work = holder.work;
            let is_known = work == id || probes.iter().chain(children).any(|probe| probe.id == work);
            let Some(row) = table().row(work).filter(|row| !is_known && row.is_live(work)) else { continue };
            probes.push(ChildProbe::of(row, work, "holder", now));
            ask_for_poll(row, work, now);
        }
        Self { probes }
    }

    /// Looks once. Returns whether some have not answered.
    pub(super) fn look(&mut self, now: u64, stacks: &mut Stacks) -> bool {
        let mut waiting = false;
        for probe in &mut self.probes {
            if probe.done.is_none() {
                probe.done = probe.look(now, stacks);
                waiting |= probe.done.is_none() && probe.row.is_live(probe.id);
            }
        }
        waiting
    }

    /// Returns what the work waits for at this moment, with what the holders have answered.
    pub(super) fn evidence(&mut self, id: RowId, children: &[ChildProbe]) -> Option<ContentionEvidence> {
        let mut contention = contention(id, children)?;
        contention.doubt(waits_alone);
        let holders = contention.holders.iter().map(|holder| self.holder(*holder)).collect();
        let resource = contention.wait.resource;
        Some(ContentionEvidence { name: describe(resource), usage: usage_of(resource), contention, holders })
    }

    fn holder(&mut self, entry: Entry) -> HolderEvidence {
        let work = table().row(entry.work).and_then(|row| {
            let (id, subject) = subject_of(row, entry.work)?;
            let started = table().row(id)?.started()?;
            let (now, began) = (now(), Clock::get().nanos(started));
            let elapsed = now.saturating_sub(began);
            Some(OtherWork { id, started, elapsed, since: began, subject, earlier: Vec::new() })
        });
        let answer = self.probes.iter().find(|probe| probe.id == entry.work).and_then(|probe| probe.done.as_ref());
        HolderEvidence {
            entry,
            work,
            name: describe(entry.resource),
            activity: entry.thread.map(look),
            stacks: answer.and_then(|answer| answer.stacks.clone()),
            thread: answer.and_then(|answer| answer.thread.clone()),
        }
    }
}
