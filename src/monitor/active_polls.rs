//! Threads in polls: which polls do not return, and which of them hold the workers that others need.

use std::collections::HashMap;

use super::stacks::{CURRENT, Look, RECENT, SlotKey, Stacks, key};
use super::{Culprit, Evidence, Kind, Verdict};
use crate::capture::{RowId, RuntimeId, ThreadSlot, slots};
use crate::inflight::{Policy, Subject, flags, table, work_of};

/// At most this many threads' stacks are captured for one starved request.
const MAX_CULPRITS: usize = 8;

/// The polls that were going on at one moment.
#[derive(Debug, Default)]
pub(super) struct ActivePolls {
    polls: Vec<(&'static ThreadSlot, RowId, u64)>,
}

impl ActivePolls {
    pub(super) fn snapshot(slots: &[&'static ThreadSlot]) -> Self {
        let polls = slots.iter().filter_map(|slot| slot.polling().map(|(row, poll)| (*slot, row, poll)));
        Self { polls: polls.collect() }
    }

    /// Returns the threads of `runtime` that are still in the polls of that moment, with their stacks. Adds a note for
    /// each thread that runs something heeler does not watch.
    pub(super) fn culprits(
        &self,
        stacks: &mut Stacks,
        runtime: Option<RuntimeId>,
        notes: &mut Vec<String>,
    ) -> Vec<Culprit> {
        let of_runtime = |slot: &ThreadSlot| {
            slot.with_life(|life| life.tid)
                .zip(slot.with_life(|life| life.runtime))
                .filter(|(_, theirs)| runtime.is_none() || theirs.is_none() || *theirs == runtime)
        };
        let mut culprits = Vec::new();
        for &(slot, row, poll) in &self.polls {
            if !slot.is_in(poll) || of_runtime(slot).is_none() || culprits.len() == MAX_CULPRITS {
                continue;
            }
            let Look::Thread(thread, note) = stacks.of(slot, poll, RECENT, false) else { continue };
            notes.extend(note.filter(|note| !notes.contains(note)));
            let row = Some(work_of(row)).filter(|work| *work != RowId::NONE).unwrap_or(row);
            let details = table().row(row).and_then(|slow| slow.details(row));
            let work = details.map_or(Subject::Nothing, |details| details.subject());
            culprits.push(Culprit { thread, work, outside: false });
        }
        // Workers that are neither in a watched poll nor idle: a plain task, a timer's callback.
        for slot in slots() {
            if slot.polling().is_some() {
                continue;
            }
            let Some((tid, _)) = of_runtime(slot) else { continue };
            let activity = stacks.activity(tid);
            if activity.on_cpu() == Some(true) {
                notes.push(format!(
                    "thread {} ({tid}) is busy with something that heeler does not watch",
                    activity.name
                ));
                if culprits.len() < MAX_CULPRITS
                    && let Some(thread) = stacks.outside(slot)
                {
                    culprits.push(Culprit { thread, work: Subject::Nothing, outside: true });
                }
            }
        }
        culprits
    }
}

/// How often a thread that wants the CPU is asked for its stack before it is reported without one.
const MAX_TRIES: u32 = 4;

/// Remembers since when each thread has been in its poll, for [`blocking_after`](crate::WatchdogLayer::blocking_after).
#[derive(Debug, Default)]
pub(super) struct LongPolls {
    seen: HashMap<SlotKey, Seen>,
    looked: u64,
}

#[derive(Debug)]
struct Seen {
    poll: u64,
    since: u64,
    /// How often its thread has not answered.
    tries: u32,
    reported: bool,
}

impl Seen {
    fn new(poll: u64, since: u64) -> Self {
        Self { poll, since, tries: 0, reported: false }
    }
}

impl LongPolls {
    /// Returns how often to look: four times within the shortest limit that any layer has set.
    fn period() -> u64 {
        let shortest = Policy::all().iter().map(|policy| policy.blocking_after).min().unwrap_or(u64::MAX);
        if shortest == u64::MAX { u64::MAX } else { (shortest / 4).clamp(1_000_000, 1_000_000_000) }
    }

    /// Returns when to look next. It is computed each time, because a layer with a shorter limit may have been added.
    pub(super) fn due(&self) -> u64 {
        self.looked.saturating_add(Self::period())
    }

    /// Notes that a report has already covered this poll.
    pub(super) fn is_reported(&mut self, (slot, poll): (SlotKey, u64), now: u64) {
        self.seen.insert(slot, Seen { reported: true, ..Seen::new(poll, now) });
    }

    /// Finds polls that have become too long, and captures their threads' stacks.
    pub(super) fn look(&mut self, now: u64, stacks: &mut Stacks) -> Vec<Evidence> {
        self.looked = now;
        let mut found = Vec::new();
        for slot in slots() {
            let key = key(slot);
            let Some((id, poll)) = slot.polling() else {
                self.seen.remove(&key);
                continue;
            };
            let seen = self.seen.entry(key).or_insert(Seen::new(poll, now));
            if seen.poll != poll {
                *seen = Seen::new(poll, now);
            }
            let held = now.saturating_sub(seen.since);
            // The limit on polls comes from the work that a box is in.
            let id = work_of(id);
            let Some((row, policy)) = table().row(id).and_then(|row| Some((row, row.policy().get()?))) else {
                continue;
            };
            let exempt = row.flags() & flags::MAY_BLOCK != 0;
            if seen.reported || exempt || held < policy.blocking_after {
                continue;
            }
            let (thread, note) = match stacks.of(slot, poll, CURRENT, seen.tries < MAX_TRIES) {
                Look::Thread(thread, note) => (thread, note),
                Look::Late => {
                    seen.tries += 1;
                    continue;
                }
                Look::Missed => continue,
            };
            seen.reported = true;
            if let Some(mut evidence) = super::evidence(row, id) {
                evidence.kind = Kind::BlockingPoll;
                evidence.verdict = Verdict::Blocking;
                evidence.longest_poll = evidence.longest_poll.max(held);
                evidence.notes.push(format!("one poll has held this thread for at least {} ms", held / 1_000_000));
                evidence.notes.extend(note);
                evidence.thread = Some(thread);
                row.update(id, flags::FOLLOWED, 0);
                found.push(evidence);
            }
        }
        found
    }
}
