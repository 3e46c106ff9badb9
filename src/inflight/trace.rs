//! The record of an armed request: its waits by place, its polls, and what was not observed. It is bounded, and kept
//! with the row.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::capture::{Arena, Snapshot};

/// How many different places one request's record distinguishes. Time at further ones counts as not observed.
const MAX_RECORDS: usize = 24;
/// How many bytes of copied stacks all records of the process may hold together.
const MAX_HELD: usize = 64 * 1024 * 1024;

/// A task that heeler has woken and that is polled within this time isn't counted as kept waiting. It is 5 ms.
const SLUGGISH: u64 = 5_000_000;

static HELD: AtomicUsize = AtomicUsize::new(0);

/// What a pending poll waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitKind {
    /// Somebody has the waker.
    Waiting,
    /// It woke itself, yielded through tokio, or had used up tokio's budget.
    Yielding,
    /// Nobody has the waker.
    NoWaker,
}

/// What is known about wakers if the last poll has left none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Silence {
    /// An earlier poll left one, and since then only heeler has woken the work. It is still registered, as far as can
    /// be known.
    Earlier,
    /// No poll has left one since the work was last woken.
    Never,
    /// A poll from before the record may have left one.
    Unknown,
}

/// The waker that was kept since something other than heeler last woke the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// Nobody has looked.
    Unknown,
    Nothing,
    /// At that record, if there is one.
    At(Option<usize>),
}

/// The stacks of one wait, counted while anything keeps them.
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
    /// Whether one of several branches yielded.
    pub(crate) gave_way: bool,
    /// One per branch.
    pub(crate) stacks: Arc<Stacks>,
    pub(crate) waits: u32,
    pub(crate) nanos: u64,
    /// The longest of the waits.
    pub(crate) longest: u64,
    /// Branches whose stack was not copied.
    pub(crate) lost: u32,
}

impl WaitRecord {
    /// Returns what tells this place from others, or `None` if nothing does.
    pub(crate) fn key(&self) -> Option<u64> {
        self.key
    }
}

#[cfg(test)]
impl WaitRecord {
    /// Creates a wait without stacks.
    pub(crate) fn without_stacks(kind: WaitKind, waits: u32, nanos: u64) -> Self {
        Self {
            key: None,
            kind,
            gave_way: false,
            stacks: Arc::new(Stacks::new(Vec::new())),
            waits,
            nanos,
            longest: 0,
            lost: 0,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Waiting since then, at the place of that record, or at an unknown one.
    Waiting(Option<usize>, u64),
    /// Inside a poll since then.
    Polling(u64),
}

/// The record of one armed request. Times are nanoseconds of [`now`](crate::clock::now).
///
/// Each time is read before the row is locked, on one of several threads, so they may come out of order. None is taken
/// to be before one that is already known. So what is recorded never adds up to more than has passed.
pub(crate) struct Trace {
    phase: Phase,
    /// Since when it has been at its place: woken only by heeler, and back there.
    since: u64,
    /// The latest of the times.
    latest: u64,
    kept: Kept,
    /// Whether heeler has asked for the poll that is going on, or comes next.
    heelers: bool,
    /// Whether the poll that is going on is within that of other traced work, which may poll all that it has at any time.
    pub(crate) is_within: bool,
    /// What is known about wakers after the last poll.
    pub(crate) silence: Option<Silence>,
    pub(crate) records: Vec<WaitRecord>,
    pub(crate) busy: u64,
    pub(crate) busy_polls: u32,
    pub(crate) longest: u64,
    /// The time between a wake by heeler and the poll that followed, if that was long.
    pub(crate) runnable: u64,
    /// Since when heeler has been waiting for a poll.
    asked: Option<u64>,
    /// Waits whose stacks were not kept, because there were too many places or the budget was used up.
    pub(crate) missed: u32,
    /// How often the work had been polled by the end of the last traced poll. If it has been polled since, it may be
    /// anywhere.
    pub(crate) polls: u32,
    /// Whether the next poll should leave a copy of what it leaves on the stack.
    pub(crate) look_below: bool,
    /// The place of the last wait.
    last: Option<usize>,
    /// The place shown by a poll that heeler asked for, until it asks for another.
    answer: Option<usize>,
    /// The span around the work, from its first traced poll that was in one.
    #[cfg(feature = "otel")]
    pub(crate) span: Option<opentelemetry::Context>,
}

impl Trace {
    /// Creates a record. `was_polled` says whether the work was polled before.
    pub(crate) fn new(now: u64, was_polled: bool) -> Self {
        Self {
            phase: Phase::Waiting(None, now),
            since: now,
            latest: now,
            kept: if was_polled { Kept::Unknown } else { Kept::Nothing },
            heelers: false,
            is_within: false,
            silence: None,
            records: Vec::new(),
            busy: 0,
            busy_polls: 0,
            longest: 0,
            runnable: 0,
            asked: None,
            missed: 0,
            polls: 0,
            look_below: false,
            last: None,
            answer: None,
            #[cfg(feature = "otel")]
            span: None,
        }
    }

    /// Returns a copy without the span. The end of a span is other people's code, which should run where the work ends.
    pub(crate) fn copy(&self) -> Self {
        Self {
            records: self.records.clone(),
            #[cfg(feature = "otel")]
            span: None,
            ..*self
        }
    }

    /// Returns the time, but never one before the last known time.
    fn advance(&mut self, now: u64) -> u64 {
        self.latest = self.latest.max(now);
        self.latest
    }

    /// Returns the last time that is known.
    pub(crate) fn latest(&self) -> u64 {
        self.latest
    }

    /// Begins a traced poll. `within` means within another one, which heeler may have asked for.
    pub(crate) fn begin_poll(&mut self, now: u64, within: bool) {
        let now = self.advance(now);
        self.heelers |= within || self.asked.is_some();
        // If the last poll panicked, or the future is polled after it was ready, the time counts nowhere.
        if matches!(self.phase, Phase::Waiting(..)) {
            self.end_wait(now);
        }
        self.asked = None;
        self.phase = Phase::Polling(now);
    }

    /// Counts a wait, and separately the time since heeler ended it by waking the task.
    fn end_wait(&mut self, now: u64) {
        let Phase::Waiting(record, since) = self.phase else { return };
        let asked = self.asked.filter(|asked| now.saturating_sub(*asked) >= SLUGGISH).map(|asked| asked.max(since));
        let until = asked.unwrap_or(now);
        self.runnable += now.saturating_sub(until);
        let waited = until.saturating_sub(since);
        if let Some(record) = record {
            let record = &mut self.records[record];
            record.nanos += waited;
            // Since it came there, though it may have been polled in between.
            record.longest = record.longest.max(waited).max(until.saturating_sub(self.since));
        }
    }

    /// Notes that heeler has woken the task. Returns since when heeler has been waiting for a poll.
    pub(crate) fn ask(&mut self, now: u64) -> u64 {
        let now = self.advance(now);
        self.answer = None;
        *self.asked.get_or_insert(now)
    }

    /// Returns since when the work has been where it is, and the record of where it waits: `None` while it is inside a
    /// poll, and `Some(None)` if that place isn't known.
    pub(crate) fn standing(&self) -> (u64, Option<Option<usize>>) {
        match self.phase {
            Phase::Polling(since) => (since, None),
            Phase::Waiting(..) => (self.since, Some(self.current())),
        }
    }

    /// Returns where it waits. That is the place of the last poll. If that was not kept because the work is polled all
    /// the time, it is the place of the poll that was asked for.
    pub(crate) fn current(&self) -> Option<usize> {
        self.last.or(self.answer)
    }

    /// Returns whether a poll that waits at the place with that key yields. `None` means that this has to be found out,
    /// because the place is new and there is room for it.
    pub(crate) fn gives_way_at(&self, key: Option<u64>, forced: bool) -> Option<bool> {
        let is_there = |record: &&WaitRecord| key.is_some() && record.key == key && record.kind != WaitKind::NoWaker;
        match self.records.iter().find(is_there) {
            Some(record) => Some(record.gave_way),
            None => (self.records.len() >= MAX_RECORDS && !forced).then_some(false),
        }
    }

    /// Ends a traced poll that has returned `Pending`. With `forced`, heeler had woken the task, and the stacks are
    /// kept at any cost because a report is waiting for them. Otherwise `may_copy` is called once if there is something
    /// to copy. `key` is the key of the arena's stacks.
    pub(crate) fn end_poll(
        &mut self,
        now: u64,
        arena: &Arena,
        key: Option<u64>,
        had_budget: bool,
        forced: bool,
        may_copy: impl FnOnce() -> bool,
    ) {
        let now = self.advance(now);
        if let Phase::Polling(since) = self.phase {
            self.count_poll(now.saturating_sub(since));
        }
        let kind = match (arena.wakes, arena.clones) {
            (0, 0) => WaitKind::NoWaker,
            // It is the only branch.
            (0, 1) if arena.gave_way => WaitKind::Yielding,
            (0, _) if had_budget => WaitKind::Waiting,
            _ => WaitKind::Yielding,
        };
        let is_look = std::mem::take(&mut self.heelers) || forced;
        if !is_look {
            // What woke it has used up the waker that was kept.
            self.kept = Kept::Nothing;
        }
        self.silence = (kind == WaitKind::NoWaker).then_some(match self.kept {
            Kept::At(_) => Silence::Earlier,
            Kept::Nothing => Silence::Never,
            Kept::Unknown => Silence::Unknown,
        });
        if let (WaitKind::NoWaker, Kept::At(Some(index))) = (kind, self.kept) {
            // The look found nothing. It waits for what it has waited for before.
            self.last = Some(index);
            self.phase = Phase::Waiting(self.last, now);
            return;
        }
        let before = self.last;
        let record = self.find_or_add(arena, (kind, key), forced, may_copy);
        if let Some(index) = record {
            // A poll that heeler asked for does not end the wait that it looked at, though it may copy other stale
            // words. Neither does one that comes from the work around, whatever was woken there.
            if !(forced && before.is_some() || self.is_within && before == Some(index)) {
                self.records[index].waits += 1;
            }
        }
        match kind {
            WaitKind::Waiting => self.kept = Kept::At(record),
            // Its own wake-up uses up one waker, but others may be kept.
            WaitKind::Yielding => self.kept = Kept::Unknown,
            WaitKind::NoWaker => {}
        }
        if !(is_look || self.is_within && before == record) {
            // Something else has woken it: it has moved, even if only to the same place again.
            self.since = now;
        }
        self.last = record;
        if forced {
            self.answer = record;
        }
        self.phase = Phase::Waiting(record, now);
    }

    /// Ends a traced poll that has returned `Pending` without keeping a waker, because the leaf has one from an earlier
    /// poll and has seen that this one is the same. So it waits where it did.
    pub(crate) fn go_on_waiting(&mut self, now: u64) {
        let now = self.advance(now);
        if let Phase::Polling(since) = self.phase {
            self.count_poll(now.saturating_sub(since));
        }
        self.last = self.last.filter(|last| self.records[*last].kind == WaitKind::Waiting);
        (self.kept, self.heelers, self.silence) = (Kept::At(self.last), false, Some(Silence::Earlier));
        self.phase = Phase::Waiting(self.last, now);
    }

    fn find_or_add(
        &mut self,
        arena: &Arena,
        (kind, key): (WaitKind, Option<u64>),
        forced: bool,
        may_copy: impl FnOnce() -> bool,
    ) -> Option<usize> {
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
        let record = WaitRecord {
            key,
            kind,
            gave_way: arena.gave_way,
            stacks,
            waits: 0,
            nanos: 0,
            longest: 0,
            lost: arena.lost,
        };
        if self.records.len() < MAX_RECORDS {
            self.records.push(record);
            return Some(self.records.len() - 1);
        }
        // The list is full, so the place that matters least makes room. Its time was observed, but it is no longer
        // known where.
        let least = (0..self.records.len()).min_by_key(|index| self.records[*index].nanos)?;
        self.records[least] = record;
        if self.kept == Kept::At(Some(least)) {
            self.kept = Kept::At(None);
        }
        self.answer = self.answer.filter(|answer| *answer != least);
        self.missed += 1;
        Some(least)
    }

    /// Counts the time up to `now` as what is going on, in a copy of the record that a report is made from.
    pub(crate) fn close(&mut self, now: u64) {
        let now = self.advance(now);
        if let Phase::Polling(since) = self.phase {
            self.count_poll(now.saturating_sub(since));
        } else {
            self.end_wait(now);
        }
    }

    /// Ends an untraced poll that was going on when the record began. It is unknown where it waits now, so heeler asks
    /// for another one.
    pub(crate) fn end_untraced(&mut self, now: u64) {
        let now = self.advance(now);
        (self.kept, self.heelers) = (Kept::Unknown, true);
        if let Phase::Polling(since) = self.phase {
            self.count_poll(now.saturating_sub(since));
            self.phase = Phase::Waiting(None, now);
            self.since = now;
        }
    }

    fn count_poll(&mut self, nanos: u64) {
        self.busy += nanos;
        self.busy_polls += 1;
        self.longest = self.longest.max(nanos);
    }

    /// Notes that the work is inside a poll. It counts from here on, because it began before the record did, or isn't
    /// traced.
    pub(crate) fn note_polling(&mut self, now: u64) {
        let now = self.advance(now);
        if let Phase::Waiting(None, _) = self.phase {
            self.phase = Phase::Polling(now);
        }
    }
}

#[cfg(all(test, not(heeler_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::capture::Arena;

    /// Returns an arena as after a poll with so many clones and wake-ups.
    fn arena(clones: u32, wakes: u32) -> Arena {
        let mut arena = Arena::new();
        (arena.clones, arena.wakes) = (clones, wakes);
        arena
    }

    fn poll(trace: &mut Trace, now: u64, clones: u32, forced: bool) {
        trace.begin_poll(now, false);
        trace.end_poll(now, &arena(clones, 0), None, true, forced, || true);
    }

    fn total(trace: &Trace) -> u64 {
        trace.busy + trace.runnable + trace.records.iter().map(|record| record.nanos).sum::<u64>()
    }

    #[derive(Debug, Clone, Copy)]
    enum Event {
        Begin { within: bool },
        End { clones: u32, wakes: u32, had_budget: bool, forced: bool, may_copy: bool },
        Ask,
        EndUntraced,
        NotePolling,
    }

    fn event() -> impl Strategy<Value = Event> {
        let end =
            (0..3_u32, 0..2_u32, any::<[bool; 3]>()).prop_map(|(clones, wakes, [had_budget, forced, may_copy])| {
                Event::End { clones, wakes, had_budget, forced, may_copy }
            });
        prop_oneof![
            any::<bool>().prop_map(|within| Event::Begin { within }),
            end,
            Just(Event::Ask),
            Just(Event::EndUntraced),
            Just(Event::NotePolling),
        ]
    }

    proptest! {
        /// Guards: no more time is recorded than has passed, whatever happens in whatever order, and in whatever order
        /// its times were read. Each moment of polls and of waits at known places is recorded.
        #[test]
        fn never_records_more_than_has_passed(events in prop::collection::vec((event(), 0..60_000_000_u64), 0..40), end in any::<u32>()) {
            let began = 20_000_000;
            let mut trace = Trace::new(began, true);
            let mut shared = Arena::new();
            for (event, at) in events {
                match event {
                    Event::Begin { within } => trace.begin_poll(at, within),
                    Event::End { clones, wakes, had_budget, forced, may_copy } => {
                        (shared.clones, shared.wakes) = (clones, wakes);
                        trace.end_poll(at, &shared, None, had_budget, forced, || may_copy);
                    }
                    Event::Ask => drop(trace.ask(at)),
                    Event::EndUntraced => trace.end_untraced(at),
                    Event::NotePolling => trace.note_polling(at),
                }
                // As a report does, at any time.
                let mut closed = trace.copy();
                closed.close(u64::from(end));
                prop_assert!(closed.latest() >= u64::from(end));
                prop_assert!(total(&closed) <= closed.latest() - began, "{} of {}", total(&closed), closed.latest() - began);
            }
        }
    }

    /// Guards: all of the time is accounted for if nothing was missed.
    #[test]
    fn recorded_times_sum_to_the_whole() {
        let mut trace = Trace::new(0, false);
        trace.begin_poll(0, false);
        trace.end_poll(3, &arena(1, 0), None, true, false, || true);
        trace.ask(10);
        trace.begin_poll(10 + SLUGGISH, false);
        // Read before the other thread's, and applied after it.
        trace.end_poll(9, &arena(0, 1), None, true, false, || true);
        trace.close(SLUGGISH + 50);
        assert_eq!((trace.busy, trace.runnable), (3, SLUGGISH));
        assert_eq!(total(&trace), SLUGGISH + 50);
    }

    /// Guards: a poll that leaves no waker means nothing if an earlier one did, and only heeler has asked since.
    #[test]
    fn an_earlier_waker_still_counts() {
        let mut trace = Trace::new(0, false);
        poll(&mut trace, 1, 1, false);
        let (place, records) = (trace.last, trace.records.len());
        for now in 2..5 {
            trace.ask(now);
            poll(&mut trace, now, 0, true);
            assert_eq!(trace.silence, Some(Silence::Earlier));
            assert_eq!((trace.last, trace.records.len()), (place, records), "it still waits where it did");
        }
        trace.close(100);
        assert_eq!(trace.records[place.unwrap()].nanos, 99);
    }

    #[test]
    fn a_wake_from_outside_uses_the_waker_up() {
        let mut trace = Trace::new(0, false);
        poll(&mut trace, 1, 1, false);
        poll(&mut trace, 2, 0, false);
        assert_eq!(trace.silence, Some(Silence::Never));
        trace.ask(3);
        poll(&mut trace, 3, 0, true);
        assert_eq!(trace.silence, Some(Silence::Never));
        assert_eq!(trace.records[trace.last.unwrap()].kind, WaitKind::NoWaker);
        poll(&mut trace, 4, 1, true);
        assert_eq!(trace.silence, None);
    }

    /// Guards: what happened before the record is unknown, and is not taken for known.
    #[test]
    fn a_waker_from_before_the_record_is_unknown() {
        let mut trace = Trace::new(0, true);
        trace.ask(1);
        poll(&mut trace, 1, 0, true);
        assert_eq!(trace.silence, Some(Silence::Unknown));
        let mut trace = Trace::new(0, false);
        poll(&mut trace, 1, 0, false);
        trace.note_polling(2);
        trace.end_untraced(2);
        poll(&mut trace, 3, 0, false);
        assert_eq!(trace.silence, Some(Silence::Unknown), "the poll after an untraced one is heeler's");
        let mut trace = Trace::new(0, false);
        trace.begin_poll(1, true);
        trace.end_poll(1, &arena(1, 0), None, true, false, || true);
        trace.begin_poll(2, true);
        trace.end_poll(2, &arena(0, 0), None, true, false, || true);
        assert_eq!(trace.silence, Some(Silence::Earlier), "the traced poll around it may be heeler's");
    }

    /// Guards: work that is polled all the time, at more places than are kept, is where the requested poll found it.
    #[test]
    fn a_probed_place_outlasts_later_polls() {
        let mut trace = Trace::new(0, false);
        let poll_at = |trace: &mut Trace, key: u64, forced: bool| {
            trace.begin_poll(key, false);
            trace.end_poll(key, &arena(1, 0), Some(key), true, forced, || true);
        };
        let places = MAX_RECORDS as u64;
        (0..places).for_each(|key| poll_at(&mut trace, key, false));
        poll_at(&mut trace, places, false);
        assert_eq!((trace.missed, trace.current()), (1, None));
        trace.ask(places);
        poll_at(&mut trace, places + 1, true);
        let answer = trace.current().unwrap();
        assert_eq!(trace.records[answer].key, Some(places + 1));
        poll_at(&mut trace, places + 2, false);
        assert_eq!((trace.missed, trace.current()), (3, Some(answer)));
        poll_at(&mut trace, places + 1, false);
        assert_eq!(trace.current(), Some(answer), "it is known");
        trace.ask(places + 3);
        poll_at(&mut trace, places + 4, false);
        assert_eq!(trace.current(), None, "another poll is asked for");
    }

    /// Guards: tokio's list is checked once per place.
    #[test]
    fn a_yielding_place_is_remembered() {
        let mut trace = Trace::new(0, false);
        for (key, clones, gave_way, kind) in
            [(1, 1, true, WaitKind::Yielding), (2, 2, true, WaitKind::Waiting), (3, 1, false, WaitKind::Waiting)]
        {
            assert_eq!(trace.gives_way_at(Some(key), false), None);
            let mut arena = arena(clones, 0);
            arena.settle(gave_way);
            trace.begin_poll(key, false);
            trace.end_poll(key, &arena, Some(key), true, false, || true);
            assert_eq!(trace.gives_way_at(Some(key), false), Some(gave_way));
            assert_eq!(trace.records[trace.current().unwrap()].kind, kind);
        }
        assert_eq!(trace.gives_way_at(None, false), None);
    }
}
