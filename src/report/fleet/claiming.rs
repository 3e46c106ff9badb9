//! Claiming an incident: who tells people.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use object_store::path::Path;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::claims::{Listing, Standing, Step};
use super::incident::{Incident, Stage};
use super::layout::{ENDED, Part};
use super::member::{Conditions, Member};
use super::records::{Claim, Count, Instance, MAX_OBJECT, Told, affected, decode, encode};
use super::store::Failure;
use crate::log::{TARGET, log_safely};
use crate::report::delivery::Decision;
use crate::report::model::fleet::{FleetIncident, FleetNews};
use crate::report::privacy::told;
use crate::sync::lock_std;

/// How long a report may wait for the store's answer. Then this instance tells people for itself.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a message waits for others, so that it can say who is affected; and how long it waits for their counts.
const GATHERING: Duration = Duration::from_secs(3);
const READING: Duration = Duration::from_secs(2);
/// How long the store's time counts as known. Meanwhile, this machine's clock goes on: it is not wrong by much after so long.
const CLOCK_FOR: Duration = Duration::from_secs(5 * 60);
/// The first pause before looking again whether another instance has told people.
const FIRST_LOOK: Duration = Duration::from_secs(2);
/// How many counts are read at a time.
const READS: usize = 16;

/// How much longer this machine may have been asleep than its monotonic clock says.
const SLEPT: Duration = Duration::from_secs(10);

/// The store's time, when it was asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    pub(super) at: Instant,
    /// By this machine's own clock.
    pub(super) wall: SystemTime,
    pub(super) time: SystemTime,
}

impl Clock {
    fn is_known(&self) -> bool {
        // The monotonic clock stands still while a virtual machine sleeps.
        let asleep = self.wall.elapsed().unwrap_or_default().saturating_sub(self.at.elapsed());
        self.at.elapsed() < CLOCK_FOR && asleep < SLEPT
    }
}

/// The outcome of a look at an incident.
enum Looked {
    Claimed(u64),
    Told,
    Wait(Duration),
}

/// Finds out who tells people about the report that waits for it.
pub(super) async fn claim(member: Arc<Member>, key: String, hurries: u64) {
    let mut pause = FIRST_LOOK;
    loop {
        match member.look_in_turn(&key).await {
            Ok(Looked::Claimed(number)) => {
                let time = GATHERING.min(member.times.take_over_after / 8);
                member.is_hurried_within(time, hurries).await;
                let incident = member.affected(&key, number).await;
                return member.answer(&key, Stage::Telling, Decision::Tell(Arc::new(incident)));
            }
            Ok(Looked::Told) => return member.answer(&key, Stage::Told, Decision::LeaveToOthers),
            // Whoever waits for a flush does not wait for another instance.
            Ok(Looked::Wait(_)) if member.hurries() > hurries => {
                return member.answer(&key, Stage::Told, Decision::LeaveToOthers);
            }
            Ok(Looked::Wait(time)) => {
                // A little more than it has, for the store counts in seconds.
                let time = (time + Duration::from_millis(20)).min(pause).mul_f64(1.0 + fastrand::f64() / 10.0);
                member.is_hurried_within(time, hurries).await;
                pause *= 2;
            }
            Err(failure) => {
                member.log_failure("the store of the fleet does not say who tells people", &failure);
                return member.answer(&key, Stage::Alone, Member::for_itself(&key));
            }
        }
    }
}

impl Member {
    /// Looks at an incident when it is its turn. If the store does not answer anybody for a while, that is a failure.
    async fn look_in_turn(self: &Arc<Self>, key: &str) -> Result<Looked, Failure> {
        let late = || Failure::new("it did not answer in time");
        let mut turn = pin!(self.claims.acquire());
        let _turn = loop {
            match timeout(PATIENCE, turn.as_mut()).await {
                Ok(turn) => break turn.map_err(Failure::new)?,
                // Many incidents have begun at once, and the store answers: it is worth waiting for.
                Err(_) if lock_std(&self.answered).is_some_and(|at| at.elapsed() < PATIENCE) => {}
                Err(_) => return Err(late()),
            }
        };
        let looked = timeout(PATIENCE, self.look(key)).await.map_err(|_| late())??;
        *lock_std(&self.answered) = Some(Instant::now());
        Ok(looked)
    }

    /// Looks at what the store has of an incident, and claims it if it is to be claimed.
    async fn look(self: &Arc<Self>, key: &str) -> Result<Looked, Failure> {
        if self.find_conditions().await? == Conditions::Ignored {
            return Err(Failure::new("the store ignores conditions"));
        }
        // Others may claim it at the same moment: then there is something new to see.
        for _ in 0..4 {
            let listing = self.listing(key).await?;
            match listing.step(self.now().await?, &self.times) {
                Step::Told { number } => {
                    self.assign(key, number, &listing).await?;
                    return Ok(Looked::Told);
                }
                Step::Wait { number, time } => {
                    self.assign(key, number, &listing).await?;
                    return Ok(Looked::Wait(time));
                }
                Step::Close { number } => {
                    self.close(key, number, listing.last().map(|(_, standing)| standing)).await?;
                }
                Step::Claim { number, claim } => {
                    let part = self.layout.part(key, number, &Part::Claim(claim));
                    if self.create(&part, &self.a_claim()).await? {
                        self.assign(key, number, &listing).await?;
                        return Ok(Looked::Claimed(number));
                    }
                }
            }
        }
        Err(Failure::new("others claim it all the time"))
    }

    /// Creates an object of which there is one for all instances. Returns whether it is this one.
    pub(super) async fn create(&self, path: &Path, object: &impl Serialize) -> Result<bool, Failure> {
        let mine = encode(object);
        if self.store.create(path, mine.clone()).await? {
            return Ok(true);
        }
        // An attempt may have arrived although its answer did not.
        Ok(self.store.get(path, MAX_OBJECT).await? == Some(mine))
    }

    /// Returns a claim of this instance that is like no other.
    pub(super) fn a_claim(&self) -> Claim {
        Claim { by: self.id.clone(), attempt: fastrand::u32(..) }
    }

    /// Returns what this instance tells people, without its routes.
    pub(super) fn told(&self, reports: u64) -> Told {
        Told { by: self.id.clone(), attempt: fastrand::u32(..), reports, routes: Vec::new() }
    }

    /// Notes that an incident has ended. Tells people, if this instance is the first to note it and has a report to tell them with.
    pub(super) async fn close(
        self: &Arc<Self>,
        key: &str,
        number: u64,
        standing: Option<&Standing>,
    ) -> Result<(), Failure> {
        let path = self.layout.part(key, number, &Part::Update(ENDED.to_owned()));
        if self.create(&path, &self.told(0)).await?
            && let Some(standing) = standing.filter(|standing| standing.told.is_some())
        {
            let quiet_seconds = self.times.ends_after.as_secs();
            self.tell_news(key, number, standing, FleetNews::Ended { quiet_seconds }).await;
        }
        Ok(())
    }

    /// Returns what the store has of an incident, the last time that there was one.
    pub(super) async fn listing(&self, key: &str) -> Result<Listing, Failure> {
        let folders = self.store.folders(&self.layout.incident(key)).await?;
        match folders.iter().filter_map(|folder| folder.parse::<u64>().ok()).max() {
            Some(number) => {
                let folder = self.layout.incident(key).join(number.to_string());
                Ok(Listing::new(number, &self.store.list(&folder).await?))
            }
            None => Ok(Listing::default()),
        }
    }

    /// Returns this instance's count in the store, if there is one that it does not remember.
    async fn stored_count(&self, key: &str, number: u64, listing: &Listing) -> Result<Option<Count>, Failure> {
        let is_known = self.change(key, |incident| incident.number == Some(number)).unwrap_or(false);
        let has_one = listing.number(number).is_some_and(|standing| standing.counts.contains_key(&self.id));
        if is_known || !has_one {
            return Ok(None);
        }
        let path = self.layout.part(key, number, &Part::Count(self.id.clone()));
        Ok(self.store.get(&path, MAX_OBJECT).await?.and_then(|bytes| decode(&bytes)))
    }

    /// Notes the number of this occurrence.
    pub(super) async fn assign(&self, key: &str, number: u64, listing: &Listing) -> Result<(), Failure> {
        let stored = self.stored_count(key, number, listing).await?;
        let mut state = lock_std(&self.state);
        let late = state.incidents.get_mut(key).and_then(|incident| incident.assign(key, number, stored));
        if let Some(late) = late {
            self.keep_late(&mut state, late);
        }
        drop(state);
        // Soon, so that whoever tells people can say that this instance is affected.
        self.wake.notify_one();
        Ok(())
    }

    /// Returns what a message says of who is affected.
    async fn affected(self: &Arc<Self>, key: &str, number: u64) -> FleetIncident {
        let incident = FleetIncident { key: key.to_owned(), number, ..FleetIncident::default() };
        let read = async {
            let listing = self.listing(key).await.ok()?;
            Some(self.counts(key, number, listing.number(number)?).await)
        };
        let counts = timeout(READING, read).await.ok().flatten();
        let mut counts = counts.unwrap_or_else(|| self.own_count(key, number).into_iter().collect());
        if counts.is_empty() {
            counts.extend(self.asked(key));
        }
        affected(&counts, incident)
    }

    /// Returns this instance's count, if it has a part in this occurrence.
    fn own_count(&self, key: &str, number: u64) -> Option<Count> {
        let own = |incident: &mut Incident| {
            let is_part = incident.number == Some(number) && incident.counted().reports > 0;
            is_part.then(|| incident.counted().clone())
        };
        self.change(key, own).flatten().map(|count| Count { instance: self.instance(), ..count })
    }

    /// Counts the report that waits for an answer. One that an earlier process has left behind is in no count of this one.
    fn asked(&self, key: &str) -> Option<Count> {
        let count = |incident: &mut Incident| {
            let report = &incident.question.as_ref()?.report;
            let instance = Instance::new(self.id.clone(), &report.process);
            let mut count = Count { instance, ..Count::default() };
            count.note(report);
            Some(count)
        };
        self.change(key, count).flatten()
    }

    /// Returns the counts of all instances, as far as they can be read.
    pub(super) async fn counts(self: &Arc<Self>, key: &str, number: u64, standing: &Standing) -> Vec<Count> {
        // What the store has of this instance may be older.
        let own = self.own_count(key, number);
        let mut others = standing.counts.keys().filter(|id| own.is_none() || **id != self.id);
        let mut counts: Vec<Count> = own.clone().into_iter().collect();
        let mut reads = JoinSet::new();
        loop {
            while reads.len() < READS
                && let Some(id) = others.next()
            {
                let member = Arc::clone(self);
                let path = self.layout.part(key, number, &Part::Count(id.clone()));
                reads.spawn_on(async move { member.store.get(&path, MAX_OBJECT).await }, &self.runtime);
            }
            let Some(read) = reads.join_next().await else { return counts };
            if let Ok(Ok(Some(bytes))) = read {
                counts.extend(decode::<Count>(&bytes));
            }
        }
    }

    /// Notes in the store that people have been told.
    pub(super) async fn save_told(&self, key: &str) -> Result<(), Failure> {
        let unsaved = |incident: &mut Incident| incident.number.zip(incident.unsaved.clone());
        let Some((number, told)) = self.change(key, unsaved).flatten() else { return Ok(()) };
        // Somebody else may have told people, too.
        self.store.create(&self.layout.part(key, number, &Part::Told), encode(&told)).await?;
        self.change(key, |incident| {
            if incident.number == Some(number) {
                (incident.unsaved, incident.stage) = (None, Stage::ToldHere);
            }
        });
        Ok(())
    }

    /// Returns the store's time.
    pub(super) async fn now(&self) -> Result<SystemTime, Failure> {
        // One asks, and the others wait for its answer.
        let mut clock = self.clock.lock().await;
        if let Some(known) = clock.filter(Clock::is_known) {
            return Ok(known.time + known.at.elapsed());
        }
        let (path, before, wall) = (self.layout.instance(&self.id), Instant::now(), SystemTime::now());
        self.store.put(&path, encode(&self.instance())).await?;
        let time = self.store.modified(&path).await?;
        let time = time.ok_or_else(|| Failure::new("an object that was just written is not there"))?;
        *clock = Some(Clock { at: before, wall, time });
        Ok(time + before.elapsed())
    }

    /// Logs a failure of the store.
    pub(super) fn log_failure(&self, what: &'static str, failure: &Failure) {
        log_safely(|| {
            let error = &*told(&failure.to_string(), 1024);
            tracing::warn!(target: TARGET, error, "{what}");
        });
    }
}
