//! One instance of the service, as a member of its fleet.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, OnceLock, Weak};
use std::time::{Duration, SystemTime};

use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, timeout};

use super::claiming::Clock;
use super::incident::{Incident, Late};
use super::key::key_of;
use super::layout::Layout;
use super::records::{INDEX_SCHEMA, Index, Instance, Line, Stored};
use super::settings::{Fleet, Times};
use super::stats::{Counters, FleetStats, register};
use super::store::Store;
use crate::report::delivery::Dispatch;
use crate::report::{ProcessInfo, Report};
use crate::sync::{add, lock_std};
use crate::text::time::timestamp;

/// How many incidents are remembered.
const MAX_INCIDENTS: usize = 1_000;
/// How many incidents are looked at and claimed at a time.
const MAX_CLAIMS: usize = 64;
/// How many counts of times that are over wait for the store.
const MAX_LATE: usize = 1_000;
/// How many days' indexes wait for the store.
const MAX_DAYS: usize = 10;
/// How many days are remembered that are in the store and no longer here.
const MAX_PAST: usize = 100;
/// How many lines an index has.
const MAX_LINES: usize = 1_000;

/// This instance, and what it knows of the fleet.
pub(crate) struct Member {
    pub(super) store: Store,
    pub(super) layout: Layout,
    pub(super) times: Times,
    pub(super) runtime: Handle,
    /// Random.
    pub(super) id: String,
    process: ProcessInfo,
    pub(super) state: Mutex<State>,
    dispatch: OnceLock<Weak<Dispatch>>,
    /// Asks for a flush.
    pub(super) wake: Notify,
    /// Asks those that wait for other instances to decide, and how often that was asked.
    pub(super) hurried: Notify,
    pub(super) hurries: AtomicU64,
    pub(super) flushes: Mutex<Flushes>,
    pub(super) flushed: Condvar,
    /// See [`Conditions`].
    pub(super) conditions: AtomicU8,
    /// Held while it is tried out whether the store heeds conditions.
    pub(super) probing: tokio::sync::Mutex<()>,
    /// Since when it is assumed that it does not, because each request with a condition has failed.
    pub(super) doubted: Mutex<Option<Instant>>,
    /// When the store was last asked for its time, and what it was.
    pub(super) clock: tokio::sync::Mutex<Option<Clock>>,
    /// What a console has shown last. Held while a page is made.
    #[cfg(feature = "console")]
    pub(super) viewed: tokio::sync::Mutex<Option<(Instant, Arc<super::merging::Shared>)>>,
    /// How many incidents may be looked at and claimed at a time, and when the store last answered one of them.
    pub(super) claims: Semaphore,
    pub(super) answered: Mutex<Option<Instant>>,
    /// The day of which it is known that somebody removes what is old.
    pub(super) kept_house: Mutex<String>,
    pub(super) counters: Arc<Counters>,
}

/// What changes while it runs.
#[derive(Default)]
pub(super) struct State {
    pub(super) incidents: HashMap<String, Incident>,
    /// How many reports wait for the store to say who tells people, and how many bytes they take.
    pub(super) questions: usize,
    pub(super) question_bytes: usize,
    pub(super) late: Vec<Late>,
    /// By day: the reports of this instance, and whether they have changed since they were written.
    pub(super) days: BTreeMap<String, Day>,
    /// Days whose index is in the store, and no longer here. Another one would replace it.
    past: BTreeSet<String>,
    build_id: Option<String>,
}

/// This instance's reports of a day, by fingerprint.
#[derive(Default)]
pub(super) struct Day {
    pub(super) lines: BTreeMap<String, Line>,
    pub(super) others: u64,
    pub(super) changed: bool,
}

impl State {
    /// Forgets days before this one that are in the store.
    pub(super) fn forget_days(&mut self, before: &str) {
        let is_kept = |day: &str, lines: &Day| lines.changed || day >= before;
        self.past.extend(self.days.iter().filter(|(day, lines)| !is_kept(day, lines)).map(|(day, _)| day.clone()));
        self.days.retain(|day, lines| is_kept(day, lines));
        while self.past.len() > MAX_PAST {
            self.past.pop_first();
        }
    }
}

impl Day {
    fn reports(&self) -> u64 {
        self.lines.values().map(|line| line.reports).sum::<u64>() + self.others
    }
}

/// How many flushes have begun, how the last ones ended, and who waits.
#[derive(Debug, Default)]
pub(super) struct Flushes {
    pub(super) begun: u64,
    /// The last one after which everything was in the store.
    pub(super) complete: u64,
    /// How many callers wait for one.
    pub(super) waiting: usize,
}

/// Whether the store heeds conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Conditions {
    Unknown,
    Heeded,
    Ignored,
}

impl Member {
    /// Makes this process a member. It does nothing until [`start`](Self::start).
    ///
    /// # Errors
    ///
    /// Returns an error if the fleet's thread cannot be started.
    pub(in crate::report) fn new(fleet: &Fleet, process: ProcessInfo) -> io::Result<Arc<Self>> {
        Ok(Self::on(super::runtime::handle()?, fleet, process))
    }

    pub(super) fn on(runtime: Handle, fleet: &Fleet, process: ProcessInfo) -> Arc<Self> {
        let id = format!("{:016x}", RandomState::new().hash_one((process.pid, SystemTime::now())));
        let counters = Arc::<Counters>::default();
        Arc::new(Self {
            store: Store::new(Arc::clone(&fleet.store), Arc::clone(&counters)),
            layout: Layout::new(&fleet.prefix),
            times: fleet.times,
            runtime,
            id,
            process,
            state: Mutex::default(),
            dispatch: OnceLock::new(),
            wake: Notify::new(),
            hurried: Notify::new(),
            hurries: AtomicU64::new(0),
            flushes: Mutex::default(),
            flushed: Condvar::new(),
            conditions: AtomicU8::new(Conditions::Unknown as u8),
            probing: tokio::sync::Mutex::default(),
            doubted: Mutex::default(),
            clock: tokio::sync::Mutex::default(),
            #[cfg(feature = "console")]
            viewed: tokio::sync::Mutex::default(),
            claims: Semaphore::new(MAX_CLAIMS),
            answered: Mutex::default(),
            kept_house: Mutex::default(),
            counters,
        })
    }

    /// Begins to work for these sinks, as long as they exist.
    pub(in crate::report) fn start(self: &Arc<Self>, dispatch: &Arc<Dispatch>) {
        let _ = self.dispatch.set(Arc::downgrade(dispatch));
        register(self);
        self.runtime.spawn(super::flushing::run(Arc::downgrade(self)));
    }

    pub(super) fn dispatch(&self) -> Option<Arc<Dispatch>> {
        self.dispatch.get()?.upgrade()
    }

    /// Counts a report, whether it is sent or held back.
    pub(in crate::report) fn note(&self, report: &mut Report, sent: bool) {
        if report.update > 0 || report.ending.is_some() {
            return;
        }
        let (key, now) = (key_of(report), Instant::now());
        let mut state = lock_std(&self.state);
        if state.build_id.is_none() {
            state.build_id.clone_from(&report.process.build_id);
        }
        self.make_room(&mut state, &key);
        let incident = state.incidents.entry(key.clone()).or_insert_with(|| Incident::new(now));
        if now.saturating_duration_since(incident.noted) >= self.times.ends_after {
            incident.begin_again();
        }
        incident.note(report, sent, now);
        let day = day_of(report.captured_at);
        if state.past.contains(&day) {
            add(&self.counters.uncounted, 1);
            return;
        }
        if state.days.len() >= MAX_DAYS
            && !state.days.contains_key(&day)
            && let Some((_, oldest)) = state.days.pop_first()
        {
            add(&self.counters.uncounted, if oldest.changed { oldest.reports() } else { 0 });
        }
        let day = state.days.entry(day).or_default();
        day.changed = true;
        let room = day.lines.len() < MAX_LINES;
        match day.lines.get_mut(&report.fingerprint) {
            Some(line) => line.note(report),
            None if room => {
                let mut line = Line::new(report, &key);
                line.note(report);
                day.lines.insert(report.fingerprint.clone(), line);
            }
            None => day.others += 1,
        }
    }

    /// Notes where a report is in the store.
    pub(super) fn stored(&self, report: &Report, stored: &Stored) {
        let (mut state, day) = (lock_std(&self.state), day_of(report.captured_at));
        if state.past.contains(&day) {
            // The index says that there was this report, and not where it is.
            return;
        }
        let day = state.days.entry(day).or_default();
        if day.lines.len() < MAX_LINES || day.lines.contains_key(&report.fingerprint) {
            // A report that another process has left in the spool was counted there.
            let line =
                day.lines.entry(report.fingerprint.clone()).or_insert_with(|| Line::new(report, &key_of(report)));
            line.see(report);
            line.stored(stored);
            day.changed = true;
        }
    }

    /// Forgets the incident that was quiet for longest, if there is no room for another.
    pub(super) fn make_room(&self, state: &mut State, key: &str) {
        if state.incidents.len() < MAX_INCIDENTS || state.incidents.contains_key(key) {
            return;
        }
        let others = state.incidents.iter().filter(|(_, incident)| incident.question.is_none());
        let quiet = others.min_by_key(|(_, incident)| incident.noted).map(|(key, _)| key.clone());
        if let Some(incident) = quiet.and_then(|quiet| state.incidents.remove(&quiet)) {
            add(&self.counters.uncounted, incident.unwritten());
        }
    }

    /// Keeps counts of a time that is over until the store has them.
    pub(super) fn keep_late(&self, state: &mut State, late: Late) {
        if state.late.len() < MAX_LATE {
            state.late.push(late);
        } else {
            add(&self.counters.uncounted, late.count.reports);
        }
    }

    /// Returns who this instance is.
    pub(super) fn instance(&self) -> Instance {
        let build_id = self.process.build_id.clone().or_else(|| lock_std(&self.state).build_id.clone());
        Instance { build_id, ..Instance::new(self.id.clone(), &self.process) }
    }

    /// Takes the index of a day to bring it to the store, if it is not there yet.
    pub(super) fn index(&self, day: &str) -> Option<Index> {
        let instance = self.instance();
        let mut state = lock_std(&self.state);
        let day = state.days.get_mut(day).filter(|day| day.changed)?;
        // With the same lock: what is noted from now on is not in this index.
        day.changed = false;
        let lines = day.lines.values().cloned().collect();
        Some(Index { schema: INDEX_SCHEMA, instance, lines, others: day.others })
    }

    /// Changes what is known of an incident.
    pub(super) fn change<T>(&self, key: &str, change: impl FnOnce(&mut Incident) -> T) -> Option<T> {
        lock_std(&self.state).incidents.get_mut(key).map(change)
    }

    /// Returns how many reports are counted here, and not in the store.
    fn unwritten(&self) -> u64 {
        let state = lock_std(&self.state);
        let late: u64 = state.late.iter().map(|late| late.count.reports).sum();
        late + state.incidents.values().map(Incident::unwritten).sum::<u64>()
    }

    pub(in crate::report) fn stats(&self) -> FleetStats {
        let heeds_conditions = match self.conditions() {
            Conditions::Unknown => None,
            known => Some(known == Conditions::Heeded),
        };
        FleetStats { heeds_conditions, unwritten: self.unwritten(), ..self.counters.read() }
    }

    /// Returns how often those that wait were asked to decide.
    pub(super) fn hurries(&self) -> u64 {
        self.hurries.load(Relaxed)
    }

    /// Waits for so long, or until those that wait are asked to decide, once more than `before`. Returns whether they are.
    pub(super) async fn is_hurried_within(&self, time: Duration, before: u64) -> bool {
        let mut hurried = pin!(self.hurried.notified());
        // From now on, none is missed.
        hurried.as_mut().enable();
        self.hurries() > before || timeout(time, hurried).await.is_ok()
    }

    pub(super) fn conditions(&self) -> Conditions {
        match self.conditions.load(Relaxed) {
            known if known == Conditions::Heeded as u8 => Conditions::Heeded,
            known if known == Conditions::Ignored as u8 => Conditions::Ignored,
            _ => Conditions::Unknown,
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        add(&self.counters.uncounted, self.unwritten());
    }
}

/// Returns the day of a time in UTC: `2026-11-30`.
pub(super) fn day_of(time: SystemTime) -> String {
    timestamp(time).get(..10).unwrap_or("1970-01-01").to_owned()
}
