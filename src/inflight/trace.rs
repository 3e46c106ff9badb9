//! What an armed request does: its waits by place, its polls, and what was not seen. Bounded, and kept with the row.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::capture::{Arena, Snapshot, code_range};

/// Different places that one request's record distinguishes; time at further ones counts as not observed.
const MAX_RECORDS: usize = 24;
/// Bytes of copied stacks that all records of the process may hold together.
const MAX_HELD: usize = 64 * 1024 * 1024;

/// A task that heeler has woken and that is polled within this time is not counted as kept waiting: 5 ms.
const SLUGGISH: u64 = 5_000_000;

static HELD: AtomicUsize = AtomicUsize::new(0);

/// What a pending poll waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitKind {
    /// Somebody has the waker.
    Waiting,
    /// It woke itself, or had used up tokio's budget.
    Yielding,
    /// Nobody has the waker.
    NoWaker,
}

/// The stacks of one wait, counted while anybody keeps them.
pub(crate) struct Stacks {
    pub(crate) list: Vec<Snapshot>,
    size: usize,
}

impl Stacks {
    fn new(list: Vec<Snapshot>) -> Self {
        let size = list.iter().map(Snapshot::size).sum();
        HELD.fetch_add(size, Ordering::Relaxed);
        Self { list, size }
    }
}

impl Drop for Stacks {
    fn drop(&mut self) {
        HELD.fetch_sub(self.size, Ordering::Relaxed);
    }
}

/// The waits at one place.
#[derive(Clone)]
pub(crate) struct WaitRecord {
    key: Option<u64>,
    pub(crate) kind: WaitKind,
    /// One a branch.
    pub(crate) stacks: Arc<Stacks>,
    pub(crate) waits: u32,
    pub(crate) nanos: u64,
    /// Branches whose stack was not copied.
    pub(crate) lost: u32,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Since then, at the place of that record, or at an unknown one.
    Waiting(Option<usize>, u64),
    /// Inside a poll since then.
    Polling(u64),
}

/// The record of one armed request. Times are nanoseconds of [`super::now`].
#[derive(Clone)]
pub(crate) struct Trace {
    phase: Phase,
    pub(crate) records: Vec<WaitRecord>,
    pub(crate) busy: u64,
    pub(crate) busy_polls: u32,
    pub(crate) longest: u64,
    /// Between heeler's waking the task and the poll that came of it, where that took long.
    pub(crate) runnable: u64,
    /// Since when heeler waits for a poll.
    asked: Option<u64>,
    /// Waits whose stacks were not kept: too many places, or the budget was used up.
    pub(crate) missed: u32,
    /// The next poll is to leave a copy of what it leaves on the stack.
    pub(crate) look_below: bool,
    /// The place of the last wait.
    pub(crate) last: Option<usize>,
    /// The span around the work, as of its first traced poll that was in one.
    #[cfg(feature = "otel")]
    pub(crate) span: Option<opentelemetry::Context>,
}

impl Trace {
    pub(crate) fn new(now: u64) -> Self {
        Self {
            phase: Phase::Waiting(None, now),
            records: Vec::new(),
            busy: 0,
            busy_polls: 0,
            longest: 0,
            runnable: 0,
            asked: None,
            missed: 0,
            look_below: false,
            last: None,
            #[cfg(feature = "otel")]
            span: None,
        }
    }

    /// A traced poll begins.
    pub(crate) fn begin_poll(&mut self, now: u64) {
        // If the last poll panicked, or the future is polled after it was ready, the time is nobody's.
        if matches!(self.phase, Phase::Waiting(..)) {
            self.end_wait(now);
        }
        self.asked = None;
        self.phase = Phase::Polling(now);
    }

    /// Counts a wait, and apart from it the time since heeler ended it by waking the task.
    fn end_wait(&mut self, now: u64) {
        let Phase::Waiting(record, since) = self.phase else { return };
        let asked = self.asked.filter(|asked| now.saturating_sub(*asked) >= SLUGGISH).map(|asked| asked.max(since));
        let until = asked.unwrap_or(now);
        self.runnable += now.saturating_sub(until);
        let waited = until.saturating_sub(since);
        if let Some(record) = record {
            self.records[record].nanos += waited;
        }
    }

    /// Heeler has woken the task. Returns since when it has been waiting for a poll.
    pub(crate) fn ask(&mut self, now: u64) -> u64 {
        *self.asked.get_or_insert(now)
    }

    /// A traced poll has returned `Pending`. With `forced`, it was heeler that had woken the task, and the stacks are kept
    /// whatever that costs: a report is waiting for them. Else `may_copy` is asked, once, if there is something to copy.
    pub(crate) fn end_poll(
        &mut self,
        now: u64,
        arena: &Arena,
        had_budget: bool,
        forced: bool,
        may_copy: impl FnOnce() -> bool,
    ) {
        if let Phase::Polling(since) = self.phase {
            self.count_poll(now.saturating_sub(since));
        }
        let kind = match (arena.wakes, arena.clones) {
            (0, 0) => WaitKind::NoWaker,
            (0, _) if had_budget => WaitKind::Waiting,
            _ => WaitKind::Yielding,
        };
        let before = self.last;
        let record = self.find_or_add(arena, kind, forced, may_copy);
        if let Some(index) = record {
            // A poll that heeler asked for does not end the wait that it looked at, though it may copy other stale words.
            if !(forced && before.is_some()) {
                self.records[index].waits += 1;
            }
        }
        self.last = record;
        self.phase = Phase::Waiting(record, now);
    }

    fn find_or_add(
        &mut self,
        arena: &Arena,
        kind: WaitKind,
        forced: bool,
        may_copy: impl FnOnce() -> bool,
    ) -> Option<usize> {
        let key = arena.key(&code_range());
        let same = |record: &WaitRecord| {
            let silent = kind == WaitKind::NoWaker && record.stacks.list.is_empty() == arena.is_empty();
            record.kind == kind && record.key == key && (key.is_some() || silent)
        };
        if let Some(index) = self.records.iter().position(same) {
            return Some(index);
        }
        if !forced && (self.records.len() >= MAX_RECORDS || HELD.load(Ordering::Relaxed) > MAX_HELD || !may_copy()) {
            self.missed += 1;
            return None;
        }
        let stacks = Arc::new(Stacks::new(arena.snapshots()));
        let record = WaitRecord { key, kind, stacks, waits: 0, nanos: 0, lost: arena.lost };
        if self.records.len() < MAX_RECORDS {
            self.records.push(record);
            return Some(self.records.len() - 1);
        }
        // Full: the place that matters least makes room. Its time was seen, but by then nobody can say where.
        let least = (0..self.records.len()).min_by_key(|index| self.records[*index].nanos)?;
        self.records[least] = record;
        self.missed += 1;
        Some(least)
    }

    /// Counts the time up to `now` as what is going on; for a copy of the record that a report is made from.
    pub(crate) fn close(&mut self, now: u64) {
        if let Phase::Polling(since) = self.phase {
            self.count_poll(now.saturating_sub(since));
        } else {
            self.end_wait(now);
        }
    }

    /// An untraced poll that was going on when the record began has ended. Nobody knows where it waits now.
    pub(crate) fn end_untraced(&mut self, now: u64) {
        if let Phase::Polling(since) = self.phase {
            self.count_poll(now.saturating_sub(since));
            self.phase = Phase::Waiting(None, now);
        }
    }

    fn count_poll(&mut self, nanos: u64) {
        self.busy += nanos;
        self.busy_polls += 1;
        self.longest = self.longest.max(nanos);
    }

    /// The poll that goes on began before the record did, or is not traced: it is one from here on.
    pub(crate) fn note_polling(&mut self, now: u64) {
        if let Phase::Waiting(None, _) = self.phase {
            self.phase = Phase::Polling(now);
        }
    }
}
