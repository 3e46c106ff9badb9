//! What else is in flight: where other armed work waits, and which of it has held its thread for long. Read from
//! records that exist anyway. Nothing is polled or woken for it.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::gather::subject_of;
use super::stacks::{self, Look, RECENT};
use super::{OtherEvidence, OtherWork, Others, ThreadEvidence};
use crate::capture::RowId;
use crate::clock::Clock;
use crate::inflight::{Row, Stacks, flags};

/// How long one look is good for, in nanoseconds.
const CURRENT: u64 = 10_000_000;
/// At most this much other work is looked at for one report.
const MAX_WORK: usize = 4_096;
/// At most this many places are handed on: those whose work is oldest.
const MAX_PLACES: usize = 16;
/// The oldest work at a place is described one by one.
const MAX_DESCRIBED: usize = 3;
/// At most this many threads' stacks are taken.
const MAX_THREADS: usize = 4;
/// A poll counts as holding its thread from this on, in nanoseconds.
const LONG_POLL: u64 = 20_000_000;
/// At most this many earlier waits of the oldest work at a place are handed on.
const MAX_EARLIER: usize = 2;

/// The armed work of the process, as the capture thread knows it.
#[derive(Default)]
pub(super) struct InFlight {
    armed: Vec<(&'static Row, RowId)>,
    /// How many may be listed before those that have ended are removed.
    limit: usize,
    last: Option<Rc<Moment>>,
}

/// Where all armed work was at one moment.
struct Moment {
    at: u64,
    work: Vec<One>,
    more: u32,
}

/// One piece of armed work.
struct One {
    row: &'static Row,
    id: RowId,
    /// Clock ticks, and nanoseconds.
    ticks: u64,
    started: u64,
    /// Since when it waits there, or is in its poll.
    since: u64,
    place: Place,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Place {
    /// The key of the wait.
    Waits(u64),
    /// In a poll.
    Runs(RowId),
}

impl InFlight {
    pub(super) fn add(&mut self, armed: impl Iterator<Item = (&'static Row, RowId)>) {
        self.armed.extend(armed);
        if self.armed.len() > self.limit {
            self.armed.retain(|(row, id)| row.is_live(*id));
            self.limit = (2 * self.armed.len()).max(1_024);
        }
    }

    fn moment(&mut self, now: u64) -> Rc<Moment> {
        if let Some(last) = self.last.as_ref().filter(|last| now.saturating_sub(last.at) < CURRENT) {
            return Rc::clone(last);
        }
        let mut work: Vec<One> = Vec::new();
        self.armed.retain(|(row, id)| row.is_live(*id));
        for &(row, id) in self.armed.iter().take(MAX_WORK) {
            work.extend(One::of(row, id));
        }
        work.sort_by_key(|one| one.started);
        let more = self.armed.len().saturating_sub(MAX_WORK) as u32;
        let moment = Rc::new(Moment { at: now, work, more });
        self.last = Some(Rc::clone(&moment));
        moment
    }

    /// Returns what else is in flight, as seen from the work `id`, which waits at the place with the key `here`.
    pub(super) fn others(&mut self, id: RowId, here: Option<u64>, now: u64, stacks: &mut stacks::Stacks) -> Others {
        let moment = self.moment(now);
        let mut places: HashMap<&Place, usize> = HashMap::new();
        let mut found: Vec<OtherEvidence> = Vec::new();
        let mut others = Others { count: moment.more, here_since: now, ..Others::default() };
        let (here, mut threads) = (here.map(Place::Waits), 0);
        for one in moment.work.iter().filter(|one| one.id != id) {
            others.count += 1;
            if here.as_ref() == Some(&one.place) {
                others.here += 1;
                others.here_since = others.here_since.min(one.since);
                continue;
            }
            if let Some(&at) = places.get(&one.place) {
                found[at].count += 1;
                found[at].since = found[at].since.min(one.since);
                if found[at].work.len() < MAX_DESCRIBED {
                    found[at].work.extend(one.describe(now, 0));
                }
                continue;
            }
            if found.len() == MAX_PLACES {
                continue;
            }
            let Some(mut other) = one.evidence(now) else { continue };
            if let Place::Runs(_) = one.place {
                if threads == MAX_THREADS || now.saturating_sub(one.since) < LONG_POLL {
                    continue;
                }
                threads += 1;
                other.thread = thread(one.row, stacks);
                if other.thread.is_none() {
                    continue;
                }
            }
            places.insert(&one.place, found.len());
            found.push(other);
        }
        others.places = found;
        others
    }
}

fn thread(row: &'static Row, stacks: &mut stacks::Stacks) -> Option<ThreadEvidence> {
    let poller = row.poller();
    let slot = poller.slot().filter(|_| poller.is_polling())?;
    let (_, poll) = slot.polling()?;
    match stacks.of(slot, poll, RECENT, false) {
        Look::Thread(thread, _) if row.poller() == poller => Some(thread),
        _ => None,
    }
}

impl One {
    fn of(row: &'static Row, id: RowId) -> Option<Self> {
        if row.flags() & (flags::ARMED | flags::PROFILED) != flags::ARMED {
            return None;
        }
        let ticks = row.started()?;
        let details = row.details(id)?;
        let trace = details.trace.as_deref()?;
        let (since, place) = match trace.standing() {
            (since, None) => (since, Place::Runs(id)),
            // Where it waits isn't known if the poll before was not traced.
            (since, Some(place)) => (since, Place::Waits(trace.records.get(place?)?.key()?)),
        };
        Some(Self { row, id, ticks, started: Clock::get().nanos(ticks), since, place })
    }

    /// Returns the evidence of the first at its place.
    fn evidence(&self, now: u64) -> Option<OtherEvidence> {
        let stacks = match &self.place {
            Place::Waits(key) => {
                let details = self.row.details(self.id)?;
                let records = &details.trace.as_deref()?.records;
                Some(Arc::clone(&records.iter().find(|record| record.key() == Some(*key))?.stacks))
            }
            Place::Runs(_) => None,
        };
        let work = self.describe(now, MAX_EARLIER).into_iter().collect();
        Some(OtherEvidence { count: 1, since: self.since, stacks, thread: None, work })
    }

    fn describe(&self, now: u64, earlier: usize) -> Option<OtherWork> {
        let (work, subject) = subject_of(self.row, self.id)?;
        let earlier: Vec<Arc<Stacks>> = if earlier == 0 {
            Vec::new()
        } else {
            let details = self.row.details(self.id)?;
            let records = details.trace.as_deref().map(|trace| &*trace.records).unwrap_or_default();
            let elsewhere =
                records.iter().rev().filter(|record| record.key().map(Place::Waits).as_ref() != Some(&self.place));
            elsewhere.take(earlier).map(|record| Arc::clone(&record.stacks)).collect()
        };
        let (started, elapsed) = (self.ticks, now.saturating_sub(self.started));
        Some(OtherWork { id: work, started, elapsed, since: self.since, subject, earlier })
    }
}
