//! What the fleet has cost and brought, on this instance.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Weak};

use super::Member;
use crate::capture::PerProcess;
use crate::sync::lock_std;

/// What this instance has done as a member of its [`Fleet`](crate::Fleet): see [`Reports::fleet`](crate::Reports::fleet). Whether
/// its reports have reached the store, [`Reports::sinks`](crate::Reports::sinks) says, under `fleet`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FleetStats {
    /// Whether the store heeds conditions. If it doesn't, each instance tells people for itself. `None` until the store has
    /// answered.
    pub heeds_conditions: Option<bool>,
    /// Incidents that this instance has taken on to tell people of, on behalf of all.
    pub messages: u64,
    /// Incidents that it tells people of for itself, because the store did not answer in time or does not heed conditions, or
    /// because too many began at once.
    pub messages_alone: u64,
    /// Reports that people did not get from this instance, because they hear of the incident otherwise.
    pub left_to_others: u64,
    /// News of incidents that this instance has told people: that one doubled, spread or ended.
    pub updates: u64,
    /// Reports that are counted in memory, and not in the store yet.
    pub unwritten: u64,
    /// Reports that the store's counts or indexes lack for good, because there were too many incidents at a time, or too many
    /// days passed, while the store did not answer, because they came days late, or because the [`Reports`](crate::Reports) were
    /// dropped before they were flushed.
    pub uncounted: u64,
    /// Requests that write, failed ones included.
    pub puts: u64,
    /// Requests that read an object, or when it was written.
    pub gets: u64,
    /// Requests that list.
    pub lists: u64,
    /// Requests that remove.
    pub removals: u64,
    /// Requests that failed or were not answered in time. Most were tried again.
    pub failed_requests: u64,
}

impl FleetStats {
    /// Adds two sums. Every field is named, so that none is forgotten.
    fn plus(self, other: Self) -> Self {
        let heeds_conditions = match (self.heeds_conditions, other.heeds_conditions) {
            (Some(one), Some(other)) => Some(one && other),
            (one, other) => one.or(other),
        };
        Self {
            heeds_conditions,
            messages: self.messages + other.messages,
            messages_alone: self.messages_alone + other.messages_alone,
            left_to_others: self.left_to_others + other.left_to_others,
            updates: self.updates + other.updates,
            unwritten: self.unwritten + other.unwritten,
            uncounted: self.uncounted + other.uncounted,
            puts: self.puts + other.puts,
            gets: self.gets + other.gets,
            lists: self.lists + other.lists,
            removals: self.removals + other.removals,
            failed_requests: self.failed_requests + other.failed_requests,
        }
    }
}

/// What an instance counts of its fleet.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) messages: AtomicU64,
    pub(super) messages_alone: AtomicU64,
    pub(super) left_to_others: AtomicU64,
    pub(super) updates: AtomicU64,
    pub(super) uncounted: AtomicU64,
    /// Requests, those included that were tried again.
    pub(super) puts: AtomicU64,
    pub(super) gets: AtomicU64,
    pub(super) lists: AtomicU64,
    pub(super) removals: AtomicU64,
    pub(super) failed_requests: AtomicU64,
}

impl Counters {
    pub(super) fn read(&self) -> FleetStats {
        FleetStats {
            heeds_conditions: None,
            messages: self.messages.load(Relaxed),
            messages_alone: self.messages_alone.load(Relaxed),
            left_to_others: self.left_to_others.load(Relaxed),
            updates: self.updates.load(Relaxed),
            unwritten: 0,
            uncounted: self.uncounted.load(Relaxed),
            puts: self.puts.load(Relaxed),
            gets: self.gets.load(Relaxed),
            lists: self.lists.load(Relaxed),
            removals: self.removals.load(Relaxed),
            failed_requests: self.failed_requests.load(Relaxed),
        }
    }
}

/// The members of fleets in this process, and the sums of those that are gone.
#[derive(Default)]
struct All {
    members: Vec<(Weak<Member>, Arc<Counters>)>,
    gone: Option<FleetStats>,
}

static ALL: PerProcess<Mutex<All>> = PerProcess::new(Mutex::default);

impl All {
    /// Adds up the counters of members that are gone.
    fn settle(&mut self) {
        let mut gone = self.gone.unwrap_or_default();
        self.members.retain_mut(|(_, counters)| {
            // What isn't shared cannot be shared again: see the counters of reports.
            let last = Arc::get_mut(counters).map(|last| last.read());
            gone = last.map_or(gone, |last| gone.plus(last));
            last.is_none()
        });
        self.gone = Some(gone);
    }
}

/// Has a member counted in [`total`].
pub(super) fn register(member: &Arc<Member>) {
    let mut all = lock_std(ALL.get());
    all.settle();
    all.members.push((Arc::downgrade(member), Arc::clone(&member.counters)));
}

/// Returns the sums of all members of fleets that this process has had, if it has had one.
pub(crate) fn total() -> Option<FleetStats> {
    let (members, gone) = {
        let mut all = lock_std(ALL.get());
        all.gone?;
        all.settle();
        (all.members.clone(), all.gone.unwrap_or_default())
    };
    // One that is just being dropped has its counters still.
    let read = |(member, counters): &(Weak<Member>, Arc<Counters>)| {
        member.upgrade().map_or_else(|| counters.read(), |member| member.stats())
    };
    Some(members.iter().map(read).fold(gone, FleetStats::plus))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::ProcessInfo;
    use crate::report::fleet::Fleet;

    /// Guards: what a member has counted still counts when it is gone, and once.
    #[tokio::test]
    async fn a_member_that_is_gone_still_counts() {
        // More than other tests count at the same time.
        const MANY: u64 = 1 << 40;
        let fleet = Fleet::new(Arc::new(object_store::memory::InMemory::new()), "photos");
        for members in 1..3 {
            let member = Member::on(tokio::runtime::Handle::current(), &fleet, ProcessInfo::default());
            register(&member);
            member.counters.uncounted.store(MANY, Relaxed);
            assert_eq!(total().unwrap().uncounted / MANY, members);
            drop(member);
            assert_eq!(total().unwrap().uncounted / MANY, members);
        }
    }

    /// Guards: if one store does not heed conditions, that is said, whatever others do.
    #[test]
    fn the_worst_store_counts() {
        let heeds = |heeds_conditions| FleetStats { heeds_conditions, ..FleetStats::default() };
        for (one, other, both) in [
            (None, None, None),
            (None, Some(true), Some(true)),
            (Some(true), Some(true), Some(true)),
            (Some(true), Some(false), Some(false)),
            (Some(false), None, Some(false)),
        ] {
            assert_eq!(heeds(one).plus(heeds(other)).heeds_conditions, both);
            assert_eq!(heeds(other).plus(heeds(one)).heeds_conditions, both);
        }
    }
}
