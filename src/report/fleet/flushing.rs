//! What an instance does now and then: it brings its counts and its index to the store, and looks how incidents go on.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::claims::{Listing, Standing, Step};
use super::incident::{Incident, Late, Stage};
use super::layout::{ENDED, Part};
use super::member::{Member, day_of};
use super::records::{Count, MAX_OBJECT, Told, affected, decode, encode, hash, hashes, short};
use super::store::Failure;
use crate::report::model::fleet::{FleetIncident, FleetNews};
use crate::sync::{count, lock_std};

/// How often an instance looks how an incident goes on that it has had reports of.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How many more reports there are at least when people are told that they have doubled.
const MORE: u64 = 10;
/// How often failures of the store are logged at most.
const LOG_EVERY: Duration = Duration::from_secs(60);
/// Whatever is noted together is written together.
const TOGETHER: Duration = Duration::from_millis(50);
/// The pause after a failure while somebody waits for a flush.
const AGAIN: Duration = Duration::from_millis(250);
/// How many objects are written at a time, and how many incidents are looked at.
const AT_A_TIME: usize = 16;
/// How many failures it takes to leave the rest to the next flush: the store is down.
const MAX_FAILURES: usize = 16;

/// What a flush has to bring to the store.
enum Unwritten {
    Incident(String),
    Late(Late),
    Index(String),
}

/// Works for a member as long as it exists.
pub(super) async fn run(member: Weak<Member>) {
    let mut logged: Option<Instant> = None;
    loop {
        let Some(member) = member.upgrade() else { return };
        let failed = member.flush().await.err();
        let is_hurried = failed.is_some() && member.is_waited_for();
        if let Some((what, failure)) = failed.filter(|_| logged.is_none_or(|at| at.elapsed() >= LOG_EVERY)) {
            logged = Some(Instant::now());
            member.log_failure(what, &failure);
        }
        // From 80 to 120 % of it, so that instances that start together do not go on together.
        let pause = if is_hurried { AGAIN } else { member.times.flush_every }.mul_f64(0.8 + 0.4 * fastrand::f64());
        let _ = timeout(pause, member.wake.notified()).await;
        sleep(TOGETHER).await;
    }
}

impl Member {
    /// Brings everything to the store that is not there yet. Then looks how incidents go on.
    ///
    /// # Errors
    ///
    /// Returns what failed, as a line of the log, and why.
    pub(super) async fn flush(self: &Arc<Self>) -> Result<(), (&'static str, Failure)> {
        let begun = {
            let mut flushes = lock_std(&self.flushes);
            flushes.begun += 1;
            flushes.begun
        };
        // Counts do not depend on it.
        let conditions = self.find_conditions().await;
        let written = self.write_all().await;
        if written.is_ok() {
            let mut flushes = lock_std(&self.flushes);
            flushes.complete = flushes.complete.max(begun);
        }
        self.flushed.notify_all();
        written.map_err(|why| ("the store of the fleet does not take counts: they are kept and tried again", why))?;
        let keys = self.keys();
        // Those that wait for a flush wait for no looks.
        let looked = self.for_each(keys, |member, key| async move {
            if member.is_waited_for() { Ok(()) } else { member.look_if_due(&key).await }
        });
        looked
            .await
            .map_err(|why| ("could not see in the store of the fleet how an incident goes on: will try again", why))?;
        conditions.map_err(|why| {
            ("could not find out whether the store of the fleet heeds conditions: will try again", why)
        })?;
        self.keep_house().await.map_err(|why| ("could not begin to clean up the fleet's store: will try again", why))
    }

    /// Returns whether somebody waits for a flush.
    fn is_waited_for(&self) -> bool {
        lock_std(&self.flushes).waiting > 0
    }

    pub(super) fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = lock_std(&self.state).incidents.keys().cloned().collect();
        keys.sort();
        keys
    }

    /// Does something for each of these, several at a time. Goes on after a failure, unless the store seems to be down. Returns
    /// the first failure.
    async fn for_each<T, F>(self: &Arc<Self>, all: Vec<T>, start: impl Fn(Arc<Self>, T) -> F) -> Result<(), Failure>
    where
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let (mut all, mut running, mut failures) = (all.into_iter(), JoinSet::new(), Vec::new());
        loop {
            while running.len() < AT_A_TIME
                && failures.len() < MAX_FAILURES
                && let Some(next) = all.next()
            {
                running.spawn_on(start(Arc::clone(self), next), &self.runtime);
            }
            match running.join_next().await {
                Some(done) => failures.extend(done.map_err(Failure::new).and_then(|done| done).err()),
                None => return failures.into_iter().next().map_or(Ok(()), Err),
            }
        }
    }

    async fn write_all(self: &Arc<Self>) -> Result<(), Failure> {
        let mut all: Vec<Unwritten> = self.keys().into_iter().map(Unwritten::Incident).collect();
        {
            let state = lock_std(&self.state);
            all.extend(state.late.iter().cloned().map(Unwritten::Late));
            all.extend(state.days.keys().cloned().map(Unwritten::Index));
        }
        let written = self.for_each(all, |member, unwritten| async move {
            match unwritten {
                Unwritten::Incident(key) => member.write_incident(&key).await,
                Unwritten::Late(late) => member.write_late(&late).await,
                Unwritten::Index(day) => member.write_index(&day).await,
            }
        });
        written.await?;
        let yesterday = day_of(SystemTime::now() - Duration::from_secs(86_400));
        lock_std(&self.state).forget_days(&yesterday);
        Ok(())
    }

    async fn write_incident(self: &Arc<Self>, key: &str) -> Result<(), Failure> {
        // A claim is about to find out.
        if self.change(key, |incident| incident.is_unassigned() && incident.stage != Stage::Asking) == Some(true) {
            self.find_number(key).await?;
        }
        if let Some((number, counts)) = self.change(key, |incident| incident.to_write()).flatten() {
            self.write_count(key, number, counts).await?;
        }
        self.save_told(key).await
    }

    async fn look_if_due(self: &Arc<Self>, key: &str) -> Result<(), Failure> {
        let is_due = |incident: &mut Incident| {
            let every = match incident.stage {
                // Somebody else may have told people meanwhile.
                Stage::Telling => Duration::ZERO,
                _ => LOOK_EVERY.min(self.times.ends_after / 4),
            };
            let is_due = incident.looked.elapsed() >= every && incident.stage != Stage::Asking;
            incident.number.filter(|_| is_due)
        };
        match self.change(key, is_due).flatten() {
            Some(number) => self.look_on(key, number).await,
            None => Ok(()),
        }
    }

    /// Finds out the number of this occurrence.
    async fn find_number(self: &Arc<Self>, key: &str) -> Result<(), Failure> {
        let listing = self.listing(key).await?;
        match listing.step(self.now().await?, &self.times) {
            Step::Told { number } | Step::Wait { number, .. } | Step::Claim { number, .. } => {
                self.assign(key, number, &listing).await
            }
            Step::Close { number } => {
                self.close(key, number, listing.last().map(|(_, standing)| standing)).await?;
                self.assign(key, number.saturating_add(1), &Listing::default()).await
            }
        }
    }

    async fn write_count(&self, key: &str, number: u64, counts: Count) -> Result<(), Failure> {
        let (path, reports) = (self.layout.part(key, number, &Part::Count(self.id.clone())), counts.reports);
        self.store.put(&path, encode(&Count { instance: self.instance(), ..counts })).await?;
        self.change(key, |incident| incident.wrote(number, reports));
        Ok(())
    }

    async fn write_late(&self, late: &Late) -> Result<(), Failure> {
        let path = self.layout.part(&late.key, late.number, &Part::Count(self.id.clone()));
        self.store.put(&path, encode(&Count { instance: self.instance(), ..late.count.clone() })).await?;
        let mut state = lock_std(&self.state);
        let is_same = |other: &Late| other.key == late.key && other.number == late.number;
        if let Some(at) = state.late.iter().position(is_same) {
            state.late.remove(at);
        }
        Ok(())
    }

    async fn write_index(&self, day: &str) -> Result<(), Failure> {
        let Some(index) = self.index(day) else { return Ok(()) };
        let put = self.store.put(&self.layout.index(day, &self.id), encode(&index)).await;
        if put.is_err() {
            self.is_unwritten(day);
        }
        put
    }

    fn is_unwritten(&self, day: &str) {
        if let Some(day) = lock_std(&self.state).days.get_mut(day) {
            day.changed = true;
        }
    }

    /// Looks how an incident goes on. One of the instances tells people its news.
    pub(super) async fn look_on(self: &Arc<Self>, key: &str, number: u64) -> Result<(), Failure> {
        let listing = self.listing(key).await?;
        let now = self.now().await?;
        let Some(standing) = listing.number(number) else {
            // There is a later occurrence already.
            self.change(key, Incident::begin_again);
            return Ok(());
        };
        self.change(key, |incident| {
            incident.looked = Instant::now();
            if incident.stage == Stage::Telling && incident.unsaved.is_none() && standing.told.is_some() {
                incident.stage = Stage::Told;
            }
            // It was left to an instance that has not told people in time. The next report asks again.
            let is_open = standing.told.is_none() && matches!(listing.step(now, &self.times), Step::Claim { .. });
            if incident.stage == Stage::Told && is_open {
                incident.stage = Stage::New;
            }
        });
        if !standing.is_closed() && standing.is_quiet(now, &self.times) {
            // Without an example, there is no report to tell people with. Another instance has one, or else the next report closes it.
            if standing.told.is_none() || self.has_example(key, number) {
                self.close(key, number, Some(standing)).await?;
            }
        } else if !standing.is_closed() {
            return self.find_news(key, number, standing, now).await;
        }
        let mut state = lock_std(&self.state);
        let Some(incident) = state.incidents.get_mut(key) else { return Ok(()) };
        incident.begin_again();
        if incident.unwritten() == 0 && incident.question.is_none() {
            state.incidents.remove(key);
        }
        Ok(())
    }

    /// Tells people if there is news of an incident, and if this instance is the one to find them: the first that is alive.
    async fn find_news(
        self: &Arc<Self>,
        key: &str,
        number: u64,
        standing: &Standing,
        now: SystemTime,
    ) -> Result<(), Failure> {
        let Some(last) = standing.told.and(standing.told_last()) else { return Ok(()) };
        let news = standing.updates.keys().filter(|what| *what != ENDED).count() as u32;
        // Each pause is twice as long as the one before it.
        let pause = self.times.take_over_after.saturating_mul(5 << news.min(10));
        let alive = standing.alive(now, 3 * LOOK_EVERY + 2 * self.times.flush_every);
        let is_first = alive.first().is_some_and(|first| *first == self.id);
        if !is_first || now.duration_since(last).unwrap_or_default() < pause || !self.has_example(key, number) {
            return Ok(());
        }
        let (mut before, mut known) = (0, BTreeSet::new());
        let parts = std::iter::once(Part::Told).chain(standing.updates.keys().cloned().map(Part::Update));
        for part in parts {
            let bytes = self.store.get(&self.layout.part(key, number, &part), MAX_OBJECT).await?;
            let Some(told) = bytes.and_then(|bytes| decode::<Told>(&bytes)) else { continue };
            before = before.max(told.reports);
            known.extend(told.routes);
        }
        let counts = self.counts(key, number, standing).await;
        let reports = counts.iter().fold(0_u64, |sum, count| sum.saturating_add(count.reports));
        let routes: BTreeSet<String> = counts.into_iter().flat_map(|count| count.routes).collect();
        let (what, news) = match routes.iter().find(|route| !known.contains(&hash(route))) {
            Some(route) => (format!("spread-{}", news + 1), FleetNews::Spread { route: short(route) }),
            None if reports >= before.saturating_mul(2) && reports >= before.saturating_add(MORE) => {
                (format!("doubled-{}", news + 1), FleetNews::Doubled)
            }
            None => return Ok(()),
        };
        let told = Told { routes: hashes(&routes), ..self.told(reports) };
        if self.create(&self.layout.part(key, number, &Part::Update(what)), &told).await? {
            self.tell_news(key, number, standing, news).await;
        }
        Ok(())
    }

    /// Returns whether there is a report of this occurrence to tell people with.
    fn has_example(&self, key: &str, number: u64) -> bool {
        self.change(key, |incident| incident.example_of(number).is_some()).unwrap_or(false)
    }

    /// Tells people news of an incident, with a report of this instance as an example.
    pub(super) async fn tell_news(self: &Arc<Self>, key: &str, number: u64, standing: &Standing, news: FleetNews) {
        let counts = self.counts(key, number, standing).await;
        let incident = FleetIncident { key: key.to_owned(), number, news, ..FleetIncident::default() };
        let incident = affected(&counts, incident);
        let example = |known: &mut Incident| {
            let example = known.example_of(number)?.clone();
            known.messages = known.messages.max(1) + 1;
            Some((example, known.messages - 1))
        };
        let Some((mut report, update)) = self.change(key, example).flatten() else { return };
        (report.update, report.fleet) = (update, Some(Box::new(incident)));
        if let Some(dispatch) = self.dispatch() {
            count(&self.counters.updates);
            dispatch.accept_news(report);
        }
    }
}
