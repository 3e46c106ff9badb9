//! Stacks of threads, each taken once for all who ask for it: a thousand starved requests wait behind the same few workers.

use std::collections::HashMap;

use super::ThreadEvidence;
use crate::capture::ThreadSlot;
use crate::capture::{Activity, Sampler, look, sys};
use crate::clock::now;

/// The slot of a thread, as a key.
pub(super) type SlotKey = usize;

/// A stack is the current one for so long, in nanoseconds.
pub(super) const CURRENT: u64 = 1_000_000;
/// Who holds a worker is still known after so long, though the thread has moved on in its poll.
pub(super) const RECENT: u64 = 50_000_000;
/// Activities that are kept, beyond those which are recent.
const MAX_ACTIVITIES: usize = 64;

/// What came of looking at a thread.
pub(super) enum Look {
    /// What is known of it, and what a reader should know besides.
    Thread(ThreadEvidence, Option<String>),
    /// It has not answered because it was not run: it will.
    Late,
    /// The poll was over.
    Missed,
}

/// Takes stacks, and keeps each as long as it may be of use to others.
pub(super) struct Stacks {
    sampler: Sampler,
    taken: HashMap<SlotKey, Taken>,
    activities: HashMap<i32, (u64, Activity)>,
}

struct Taken {
    poll: u64,
    at: u64,
    /// The thread's CPU time, if it has not run while its stack was taken.
    cpu: Option<u64>,
    thread: ThreadEvidence,
    note: Option<String>,
}

impl Taken {
    /// Whether it is at most so old, or the thread has not run since.
    fn holds(&self, max_age: u64) -> bool {
        let is_young = now().saturating_sub(self.at) <= max_age;
        is_young || self.cpu.is_some_and(|cpu| sys::cpu_time(self.thread.activity.tid) == Some(cpu))
    }
}

/// A key for the slot.
pub(super) fn key(slot: &'static ThreadSlot) -> SlotKey {
    std::ptr::from_ref(slot).addr()
}

impl Stacks {
    pub(super) fn new(sampler: Sampler) -> Self {
        Self { sampler, taken: HashMap::new(), activities: HashMap::new() }
    }

    /// The stack of the slot's thread in its poll number `poll`: as of now, or as it was at most `max_age` nanoseconds ago.
    /// Whoever is `patient` asks again later where that helps.
    pub(super) fn of(&mut self, slot: &'static ThreadSlot, poll: u64, max_age: u64, patient: bool) -> Look {
        if let Some(taken) = self.taken.get(&key(slot))
            && taken.poll == poll
            && taken.holds(max_age)
            && slot.is_in(poll)
        {
            return Look::Thread(taken.thread.clone(), taken.note.clone());
        }
        let cpu = |tid: Option<i32>| tid.and_then(sys::cpu_time);
        let tid = slot.with_life(|life| life.tid);
        let before = cpu(tid);
        let outcome = self.sampler.capture(slot, poll);
        if patient && outcome.may_come_late() {
            return Look::Late;
        }
        let Some((thread, note)) = ThreadEvidence::of(outcome, slot) else {
            self.taken.remove(&key(slot));
            return Look::Missed;
        };
        let unmoved = before.filter(|_| thread.snapshot.is_some() && before == cpu(tid));
        let taken = Taken { poll, at: now(), cpu: unmoved, thread: thread.clone(), note: note.clone() };
        self.taken.insert(key(slot), taken);
        Look::Thread(thread, note)
    }

    /// What a thread is doing, or was just now.
    pub(super) fn activity(&mut self, tid: i32) -> &Activity {
        let now = now();
        if self.activities.len() > MAX_ACTIVITIES {
            self.activities.retain(|_, (at, _)| now.saturating_sub(*at) <= RECENT);
        }
        let entry = self.activities.entry(tid).or_insert_with(|| (now, look(tid)));
        if now.saturating_sub(entry.0) > RECENT {
            *entry = (now, look(tid));
        }
        &entry.1
    }

    /// Lets go of the stacks of polls that are over.
    pub(super) fn forget_ended(&mut self, slots: &[&'static ThreadSlot]) {
        if self.taken.is_empty() {
            return;
        }
        for slot in slots {
            let slot_key = key(slot);
            if self.taken.get(&slot_key).is_some_and(|taken| !slot.is_in(taken.poll)) {
                self.taken.remove(&slot_key);
            }
        }
    }
}
