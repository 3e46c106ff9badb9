//! The tasks of one recording, and what they share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::log::Log;
use super::run::Inner;
use crate::capture::ThreadSlot;
use crate::capture::{Arena, Snapshot, code_range, process_number};
use crate::clock::now;
use crate::sync::lock_std;

/// The most different await stacks that a recording keeps. Further ones are counted as lost. Each takes some kilobytes
/// until it is unwound.
const MAX_STACKS: usize = 16_384;
/// The most polls that a recording logs one by one, at some 80 bytes each.
const MAX_POLLS: u64 = 1_000_000;
/// The most pieces of work that a recording distinguishes, at up to some hundred bytes each, not counting their polls.
const MAX_TASKS: usize = 65_536;

/// One recording.
pub(crate) struct Session {
    /// Unique.
    id: u64,
    /// The process that records. In a child of `fork`, nobody touches its locks.
    process: u32,
    /// Each of them refers to the session, so they are released at its end.
    recorders: Mutex<Vec<Arc<Inner>>>,
    /// The number of further pieces of work.
    unknown: AtomicU64,
    stacks: Mutex<Stacks>,
    /// Polls that are going on now.
    active: Mutex<Vec<Active>>,
    polls: AtomicU64,
    /// When it ended, or zero before.
    ended: AtomicU64,
}

#[derive(Default)]
struct Stacks {
    by_key: HashMap<u64, u32>,
    count: u32,
    /// Stacks that are not unwound yet, with their numbers.
    raw: Vec<(u32, Snapshot)>,
}

/// A task's poll that is going on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Active {
    pub(crate) recorder: u32,
    pub(crate) slot: &'static ThreadSlot,
    /// The number of the thread's outermost poll.
    pub(crate) sequence: u64,
    pub(crate) began: u64,
    /// The thread's CPU time at that moment.
    pub(crate) cpu: u64,
}

/// Where the recorded request is at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Inside a poll.
    Polling,
    /// At the await stack with that number.
    Waiting(u32),
    Unknown,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("polls", &self.polls).finish_non_exhaustive()
    }
}

impl Session {
    pub(crate) fn new() -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            process: process_number(),
            recorders: Mutex::default(),
            unknown: AtomicU64::new(0),
            stacks: Mutex::default(),
            active: Mutex::default(),
            polls: AtomicU64::new(0),
            ended: AtomicU64::new(0),
        })
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Adds a task with its number. Returns `None` if the session has ended or there are too many.
    pub(super) fn enter(&self, make: impl FnOnce(u32) -> Arc<Inner>) -> Option<Arc<Inner>> {
        if !self.is_own() {
            return None;
        }
        let mut recorders = lock_std(&self.recorders);
        // Under the lock, because ending the session takes the tasks afterwards.
        if self.has_ended() {
            return None;
        }
        if recorders.len() == MAX_TASKS {
            self.unknown.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let recorder = make(recorders.len() as u32);
        recorders.push(Arc::clone(&recorder));
        Some(recorder)
    }

    /// Returns how many pieces of work were too many to be distinguished.
    pub(crate) fn unknown(&self) -> u64 {
        self.unknown.load(Ordering::Relaxed)
    }

    pub(crate) fn polls(&self) -> u64 {
        self.polls.load(Ordering::Relaxed)
    }

    /// Ends the recording: no poll that begins from here on is logged. Returns when it ended.
    pub(crate) fn end(&self) -> u64 {
        let now = now().max(1);
        match self.ended.compare_exchange(0, now, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => now,
            Err(ended) => ended,
        }
    }

    /// Returns whether nothing is recorded any more, or not in this process.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire) != 0 || !self.is_own()
    }

    /// Returns whether it is of this process, and not of one that has forked this one.
    pub(crate) fn is_own(&self) -> bool {
        self.process == process_number()
    }

    /// Returns until when it lasts, as far as is known.
    pub(crate) fn until(&self) -> u64 {
        match self.ended.load(Ordering::Acquire) {
            0 => now(),
            ended => ended,
        }
    }

    /// Counts a poll. Returns whether it may be logged.
    pub(super) fn count_poll(&self) -> bool {
        self.polls.fetch_add(1, Ordering::Relaxed) < MAX_POLLS
    }

    pub(super) fn begin(&self, active: Active) {
        lock_std(&self.active).push(active);
    }

    pub(super) fn end_poll(&self, recorder: u32, began: u64) {
        lock_std(&self.active).retain(|active| (active.recorder, active.began) != (recorder, began));
    }

    /// Returns the polls that are going on now, one per thread.
    pub(crate) fn active(&self) -> Vec<Active> {
        lock_std(&self.active).clone()
    }

    /// Keeps the stacks that a poll has left. Appends their numbers to `numbers`, and returns how many were not kept.
    pub(super) fn keep(&self, arena: &Arena, numbers: &mut Vec<u32>) -> u32 {
        let code = code_range();
        let mut stacks = lock_std(&self.stacks);
        let mut lost = arena.lost;
        for stack in 0..arena.len() {
            let number = arena.stack_key(stack, &code).and_then(|key| {
                if let Some(number) = stacks.by_key.get(&key) {
                    return Some(*number);
                }
                if stacks.by_key.len() == MAX_STACKS {
                    return None;
                }
                let number = stacks.count;
                stacks.count += 1;
                stacks.by_key.insert(key, number);
                stacks.raw.push((number, arena.stack(stack)));
                Some(number)
            });
            lost += u32::from(number.is_none());
            numbers.push(number.unwrap_or(super::log::NONE));
        }
        lost
    }

    /// Returns the stacks that have not been unwound yet, with their numbers.
    pub(crate) fn take_raw(&self) -> Vec<(u32, Snapshot)> {
        std::mem::take(&mut lock_std(&self.stacks).raw)
    }

    /// Ends the recording and releases its tasks. Returns the log of each, beginning with the request's own.
    pub(crate) fn take_logs(&self) -> Vec<Log> {
        self.end();
        let recorders = std::mem::take(&mut *lock_std(&self.recorders));
        let logs = recorders.iter().map(|recorder| lock_std(&recorder.log).take()).collect();
        // Nothing looks up a stack any more.
        let known = std::mem::take(&mut lock_std(&self.stacks).by_key);
        drop(known);
        logs
    }

    /// Returns where the request itself is.
    pub(crate) fn place(&self) -> Place {
        let root = lock_std(&self.recorders).first().cloned();
        let Some(root) = root else { return Place::Unknown };
        let log = lock_std(&root.log);
        if log.polling.is_some() {
            return Place::Polling;
        }
        let wait = log.polls.last().map(|poll| poll.wait);
        let stack = wait.and_then(|wait| log.branches(&wait).iter().find(|stack| **stack != super::log::NONE).copied());
        stack.map_or(Place::Unknown, Place::Waiting)
    }
}
