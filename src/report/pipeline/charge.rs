//! How much memory evidence takes while it waits.

use super::inbox::Charge;
use super::ledger::Weight;
use crate::capture::Snapshot;
use crate::inflight::{Stacks, WaitRecord};
use crate::monitor::{ChildEvidence, Culprit, Evidence, HolderEvidence, OtherEvidence, OtherWork};
use crate::report::Reports;

/// Returns what evidence takes of the memory of its reports while it waits.
pub(in crate::report) fn charge(evidence: &Evidence, reports: &Reports) -> Charge {
    let mut weight = Weight { own: size_of::<Evidence>() + evidence.subject.size(), shared: Vec::new() };
    weight.own += evidence.notes.iter().map(|note| size_of::<String>() + note.capacity()).sum::<usize>();
    for wait in &evidence.waits {
        weight.own += size_of::<WaitRecord>();
        weight.add_stacks(&wait.stacks);
    }
    let threads = evidence.thread.iter().chain(evidence.culprits.iter().map(|culprit| &culprit.thread));
    threads.chain(evidence.children.iter().filter_map(|child| child.thread.as_ref())).for_each(|thread| {
        weight.own += size_of::<Culprit>();
        thread.snapshot.iter().for_each(|snapshot| weight.add_snapshot(snapshot));
    });
    for culprit in &evidence.culprits {
        weight.own += culprit.work.size();
    }
    for child in &evidence.children {
        weight.own += size_of::<ChildEvidence>();
        child.stacks.iter().for_each(|stacks| weight.add_stacks(stacks));
    }
    for other in &evidence.others.places {
        weight.own += size_of::<OtherEvidence>();
        other.stacks.iter().for_each(|stacks| weight.add_stacks(stacks));
        for work in &other.work {
            weight.own += size_of::<OtherWork>() + work.subject.size();
            work.earlier.iter().for_each(|stacks| weight.add_stacks(stacks));
        }
    }
    for holder in evidence.contention.iter().flat_map(|contention| &contention.holders) {
        weight.own += size_of::<HolderEvidence>() + holder.work.as_ref().map_or(0, |work| work.subject.size());
        holder.stacks.iter().for_each(|stacks| weight.add_stacks(stacks));
    }
    let places = evidence.others.places.iter().filter_map(|other| other.thread.as_ref());
    let holders = evidence.contention.iter().flat_map(|contention| &contention.holders);
    let threads = places.chain(holders.filter_map(|holder| holder.thread.as_ref()));
    threads.filter_map(|thread| thread.snapshot.as_ref()).for_each(|snapshot| weight.add_snapshot(snapshot));
    Charge { owner: reports.address(), weight, limit: reports.evidence_bytes() }
}

impl Weight {
    fn add_stacks(&mut self, stacks: &Stacks) {
        stacks.list.iter().for_each(|snapshot| self.add_snapshot(snapshot));
    }

    /// Requests that wait for the same worker may have the same copy of its stack.
    fn add_snapshot(&mut self, snapshot: &Snapshot) {
        self.own += size_of::<Snapshot>() + size_of_val(&*snapshot.spans);
        self.shared.push((snapshot.address(), snapshot.size()));
    }
}
