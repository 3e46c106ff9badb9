//! The named resources of a dump: who holds each, and who waits for it.

use std::collections::{HashMap, HashSet};

use super::{ClaimEvidence, ResourceEvidence};
use crate::capture::RowId;
use crate::clock::Clock;
use crate::inflight::ResourceId;
use crate::inflight::resources::{Entry, describe, usage_of, whole_snapshot};
use crate::monitor::contention::{Member, deadlocks};

/// At most this many resources are listed, those that most work waits for.
const MAX_RESOURCES: usize = 256;
/// At most this many holders and waiters of each are listed, the longest first.
const MAX_CLAIMS: usize = 32;

/// What is held and awaited.
pub(super) struct Held {
    pub(super) resources: Vec<ResourceEvidence>,
    /// The work in each deadlock.
    pub(super) deadlocks: Vec<Vec<RowId>>,
    /// What each piece of work holds and waits for, as indices into the resources.
    pub(super) claims: HashMap<RowId, [Vec<usize>; 2]>,
}

/// Returns what is held and awaited. `waits_alone` returns whether the named waits of a member are all that it has.
pub(super) fn take(moment: u64, waits_alone: &dyn Fn(&Member) -> bool) -> Held {
    let snapshot = whole_snapshot();
    let deadlocks = deadlocks(&snapshot, waits_alone);
    let stuck: HashSet<RowId> = deadlocks.iter().flatten().copied().collect();
    let mut by_resource: HashMap<ResourceId, [Vec<&Entry>; 2]> = HashMap::new();
    for entry in &snapshot.entries {
        by_resource.entry(entry.resource).or_default()[usize::from(entry.wait.is_some())].push(entry);
    }
    let is_in_deadlock =
        |claims: &[Vec<&Entry>; 2]| claims.iter().all(|claims| claims.iter().any(|entry| stuck.contains(&entry.work)));
    let mut all: Vec<_> = by_resource.into_iter().map(|(id, claims)| (id, is_in_deadlock(&claims), claims)).collect();
    // Deadlocks first: these must not be cut off.
    all.sort_by_key(|(_, in_deadlock, [holders, waiters])| {
        let first = holders.iter().chain(waiters).map(|entry| entry.since).min();
        (!*in_deadlock, std::cmp::Reverse(waiters.len()), first)
    });
    all.truncate(MAX_RESOURCES);
    let mut of_work: HashMap<RowId, [Vec<usize>; 2]> = HashMap::new();
    for (at, (_, _, claims)) in all.iter().enumerate() {
        for (kind, claims) in claims.iter().enumerate() {
            for entry in claims.iter().filter(|entry| entry.work != RowId::NONE) {
                of_work.entry(entry.work).or_default()[kind].push(at);
            }
        }
    }
    let resource = |(id, in_deadlock, [mut holders, mut waiters]): (ResourceId, bool, [Vec<&Entry>; 2])| {
        let more = |claims: &Vec<&Entry>| claims.len().saturating_sub(MAX_CLAIMS) as u64;
        let (more_holders, more_waiters) = (more(&holders), more(&waiters));
        ResourceEvidence {
            name: describe(id),
            is_certain: id.permits().is_some(),
            in_deadlock,
            usage: usage_of(id),
            holders: claims(&mut holders, moment),
            waiters: claims(&mut waiters, moment),
            more_holders,
            more_waiters,
        }
    };
    Held { resources: all.into_iter().map(resource).collect(), deadlocks, claims: of_work }
}

fn claims(entries: &mut [&Entry], moment: u64) -> Vec<ClaimEvidence> {
    entries.sort_by_key(|entry| entry.since);
    let claim = |entry: &&Entry| ClaimEvidence {
        work: entry.work,
        thread: entry.thread,
        at: entry.at,
        time: moment.saturating_sub(Clock::get().nanos(entry.since)),
    };
    entries.iter().take(MAX_CLAIMS).map(claim).collect()
}
