//! Stacks of threads. Each is captured once for all who need it: a thousand starved requests wait behind the same few
//! workers.

use std::collections::HashMap;

use super::ThreadEvidence;
use crate::capture::ThreadSlot;
use crate::capture::{Activity, Sampler, look, sys};
use crate::clock::now;

/// The slot of a thread, as a key.
pub(super) type SlotKey = usize;

/// How long a stack is considered current, in nanoseconds.
pub(super) const CURRENT: u64 = 1_000_000;
/// How long the holder of a worker is considered known, in nanoseconds, even if the thread has moved on in its poll.
pub(super) const RECENT: u64 = 50_000_000;
/// How many activities are kept in addition to recent ones.
const MAX_ACTIVITIES: usize = 64;

/// The outcome of looking at a thread.
pub(super) enum Look {
    /// What is known about it, and a note for the reader.
    Thread(ThreadEvidence, Option<String>),
    /// It has not answered yet because it was not running. It will.
    Late,
    /// The poll was over.
    Missed,
}

/// Captures stacks, and keeps each as long as others may need it.
pub(super) struct Stacks {
    sampler: Sampler,
    taken: HashMap<SlotKey, Taken>,
    activities: HashMap<i32, (u64, Activity)>,
    /// Threads that were in no watched poll.
    outside: HashMap<SlotKey, (u64, ThreadEvidence)>,
}

struct Taken {
    poll: u64,
    at: u64,
    /// The thread's CPU time, if it did not run during the capture.
    cpu: Option<u64>,
    thread: ThreadEvidence,
    note: Option<String>,
}

impl Taken {
    /// Returns whether it is at most `max_age` old, or the thread has not run since.
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
        Self { sampler, taken: HashMap::new(), activities: HashMap::new(), outside: HashMap::new() }
    }

    /// Returns the stack of the slot's thread in its poll number `poll`, at most `max_age` nanoseconds old. A `patient`
    /// caller asks again later where that helps.
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

    /// Returns what a thread does that is in no watched poll, and its stack. `None` if it is in one by now.
    pub(super) fn outside(&mut self, slot: &'static ThreadSlot) -> Option<ThreadEvidence> {
        let known = self.outside.get(&key(slot)).filter(|(at, _)| now().saturating_sub(*at) <= RECENT);
        if let Some((_, thread)) = known {
            return Some(thread.clone());
        }
        let (activity, snapshot) = self.sampler.capture_outside(slot)?;
        let thread = ThreadEvidence { activity, snapshot };
        self.outside.insert(key(slot), (now(), thread.clone()));
        Some(thread)
    }

    /// Returns what a thread is doing, or was doing just now.
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

    /// Drops the stacks of polls that are over.
    pub(super) fn forget_ended(&mut self, slots: &[&'static ThreadSlot]) {
        let now = now();
        self.outside.retain(|_, (at, _)| now.saturating_sub(*at) <= RECENT);
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
