//! The threads: which polls do not return, and which of them hold the workers that others need.

use std::collections::HashMap;

use crate::capture::{Outcome, Sampler, look};
use crate::inflight::{Policy, RowId, Subject, ThreadSlot, flags, slots, table};
use crate::report::{Culprit, Evidence, Kind, ThreadEvidence, Verdict};

/// Threads whose stacks one starved request is worth.
const MAX_CULPRITS: usize = 8;

/// The polls that were going on at one moment.
#[derive(Debug, Default)]
pub(super) struct Roll {
    polls: Vec<(&'static ThreadSlot, RowId, u64)>,
}

impl Roll {
    pub(super) fn call() -> Self {
        let polls = slots().into_iter().filter_map(|slot| slot.polling().map(|(row, poll)| (slot, row, poll)));
        Self { polls: polls.collect() }
    }

    /// The threads of `runtime` that are still in the polls of that moment, with their stacks; then those which run
    /// something that heeler does not watch.
    pub(super) fn culprits(
        &self,
        sampler: &mut Sampler,
        runtime: Option<tokio::runtime::Id>,
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
            let (activity, snapshot) = match sampler.capture(slot, poll) {
                Outcome::Captured(snapshot, activity) => (activity, Some(snapshot)),
                Outcome::NoAnswer(activity) => (activity, None),
                Outcome::Missed => continue,
                Outcome::Unavailable(why) => {
                    let note = format!("the stacks of busy threads are not to be had: {why}");
                    if !notes.contains(&note) {
                        notes.push(note);
                    }
                    match slot.with_life(|life| life.tid) {
                        Some(tid) => (look(tid), None),
                        None => continue,
                    }
                }
            };
            let details = table().row(row).and_then(|slow| slow.details(row));
            let work = details.map_or(Subject::Nothing, |details| details.subject());
            culprits.push(Culprit { thread: ThreadEvidence { activity, snapshot }, work });
        }
        // A worker that is neither in a watched poll nor idle: say so, for nobody else will.
        for slot in slots() {
            if slot.polling().is_some() {
                continue;
            }
            let Some((tid, _)) = of_runtime(slot) else { continue };
            let activity = look(tid);
            if activity.on_cpu() == Some(true) {
                notes.push(format!(
                    "thread {} ({tid}) is busy with something that heeler does not watch",
                    activity.name
                ));
            }
        }
        culprits
    }
}

/// Remembers since when each thread has been in its poll, for [`blocking_after`](crate::WatchdogLayer::blocking_after).
#[derive(Debug, Default)]
pub(super) struct LongPolls {
    seen: HashMap<usize, Seen>,
}

#[derive(Debug)]
struct Seen {
    poll: u64,
    since: u64,
    reported: bool,
}

impl LongPolls {
    /// How often to look: four times within the shortest limit that any layer has set.
    pub(super) fn period() -> u64 {
        let shortest = Policy::all().iter().map(|policy| policy.blocking_after).min().unwrap_or(u64::MAX);
        if shortest == u64::MAX { u64::MAX } else { (shortest / 4).clamp(1_000_000, 1_000_000_000) }
    }

    /// Finds polls that have become too long, and takes their threads' stacks.
    pub(super) fn look(&mut self, now: u64, sampler: &mut Sampler) -> Vec<Evidence> {
        let mut found = Vec::new();
        for slot in slots() {
            let key = std::ptr::from_ref(slot).addr();
            let Some((id, poll)) = slot.polling() else {
                self.seen.remove(&key);
                continue;
            };
            let seen = self.seen.entry(key).or_insert(Seen { poll, since: now, reported: false });
            if seen.poll != poll {
                *seen = Seen { poll, since: now, reported: false };
            }
            let held = now - seen.since;
            let Some((row, policy)) = table().row(id).and_then(|row| Some((row, row.policy().get()?))) else {
                continue;
            };
            // A request that is slow already has a report, with this very stack.
            let exempt = row.flags() & (flags::MAY_BLOCK | flags::REPORTED) != 0;
            if seen.reported || exempt || held < policy.blocking_after {
                continue;
            }
            let Outcome::Captured(snapshot, activity) = sampler.capture(slot, poll) else { continue };
            seen.reported = true;
            if let Some(mut evidence) = super::evidence(row, id, now) {
                evidence.kind = Kind::BlockingPoll;
                evidence.verdict = Verdict::Blocking;
                evidence.longest_poll = evidence.longest_poll.max(held);
                evidence.notes.push(format!("one poll has held this thread for at least {} ms", held / 1_000_000));
                evidence.thread = Some(ThreadEvidence { activity, snapshot: Some(snapshot) });
                found.push(evidence);
            }
        }
        found
    }
}
