//! Once a day, as soon as nobody writes the index of the day before any more, one of the instances puts the indexes of past days
//! together, and removes what is old.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use object_store::path::Path;
use tokio::task::JoinSet;

use super::member::{Conditions, Member, day_of};
use super::store::{Failure, MAX_LISTED};
use crate::sync::lock_std;

/// How long after the end of a day nobody writes its index any more.
const SETTLED: Duration = Duration::from_secs(2 * 3_600);
/// How many objects are removed at a time.
const REMOVALS: usize = 32;
pub(super) const DAY: Duration = Duration::from_secs(86_400);
/// After how many failures the rest is left to the next day.
const MAX_FAILURES: usize = 16;

impl Member {
    /// Does what is due today, unless another instance does it.
    pub(super) async fn keep_house(self: &Arc<Self>) -> Result<(), Failure> {
        let today = upkeep_day(SystemTime::now());
        if *lock_std(&self.kept_house) == today {
            return Ok(());
        }
        let now = self.now().await?;
        let path = self.layout.upkeep(&upkeep_day(now));
        let is_alone = self.find_conditions().await? == Conditions::Heeded;
        // Without conditions, several may do it at once. That only costs requests.
        let is_done = !is_alone && self.store.modified(&path).await?.is_some();
        let is_mine = !is_done && self.create(&path, &self.a_claim()).await?;
        *lock_std(&self.kept_house) = today;
        if is_mine {
            let member = Arc::clone(self);
            // It may take minutes, and counts must not wait for it.
            self.runtime.spawn(async move { member.keep_house_now(now, is_alone).await });
        }
        Ok(())
    }

    /// Does what is due today. `is_alone` says that no other instance does it meanwhile.
    pub(super) async fn keep_house_now(self: &Arc<Self>, now: SystemTime, is_alone: bool) {
        // Two that put a day together at once could lose its indexes.
        let compacted = if is_alone { self.compact(now).await } else { Ok(()) };
        let swept = self.sweep(now).await;
        for failure in [compacted, swept].into_iter().filter_map(Result::err) {
            self.log_failure("could not finish cleaning up the fleet's store; will try again tomorrow", &failure);
        }
    }

    /// Removes what is older than it is to be kept, by the store's clock. Goes on after a failure, and returns the last one.
    pub(super) async fn sweep(self: &Arc<Self>, now: SystemTime) -> Result<(), Failure> {
        let Some(oldest) = now.checked_sub(self.times.keep_for) else { return Ok(()) };
        let (first, last, mut steps) = (day_of(oldest), day_of(now + 2 * DAY), Steps::default());
        for folder in ["reports", "index"] {
            for day in steps.took(self.store.folders(&self.layout.folder(folder)).await)?.unwrap_or_default() {
                // A day is left alone until all of it is old. Otherwise hundreds of pages of a busy day would be listed for the few
                // objects that are. A day of an instance whose clock was wrong is looked at, too.
                if day < first || day > last {
                    steps.took(self.remove_older(&self.layout.day(folder, &day), oldest).await)?;
                }
            }
        }
        for folder in ["upkeep", "probes", "instances"] {
            steps.took(self.remove_older(&self.layout.folder(folder), oldest).await)?;
        }
        for key in steps.took(self.store.folders(&self.layout.folder("incidents")).await)?.unwrap_or_default() {
            for number in steps.took(self.store.folders(&self.layout.incident(&key)).await)?.unwrap_or_default() {
                let folder = self.layout.incident(&key).join(number);
                // Without `told`, an incident that goes on would be told once more.
                if steps.took(self.store.has_newer(&folder, oldest).await)? == Some(false) {
                    steps.took(self.remove_older(&folder, oldest).await)?;
                }
            }
        }
        steps.last_failure.map_or(Ok(()), Err)
    }

    /// Removes objects that were written before that time, however many there are.
    async fn remove_older(self: &Arc<Self>, folder: &Path, oldest: SystemTime) -> Result<(), Failure> {
        loop {
            let objects = self.store.list_older(folder, oldest).await?;
            let is_all = objects.len() < MAX_LISTED;
            let (mut old, mut removals, mut steps) = (objects.into_iter(), JoinSet::new(), Steps::default());
            loop {
                while removals.len() < REMOVALS
                    && let Some(object) = old.next()
                {
                    let member = Arc::clone(self);
                    removals.spawn_on(async move { member.store.remove(&object.path).await }, &self.runtime);
                }
                match removals.join_next().await {
                    Some(removed) => _ = steps.took(removed.map_err(Failure::new).and_then(|removed| removed))?,
                    None => break,
                }
            }
            // What could not be removed would be listed again.
            match steps.last_failure {
                Some(failure) => return Err(failure),
                None if is_all => return Ok(()),
                None => {}
            }
        }
    }
}

/// Returns the day whose upkeep is due. It is due from some hours after midnight on, when the day before is settled.
pub(super) fn upkeep_day(now: SystemTime) -> String {
    day_of(now - SETTLED)
}

/// How the steps of the upkeep go. One that fails does not keep the others from being done, unless the store seems to be down.
#[derive(Default)]
struct Steps {
    failures: usize,
    last_failure: Option<Failure>,
}

impl Steps {
    /// Notes the outcome of a step.
    ///
    /// # Errors
    ///
    /// Returns the failure if there were so many that it is of no use to go on.
    fn took<T>(&mut self, step: Result<T, Failure>) -> Result<Option<T>, Failure> {
        match step {
            Ok(done) => Ok(Some(done)),
            Err(failure) if self.failures + 1 >= MAX_FAILURES => Err(failure),
            Err(failure) => {
                self.failures += 1;
                self.last_failure = Some(failure);
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use object_store::memory::InMemory;

    use super::*;
    use crate::report::fleet::Fleet;
    use crate::report::fleet::compacting::tests::{at, member, names};

    /// Guards: what is old goes, by the store's clock, and what is not stays.
    #[tokio::test]
    async fn what_is_old_is_removed() {
        let fleet = Fleet::new(Arc::new(InMemory::new()), "photos").keep_for(10 * DAY);
        let member = member(&fleet, "web1");
        member.note(&mut at(0, "a"), true);
        member.flush().await.unwrap();
        let now = member.now().await.unwrap();
        member.store.put(&member.layout.upkeep(&day_of(now)), Bytes::new()).await.unwrap();
        member.sweep(now).await.unwrap();
        for folder in ["incidents", "index", "upkeep", "instances"] {
            assert_eq!(names(&member, folder).await.len(), 1, "{folder}");
        }
        member.sweep(now + 11 * DAY).await.unwrap();
        for folder in ["incidents", "index", "upkeep", "instances"] {
            assert!(names(&member, folder).await.is_empty(), "{folder}");
        }
    }
}
