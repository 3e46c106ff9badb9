//! The rows of a dump: what each is, and where.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::{Duration, SystemTime};

use super::{Budget, DumpEvidence, State, What, WorkEvidence, resources};
use crate::capture::{Poller, RowId, Sampler, slots};
use crate::clock::{Clock, now};
use crate::inflight::{Row, RowLimit, WaitKind, Work, flags, origin, root, table, work_of};
use crate::monitor::contention::Member;
use crate::monitor::diagnosis::ask_for_poll;
use crate::monitor::gather::{evidence, reports, verdict_of_wait};
use crate::monitor::stacks::{Look, Stacks};
use crate::monitor::{Evidence, SIGNAL, ThreadEvidence, Verdict};

/// At most this much work is described, the oldest. A piece takes some 300 bytes.
const MAX_WORK: usize = 100_000;
/// At most this many places are told apart. A place keeps its stacks, of some kilobytes each.
const MAX_PLACES: usize = 1_024;
/// At most this many threads' stacks are taken.
const MAX_THREADS: usize = 512;
/// This much work is asked at a time, so that the copies of its stacks stay few.
const WINDOW: usize = 1_024;
/// If none of the work that was asked is polled for this long, the workers are busy, and no more is asked.
const STALLED: Duration = Duration::from_millis(100);
/// How long to wait before looking again.
const PAUSE: Duration = Duration::from_micros(200);
/// A poll that goes on for this long holds its thread, in nanoseconds. Others are waited for.
const LONG_POLL: u64 = 20_000_000;
/// A stack of a thread is good for that long, in nanoseconds.
const CURRENT: u64 = 50_000_000;

/// Takes the stacks of threads for dumps, one after another: it knows which threads do not answer.
pub(crate) struct DumpStacks(Stacks);

impl DumpStacks {
    pub(crate) fn new() -> Self {
        let signal = SIGNAL.load(std::sync::atomic::Ordering::Relaxed);
        Self(Stacks::new(Sampler::new((signal != 0).then_some(signal))))
    }
}

/// A row that is looked at.
struct One {
    row: &'static Row,
    id: RowId,
    started: u64,
    /// Since when it has been asked for a poll.
    asked: Option<u64>,
    /// Whether its record was made for this dump.
    is_lent: bool,
    found: Option<Found>,
    /// A poll that has gone on for a while.
    long_poll: Option<Poller>,
    /// When its first limit passes, in nanoseconds of [`now`].
    limit: Option<u64>,
}

/// Where a row is.
#[derive(Clone, Copy)]
struct Found {
    state: State,
    /// Nanoseconds of [`now`]. `None` if it was not observed before.
    since: Option<u64>,
    place: Option<usize>,
    /// In how many branches it waits, and how often it had been polled by then.
    branches: usize,
    polls: u32,
}

/// What makes two pieces of work be at one place.
#[derive(PartialEq, Eq, Hash)]
enum Key {
    Waits(State, u64),
    Alone(RowId),
}

struct Rows {
    all: Vec<One>,
    places: Vec<Evidence>,
    by_key: HashMap<Key, usize>,
}

/// Takes the evidence of everything in flight, as far as the budget goes.
pub(crate) fn take(budget: Budget, stacks: &mut DumpStacks) -> DumpEvidence {
    let mut limits = HashMap::new();
    let mut all: Vec<One> = table().rows().filter_map(|row| listed(row, &mut limits)).collect();
    for one in &mut all {
        one.limit = limits.remove(&one.id).into_iter().chain(one.limit).min();
    }
    all.sort_by_key(|one| one.started);
    let omitted = all.len().saturating_sub(MAX_WORK) as u64;
    all.truncate(MAX_WORK);
    let mut rows = Rows { all, places: Vec::new(), by_key: HashMap::new() };
    rows.ask(budget);
    rows.wait_for_polls();
    rows.look_at_threads(budget.threads, stacks);
    rows.all.iter().for_each(One::give_back);
    let (taken, moment) = (SystemTime::now(), now());
    let work: Vec<WorkEvidence> = rows.all.iter().filter_map(|one| one.describe(moment)).collect();
    let unobserved = work.iter().filter(|work| work.state == State::Unknown).count() as u64;
    let waiting = rows.all.iter().filter_map(|one| Some((one.id, one.found.filter(|found| found.branches > 0)?)));
    let waiting: HashMap<RowId, Found> = waiting.collect();
    // Another branch of a wait may release what the work holds.
    let held = resources::take(moment, &|member: &Member| {
        let Some(row) = table().row(member.work) else { return false };
        let is_there = |found: &Found| found.polls == row.polls() && found.branches <= member.waits;
        member.blocks && row.poller().is_polling() || waiting.get(&member.work).is_some_and(is_there)
    });
    let resources::Held { resources, deadlocks, claims } = held;
    DumpEvidence { taken, work, places: rows.places, resources, deadlocks, claims, omitted, unobserved }
}

/// Returns the row if it is in flight and a piece of work of its own. The limit of a box within other work is added to
/// `limits`.
fn listed(row: &'static Row, limits: &mut HashMap<RowId, u64>) -> Option<One> {
    let (id, flags) = row.live()?;
    let mut limit = row.limit().map(RowLimit::deadline);
    // The row that stands for all profiles has neither a request nor a name.
    if flags & flags::UNLISTED != 0 || flags & (flags::PROFILED | flags::CHILD | flags::REQUEST) == flags::PROFILED {
        return None;
    }
    if flags & flags::BOX != 0 {
        let (work, deadline) = (work_of(id), row.deadline());
        if table().row(work).is_some() {
            let first = limits.entry(work).or_insert(deadline);
            *first = deadline.min(*first);
            return None;
        }
        limit = Some(deadline);
    }
    let started = row.started().map_or(u64::MAX, |ticks| Clock::get().nanos(ticks));
    Some(One { row, id, started, asked: None, is_lent: false, found: None, long_poll: None, limit })
}

impl Rows {
    /// Finds out where everything waits, and asks what is not traced to be polled.
    fn ask(&mut self, budget: Budget) {
        let began = now();
        let youngest = began.saturating_sub(nanos(budget.older_than));
        let (mut next, mut asked, mut left): (usize, Vec<usize>, usize) = (0, Vec::new(), budget.most);
        let mut progress = began;
        loop {
            while next < self.all.len() && asked.len() < WINDOW {
                let found = self.find(next);
                if found.is_none() && left > 0 && self.all[next].started <= youngest && self.all[next].ask() {
                    asked.push(next);
                    left -= 1;
                }
                self.all[next].found = found;
                next += 1;
            }
            if asked.is_empty() && next == self.all.len() {
                return;
            }
            let before = asked.len();
            asked.retain(|at| {
                if !self.all[*at].has_answered() {
                    return true;
                }
                let found = self.find(*at);
                self.all[*at].found = found;
                // A poll that has answered may still leave its record behind.
                if found.is_none_or(|found| found.state != State::Polled) {
                    self.all[*at].give_back();
                }
                false
            });
            let now = now();
            if asked.len() < before {
                progress = now;
                continue;
            }
            if asked.iter().any(|at| self.all[*at].row.poller().is_polling()) {
                // The first polls that are traced take long.
                progress = now;
            }
            let is_over =
                now.saturating_sub(began) > nanos(budget.polls) || now.saturating_sub(progress) > nanos(STALLED);
            if is_over {
                break;
            }
            std::thread::sleep(PAUSE);
        }
        for at in asked {
            self.all[at].found = self.all[at].not_polled();
        }
        for at in next..self.all.len() {
            self.all[at].found = self.find(at);
        }
    }

    /// Returns where a row is, if that is known.
    fn find(&mut self, at: usize) -> Option<Found> {
        let One { row, id, is_lent, .. } = self.all[at];
        if row.poller().is_polling() {
            // Its thread is looked at later.
            return Some(Found { state: State::Polled, since: None, place: None, branches: 0, polls: 0 });
        }
        let (since, key, branches) = {
            let details = row.details(id)?;
            // What was polled since its record was made may be anywhere.
            let trace = details.trace.as_deref().filter(|trace| trace.polls == row.polls())?;
            let (since, place) = trace.standing();
            let record = trace.records.get(place??)?;
            let state = match record.kind {
                WaitKind::Waiting => State::Waiting,
                WaitKind::Yielding => State::Yielding,
                WaitKind::NoWaker => State::NoWaker,
            };
            let branches = record.stacks.list.len() + record.lost as usize;
            (since, record.key().map_or(Key::Alone(id), |key| Key::Waits(state, key)), branches)
        };
        let place = self.place(row, id, key)?;
        let state = match self.places[place].verdict {
            Verdict::Yielding => State::Yielding,
            Verdict::NoWaker => State::NoWaker,
            _ => State::Waiting,
        };
        Some(Found { state, since: (!is_lent).then_some(since), place: Some(place), branches, polls: row.polls() })
    }

    /// Returns the index of a place, which may be new.
    fn place(&mut self, row: &'static Row, id: RowId, key: Key) -> Option<usize> {
        let is_full = self.places.len() >= MAX_PLACES;
        match self.by_key.entry(key) {
            Entry::Occupied(known) => Some(*known.get()),
            Entry::Vacant(_) if is_full => None,
            Entry::Vacant(new) => {
                let mut evidence = evidence(row, id)?;
                let current = evidence.current?;
                let (verdict, note) = verdict_of_wait(&evidence);
                evidence.verdict = verdict;
                evidence.notes = note.map(str::to_owned).into_iter().collect();
                // Nothing else is shown, and copies of stacks are large.
                evidence.waits = vec![evidence.waits.swap_remove(current)];
                evidence.current = Some(0);
                self.places.push(evidence);
                Some(*new.insert(self.places.len() - 1))
            }
        }
    }

    /// Waits for polls that end at once, above all those that were asked for. What goes on is a poll that holds its thread.
    fn wait_for_polls(&mut self) {
        let is_polled = |one: &One| matches!(one.found, Some(Found { state: State::Polled, .. }));
        let mut polls: Vec<(usize, Poller)> = (0..self.all.len())
            .filter(|at| is_polled(&self.all[*at]))
            .map(|at| (at, self.all[at].row.poller()))
            .filter(|(_, poller)| poller.is_polling())
            .collect();
        let began = now();
        while !polls.is_empty() && now().saturating_sub(began) < LONG_POLL {
            std::thread::sleep(PAUSE);
            polls.retain(|(at, poller)| self.all[*at].row.poller() == *poller);
        }
        for (at, poller) in polls {
            self.all[at].long_poll = Some(poller);
        }
        for at in 0..self.all.len() {
            if is_polled(&self.all[at]) && self.all[at].long_poll.is_none() {
                self.all[at].found = self.find(at);
            }
        }
    }

    /// Takes the stacks of the threads that are in polls.
    fn look_at_threads(&mut self, patience: Duration, DumpStacks(stacks): &mut DumpStacks) {
        let began = now();
        let mut taken: HashMap<usize, Option<(ThreadEvidence, usize)>> = HashMap::new();
        stacks.forget_ended(&slots());
        for at in 0..self.all.len() {
            let One { row, id, .. } = self.all[at];
            if !matches!(self.all[at].found, Some(Found { state: State::Polled, .. })) {
                continue;
            }
            let poller = row.poller();
            let polled = poller.slot().filter(|_| poller.is_polling()).and_then(|slot| Some((slot, slot.polling()?.1)));
            let Some((slot, poll)) = polled.filter(|_| self.all[at].long_poll == Some(poller)) else {
                // It was polled in between, and may be anywhere by now.
                self.all[at].found = self.find(at);
                continue;
            };
            if taken.len() >= MAX_THREADS || now().saturating_sub(began) > nanos(patience) {
                continue;
            }
            let key = std::ptr::from_ref(slot).addr();
            let known = taken.entry(key).or_insert_with(|| match stacks.of(slot, poll, CURRENT, false) {
                Look::Thread(thread, _) => {
                    let mut evidence = evidence(row, id)?;
                    evidence.verdict = Verdict::Blocking;
                    evidence.thread = Some(thread.clone());
                    (evidence.waits, evidence.current) = (Vec::new(), None);
                    self.places.push(evidence);
                    Some((thread, self.places.len() - 1))
                }
                Look::Late | Look::Missed => None,
            });
            let Some((thread, place)) = known.as_ref() else { continue };
            let state = match thread.activity.on_cpu() {
                Some(true) => State::Running,
                Some(false) => State::Blocked,
                None => State::Polled,
            };
            let since = row.details(id).and_then(|details| match details.trace.as_deref()?.standing() {
                (since, None) => Some(since),
                _ => None,
            });
            self.all[at].found = Some(Found { state, since, place: Some(*place), branches: 0, polls: 0 });
        }
    }
}

impl One {
    /// Asks for a poll. Returns whether there will be one, as far as is known.
    fn ask(&mut self) -> bool {
        let now = now();
        if self.row.flags() & flags::MAY_BLOCK != 0 {
            return false;
        }
        self.is_lent = self.row.details(self.id).is_some_and(|details| details.trace.is_none());
        self.asked = ask_for_poll(self.row, self.id, now);
        self.asked.is_some()
    }

    fn has_answered(&self) -> bool {
        !self.row.is_live(self.id) || self.row.flags() & flags::WANTED == 0
    }

    /// Drops a record that was made for this dump, because copies of stacks are large.
    fn give_back(&self) {
        let keeps = flags::ARMED | flags::WANTED | flags::EXPIRED | flags::QUEUED;
        if !self.is_lent || self.row.flags() & keeps != 0 {
            return;
        }
        let Some(mut details) = self.row.details(self.id) else { return };
        let may_go = !self.row.poller().is_polling() && self.row.flags() & keeps == 0;
        #[cfg(feature = "otel")]
        // The end of a span is other people's code, which should run where the work ends.
        let may_go = may_go && details.trace.as_ref().is_some_and(|trace| trace.span.is_none());
        let lent = if may_go { details.trace.take() } else { None };
        drop(details);
        // Outside of the lock: it has many stacks.
        drop(lent);
    }

    /// Returns the state of work that was asked and has not answered.
    fn not_polled(&self) -> Option<Found> {
        let state = if self.row.poller().is_polling() { State::Polled } else { State::Woken };
        Some(Found { state, since: self.asked, place: None, branches: 0, polls: 0 })
    }

    /// Returns what the row is, unless it is gone.
    fn describe(&self, moment: u64) -> Option<WorkEvidence> {
        let Self { row, id, .. } = *self;
        let target = reports(row, id)?;
        let (what, parent) = {
            let details = row.details(id)?;
            match &details.work {
                Work::Request(_) => (What::Request(details.request.copy()), None),
                Work::Timebox(_) if details.request.path.is_some() => (What::Request(details.request.copy()), None),
                Work::Timebox(timebox) => (What::Timebox(timebox.label().cloned()), None),
                Work::Job(job) => (What::Job(job.name.clone()), Some(job.inside)),
                Work::Child(child) => (What::Child(child.how), Some(child.parent)),
                Work::Nothing => return None,
            }
        };
        let parent = parent.map(|parent| origin(parent).map_or_else(|| root(parent), |origin| origin.id));
        let (_, flags) = row.live().filter(|(live, _)| *live == id)?;
        let started = row.started();
        let elapsed = if started.is_some() { moment.saturating_sub(self.started) } else { 0 };
        let limit = self.limit.filter(|deadline| *deadline != u64::MAX);
        let nothing = if row.polls() == 0 { State::New } else { State::Unknown };
        let found = self.found.unwrap_or(Found { state: nothing, since: None, place: None, branches: 0, polls: 0 });
        Some(WorkEvidence {
            id,
            what,
            parent: parent.filter(|parent| *parent != id && *parent != RowId::NONE),
            reports: target,
            started,
            elapsed,
            threshold: row.threshold(),
            left: limit.map(|deadline| deadline.saturating_sub(moment)),
            polls: row.polls(),
            is_body: flags & flags::BODY != 0,
            state: found.state,
            there: found.since.map(|since| moment.saturating_sub(since)),
            place: found.place,
        })
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
