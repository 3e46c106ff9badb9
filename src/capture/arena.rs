//! The memory for a traced poll's copies. It is ready before the poll, because nothing may be allocated during it.

use std::sync::Arc;

use super::dead_frames::DEPTH;
use super::snapshot::{Data, Origin, Registers, Snapshot};
use super::sys;

/// Room for the copies of one poll: 256 KiB per thread, allocated at the thread's first traced poll.
pub(super) const WORDS: usize = 32 * 1024;
/// The most branches of one poll. Further ones are counted as one that was cut.
pub(super) const STACKS: usize = 32;
/// How many spans are remembered with a stack.
pub(crate) const SPANS: usize = 16;

/// One copy in the arena.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) registers: Registers,
    pub(super) start: usize,
    pub(super) len: usize,
    pub(super) truncated: bool,
    pub(super) foreign: bool,
    pub(super) spans: [u64; SPANS],
}

/// What one traced poll left behind. Preallocated, and filled by the waker's callbacks.
#[derive(Debug)]
pub(crate) struct Arena {
    pub(super) words: Box<[u64]>,
    pub(super) used: usize,
    pub(super) heads: Box<[Head]>,
    pub(super) count: usize,
    /// Clones of the waker.
    pub(crate) clones: u32,
    /// Calls of `wake` during the poll, which yields and wants to go on.
    pub(crate) wakes: u32,
    /// Clones whose stack was not copied, because there was no room or they were made on another thread.
    pub(crate) lost: u32,
    /// The poll yielded: the list of what is woken next already has its waker.
    pub(crate) gave_way: bool,
    /// For this many clones, it is known whether they were made for that.
    settled: u32,
    /// Set if it holds only what a poll left on the stack. The number counts the forgotten ones up to then.
    pub(super) dead_frames: Option<u64>,
}

impl Arena {
    pub(crate) fn new() -> Self {
        let head = Head {
            registers: Registers::default(),
            start: 0,
            len: 0,
            truncated: false,
            foreign: false,
            spans: [0; SPANS],
        };
        Self {
            // Not zeros, because those would be pages that are only mapped at the first touch.
            words: vec![1; WORDS].into(),
            used: 0,
            heads: vec![head; STACKS].into(),
            count: 0,
            clones: 0,
            wakes: 0,
            lost: 0,
            gave_way: false,
            settled: 0,
            dead_frames: None,
        }
    }

    pub(super) fn reset(&mut self) {
        (self.used, self.count, self.clones, self.wakes, self.lost, self.dead_frames) = (0, 0, 0, 0, 0, None);
        (self.gave_way, self.settled) = (false, 0);
    }

    pub(super) fn count_event(&mut self, event: Event) {
        if self.dead_frames.is_some() {
            // It was of a part of the work. There is something better now.
            (self.used, self.count, self.dead_frames) = (0, 0, None);
        }
        match event {
            Event::Clone => self.clones += 1,
            Event::Wake => self.wakes += 1,
        }
    }

    /// Returns whether the waker was cloned since its clones were last settled.
    pub(crate) fn is_unsettled(&self) -> bool {
        self.clones > self.settled
    }

    /// Settles all clones up to now.
    pub(crate) fn settle(&mut self, gave_way: bool) {
        self.gave_way |= gave_way;
        self.settled = self.clones;
    }

    /// Returns whether there is any stack.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns how many stacks there are.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Returns one of them, to keep.
    pub(crate) fn stack(&self, stack: usize) -> Snapshot {
        self.snapshot(&self.heads[stack])
    }

    /// Returns the stacks, to keep.
    pub(crate) fn snapshots(&self) -> Vec<Snapshot> {
        self.heads[..self.count].iter().map(|head| self.snapshot(head)).collect()
    }

    fn snapshot(&self, head: &Head) -> Snapshot {
        let words: Arc<[u64]> = self.words[head.start..head.start + head.len].into();
        let origin = if self.dead_frames.is_some() { Origin::DeadFrames } else { Origin::Waker };
        let data = if sys::SUPPORTED { Data::Copied { registers: head.registers, words } } else { Data::Walked(words) };
        let spans = head.spans.iter().copied().take_while(|id| *id != 0).collect();
        Snapshot { origin, data, truncated: head.truncated, foreign: head.foreign, spans }
    }

    /// Returns a key that is equal for two polls if they waited at the same places, and only then: a hash of the return
    /// addresses of each stack. `None` if there is no stack.
    ///
    /// Where the frames aren't known, stale words may make two equal places differ, which costs a copy. They cannot make
    /// different places equal.
    pub(crate) fn key(&self, code: &std::ops::Range<u64>) -> Option<u64> {
        if self.dead_frames.is_some() {
            // Only what the poll itself has left, on a stack that was wiped before it. What is further up was there
            // before.
            return hash(&self.words[..self.used.min(DEPTH)], code);
        }
        // Branches may be polled in any order. Each has a hash, and the sum doesn't depend on the order.
        (0..self.count).filter_map(|stack| self.stack_key(stack, code)).reduce(u64::wrapping_add)
    }

    /// Does the same for one stack. If addresses were walked, all of them count.
    pub(crate) fn stack_key(&self, stack: usize, code: &std::ops::Range<u64>) -> Option<u64> {
        let head = &self.heads[stack];
        let words = &self.words[head.start..head.start + head.len];
        #[cfg(heeler_copies)]
        if !head.truncated
            && !head.foreign
            && let Some(key) = super::places::key(&head.registers, words)
        {
            return Some(key);
        }
        hash(words, code)
    }
}

/// Hashes the number of words, those that point into the code, and their positions. `None` if none points there.
fn hash(words: &[u64], code: &std::ops::Range<u64>) -> Option<u64> {
    let mut hash = words.len() as u64 ^ 0x9e37_79b9_7f4a_7c15;
    let mut found = false;
    for (position, word) in words.iter().enumerate() {
        if word.wrapping_sub(code.start) < code.end - code.start {
            hash = (hash.rotate_left(5) ^ word ^ (position as u64) << 48).wrapping_mul(0x517c_c1b7_2722_0a95);
            found = true;
        }
    }
    found.then_some(hash ^ hash >> 29)
}

/// The callback that copies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    Clone,
    Wake,
}
