//! Decides what to remove.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use super::item::{Entry, Kind, age};
use crate::profile::id::Id;
use crate::sync::lock_std;

/// How much a store keeps, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) count: usize,
    pub(super) bytes: u64,
    pub(super) ttl: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { count: 100, bytes: 64 << 20, ttl: Duration::from_secs(60 * 60) }
    }
}

impl Bounds {
    pub(super) fn is_expired(&self, modified: SystemTime) -> bool {
        age(modified) >= self.ttl
    }

    /// Returns how many jobs without a profile are remembered: those that are queued, running or failed.
    fn jobs(&self) -> usize {
        self.count.max(1_000)
    }

    /// Returns the ids whose files to remove: expired ones, then the oldest profiles beyond the bounds, and the oldest
    /// jobs.
    pub(super) fn surplus(&self, entries: impl IntoIterator<Item = Entry>) -> Vec<Id> {
        let mut groups: HashMap<Id, Group> = HashMap::new();
        for entry in entries {
            let group = groups.entry(entry.id).or_insert(Group { latest: entry.modified, bytes: 0, stored: None });
            group.latest = group.latest.max(entry.modified);
            if entry.kind == Kind::Profile {
                group.bytes = entry.bytes;
                group.stored = Some(entry.modified);
            }
        }
        let mut groups: Vec<_> = groups.into_iter().collect();
        groups.sort_unstable_by_key(|(id, group)| Reverse((group.stored.unwrap_or(group.latest), *id)));
        let (mut profiles, mut bytes, mut jobs) = (0, 0_u64, 0);
        let keeps = |(_, group): &(Id, Group)| {
            if self.is_expired(group.latest) {
                return false;
            }
            if group.stored.is_none() {
                jobs += 1;
                return jobs <= self.jobs();
            }
            profiles += 1;
            bytes = bytes.saturating_add(group.bytes);
            profiles <= self.count && bytes <= self.bytes
        };
        let mut keeps = keeps;
        groups.retain(|group| !keeps(group));
        groups.into_iter().map(|(id, _)| id).collect()
    }
}

/// Everything under one id.
struct Group {
    /// When any of it was last written. A running job writes its status again and again.
    latest: SystemTime,
    /// The size of the profile. The other files are small, and no more than there are profiles and jobs.
    bytes: u64,
    /// When the profile was written, if there is one.
    stored: Option<SystemTime>,
}

/// When to sweep, if a sweep costs something.
#[derive(Debug, Default)]
pub(super) struct Schedule(Mutex<Since>);

#[derive(Debug, Default)]
struct Since {
    swept: Option<Instant>,
    profiles: usize,
}

/// How long a directory or bucket is left alone, unless much is added to it.
const PAUSE: Duration = Duration::from_secs(60);

impl Schedule {
    /// Returns whether it is time for a sweep, after something was put.
    pub(super) fn is_due(&self, profile: bool, bounds: &Bounds) -> bool {
        let mut since = lock_std(&self.0);
        since.profiles += usize::from(profile);
        let due = since.swept.is_none_or(|swept| swept.elapsed() >= PAUSE) || since.profiles > bounds.count / 10;
        if due {
            *since = Since { swept: Some(Instant::now()), profiles: 0 };
        }
        due
    }

    /// Notes that there is more to do than was done.
    pub(super) fn again(&self) {
        lock_std(&self.0).swept = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { count: 3, bytes: 1_000, ttl: Duration::from_secs(60) };

    fn id(number: u64) -> Id {
        format!("{number:032x}").parse().unwrap()
    }

    fn entry(kind: Kind, number: u64, bytes: u64, seconds_ago: u64) -> Entry {
        Entry { kind, id: id(number), bytes, modified: SystemTime::now() - Duration::from_secs(seconds_ago) }
    }

    fn surplus(entries: impl IntoIterator<Item = Entry>) -> Vec<Id> {
        let mut ids = BOUNDS.surplus(entries);
        ids.sort();
        ids
    }

    /// Guards: the oldest profiles are removed, by number and by bytes, and each as a whole.
    #[test]
    fn the_oldest_profiles_are_removed_first() {
        let profiles = |bytes: u64| (1..=5).map(move |number| entry(Kind::Profile, number, bytes, number));
        assert_eq!(surplus(profiles(1)), [id(4), id(5)]);
        assert_eq!(surplus(profiles(400)), [id(3), id(4), id(5)]);
        assert_eq!(surplus(profiles(1_000)), [id(2), id(3), id(4), id(5)]);
        let statuses = (1..=5).map(|number| entry(Kind::Status, number, 100, 0));
        assert_eq!(surplus(profiles(333).chain(statuses)), [id(4), id(5)], "small files are not counted");
        assert!(surplus(profiles(1).take(3)).is_empty());
    }

    /// Guards: what is too old is removed, except for a job that still runs. What comes from the future is not old.
    #[test]
    fn expired_objects_are_removed() {
        let old = [entry(Kind::Profile, 1, 1, 61), entry(Kind::Summary, 1, 1, 61), entry(Kind::Status, 2, 1, 99)];
        assert_eq!(surplus(old), [id(1), id(2)]);
        let fresh = [entry(Kind::Cancel, 1, 0, 99), entry(Kind::Status, 1, 1, 1)];
        assert!(surplus(fresh).is_empty());
        let future = Entry { modified: SystemTime::now() + Duration::from_secs(999), ..fresh[0] };
        assert!(surplus([future]).is_empty());
    }

    /// Guards: jobs that only fail do not fill the store.
    #[test]
    fn the_oldest_failed_jobs_are_removed() {
        let jobs = (0..1_500).map(|number| entry(Kind::Status, number, 1, number / 50));
        let gone = surplus(jobs);
        assert_eq!(gone.len(), 500);
        assert!(gone.iter().all(|gone| *gone >= id(1_000)));
    }

    /// Guards: a bucket is not listed at every write, but it is when much has been added.
    #[test]
    fn a_bucket_is_listed_only_now_and_then() {
        let schedule = Schedule::default();
        let bounds = Bounds { count: 100, ..BOUNDS };
        assert!(schedule.is_due(false, &bounds) && !schedule.is_due(false, &bounds));
        let due: Vec<_> = (0..22).filter(|_| schedule.is_due(true, &bounds)).collect();
        assert_eq!(due, [10, 21]);
        schedule.again();
        assert!(schedule.is_due(false, &bounds));
    }
}
