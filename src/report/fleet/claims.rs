//! Who tells people of an incident: what the objects in the store say about it. It does not depend on stores, threads or
//! clocks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use super::layout::{ENDED, Layout, Part};
use super::settings::Times;
use super::store::Listed;

/// What the store has of one incident, all occurrences included.
#[derive(Debug, Default)]
pub(super) struct Listing {
    numbers: BTreeMap<u64, Standing>,
    /// The number of the last folder, which may be empty: a directory stays when all objects in it have been removed, and is there
    /// before the first object is.
    folder: Option<u64>,
}

/// The objects of one occurrence of an incident.
#[derive(Debug, Default, Clone)]
pub(super) struct Standing {
    /// When each claim was made.
    claims: BTreeMap<u32, SystemTime>,
    pub(super) told: Option<SystemTime>,
    /// When each instance wrote its count.
    pub(super) counts: BTreeMap<String, SystemTime>,
    pub(super) updates: BTreeMap<String, SystemTime>,
    last: Option<SystemTime>,
}

/// What to do about an incident that there is a report of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nobody has claimed it, or the last one who did has not told people in time.
    Claim { number: u64, claim: u32 },
    /// People have been told.
    Told { number: u64 },
    /// Somebody is about to tell them, and may take that long.
    Wait { number: u64, time: Duration },
    /// It has ended. That has to be noted before the next one begins.
    Close { number: u64 },
}

impl Listing {
    pub(super) fn new(folder: u64, objects: &[Listed]) -> Self {
        let mut numbers: BTreeMap<u64, Standing> = BTreeMap::new();
        for Listed { path, modified, .. } in objects {
            let Some((number, part)) = Layout::parse_part(path) else { continue };
            let standing = numbers.entry(number).or_default();
            standing.last = standing.last.max(Some(*modified));
            match part {
                Part::Claim(claim) => _ = standing.claims.insert(claim, *modified),
                Part::Told => standing.told = Some(*modified),
                Part::Count(instance) => _ = standing.counts.insert(instance, *modified),
                Part::Update(what) => _ = standing.updates.insert(what, *modified),
            }
        }
        Self { numbers, folder: Some(folder) }
    }

    /// Returns what there is of it the last time.
    pub(super) fn last(&self) -> Option<(u64, &Standing)> {
        self.numbers.last_key_value().map(|(number, standing)| (*number, standing))
    }

    pub(super) fn number(&self, number: u64) -> Option<&Standing> {
        self.numbers.get(&number)
    }

    /// Decides what to do, at that time of the store's clock.
    pub(super) fn step(&self, now: SystemTime, times: &Times) -> Step {
        let Some((number, standing)) = self.last() else {
            // Not the number after it: another instance may be about to claim this one.
            return Step::Claim { number: self.folder.unwrap_or(1).max(1), claim: 1 };
        };
        if standing.is_closed() {
            return Step::Claim { number: number.saturating_add(1), claim: 1 };
        }
        if standing.is_quiet(now, times) {
            return Step::Close { number };
        }
        if standing.told.is_some() {
            return Step::Told { number };
        }
        let Some((claim, at)) = standing.claims.last_key_value() else { return Step::Claim { number, claim: 1 } };
        // Each attempt gets twice as long, so that few instances try while no mail can be sent.
        let patience = times.take_over_after.saturating_mul(1 << (claim.saturating_sub(1)).min(10));
        let since = now.duration_since(*at).unwrap_or_default();
        match patience.checked_sub(since) {
            Some(time) if !time.is_zero() => Step::Wait { number, time },
            _ => Step::Claim { number, claim: claim.saturating_add(1) },
        }
    }
}

impl Standing {
    /// Returns whether it is noted that it has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.updates.contains_key(ENDED)
    }

    /// Returns whether no instance has had reports for so long that it has ended.
    pub(super) fn is_quiet(&self, now: SystemTime, times: &Times) -> bool {
        self.last.is_some_and(|last| now.duration_since(last).unwrap_or_default() >= times.ends_after)
    }

    /// Returns the instances that have written within this time.
    pub(super) fn alive(&self, now: SystemTime, within: Duration) -> BTreeSet<&str> {
        let is_alive = |at: &SystemTime| now.duration_since(*at).unwrap_or_default() <= within;
        self.counts.iter().filter(|(_, at)| is_alive(at)).map(|(instance, _)| &**instance).collect()
    }

    /// Returns when people were told the last time.
    pub(super) fn told_last(&self) -> Option<SystemTime> {
        self.told.max(self.updates.values().max().copied())
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    fn listing(objects: &[(&str, u64)]) -> Listing {
        let objects = objects.iter().map(|(name, seconds)| Listed {
            path: format!("photos/incidents/5cf4/{name}").into(),
            modified: at(*seconds),
            #[cfg(feature = "console")]
            bytes: 0,
        });
        Listing::new(1, &objects.collect::<Vec<_>>())
    }

    fn step(objects: &[(&str, u64)], now: u64) -> Step {
        listing(objects).step(at(now), &Times::default())
    }

    #[test]
    fn the_first_claims_and_the_others_wait() {
        assert_eq!(step(&[], 0), Step::Claim { number: 1, claim: 1 });
        let wait = Step::Wait { number: 1, time: Duration::from_secs(50) };
        assert_eq!(step(&[("1/claim-1", 0), ("1/total-a", 3)], 10), wait);
        assert_eq!(step(&[("1/claim-1", 0), ("1/told", 9)], 10), Step::Told { number: 1 });
        assert_eq!(step(&[("1/total-a", 0)], 10), Step::Claim { number: 1, claim: 1 }, "nobody could claim");
    }

    /// Guards: an instance that dies before it has told people is replaced, and few try while nobody can tell them.
    #[test]
    fn another_takes_over_later_each_time() {
        assert_eq!(step(&[("1/claim-1", 0)], 60), Step::Claim { number: 1, claim: 2 });
        let wait = Step::Wait { number: 1, time: Duration::from_secs(60) };
        assert_eq!(step(&[("1/claim-1", 0), ("1/claim-2", 60)], 120), wait);
        assert_eq!(step(&[("1/claim-1", 0), ("1/claim-2", 60)], 180), Step::Claim { number: 1, claim: 3 });
        assert_eq!(step(&[("1/claim-1", 0), ("1/claim-2", 60), ("1/told", 70)], 180), Step::Told { number: 1 });
    }

    /// Guards: an incident that has ended does not silence the next one, also if nobody noted its end.
    #[test]
    fn what_has_ended_is_closed_before_the_next_begins() {
        let quiet = [("1/claim-1", 0), ("1/told", 5), ("1/total-a", 100), ("1/total-b", 40)];
        assert_eq!(step(&quiet, 999), Step::Told { number: 1 });
        assert_eq!(step(&quiet, 1_000), Step::Close { number: 1 });
        let closed = [("1/told", 5), ("1/news-ended", 1_000)];
        assert_eq!(step(&closed, 1_000), Step::Claim { number: 2, claim: 1 });
        let late = [("1/told", 5), ("1/news-ended", 1_000), ("1/total-late", 2_000)];
        assert_eq!(step(&late, 2_001), Step::Claim { number: 2, claim: 1 }, "a late count does not open it again");
        assert_eq!(
            step(&[("2/told", 5), ("10/claim-1", 7)], 8),
            Step::Wait { number: 10, time: Duration::from_secs(59) }
        );
    }

    /// Guards: where a folder stays when it is empty, what is written next is where everybody looks for it.
    #[test]
    fn an_empty_folder_is_used_again() {
        let claim = |number| Step::Claim { number, claim: 1 };
        assert_eq!(Listing::new(7, &[]).step(at(0), &Times::default()), claim(7));
        assert_eq!(Listing::new(0, &[]).step(at(0), &Times::default()), claim(1));
    }

    /// Guards: the store's own clock may go backwards a little between two of its servers.
    #[test]
    fn times_in_the_future_are_now() {
        assert_eq!(step(&[("1/claim-1", 20)], 10), Step::Wait { number: 1, time: Duration::from_secs(60) });
    }

    #[test]
    fn those_are_alive_that_wrote_lately() {
        let listing = listing(&[("1/total-a", 0), ("1/total-b", 50), ("1/total-c", 60)]);
        let alive = listing.number(1).unwrap().alive(at(100), Duration::from_secs(50));
        assert_eq!(alive.into_iter().collect::<Vec<_>>(), ["b", "c"]);
    }
}
