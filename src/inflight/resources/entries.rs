//! The entries' memory. A thread keeps the ones that it has freed, so that taking and releasing an uncontended lock
//! touches nothing that another worker touches, and allocates nothing.

use std::cell::{Cell, RefCell};
use std::panic::Location;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::{Entry, Mode, ResourceId, Wait};
use crate::capture::{MAX_PROCESSES, PerProcess, RowId, process_number, sys};
use crate::clock::Clock;
use crate::disabled::is_disabled;
use crate::inflight::{current_row, table, work_of};
use crate::log::{TARGET, log_safely};
use crate::sync::{RowLock, keep, lock, lock_std, try_lock};

/// How many waits and holds a process tracks at a time. What is beyond them runs untracked.
const MAX: usize = 1 << 20;
/// How many slots move at once between a thread's list and the common one, and are made at once.
const BATCH: usize = 32;

/// The place of one entry. It is used again and again, and never given back.
struct Slot {
    process: u32,
    entry: RowLock<Option<Entry>>,
}

#[derive(Default)]
struct Slots {
    all: Mutex<Vec<&'static [Slot]>>,
    free: Mutex<Vec<&'static Slot>>,
    made: AtomicUsize,
}

static SLOTS: PerProcess<Slots> = PerProcess::new(Slots::default);
/// How many entries are waits. While it is zero, nobody has to look for one.
static WAITS: AtomicUsize = AtomicUsize::new(0);

/// A thread's own free slots. They go back when the thread ends.
struct Spare(RefCell<Vec<&'static Slot>>);

impl Drop for Spare {
    fn drop(&mut self) {
        let mut slots = self.0.take();
        slots.retain(|slot| slot.process == process_number());
        if !slots.is_empty() {
            lock_std(&SLOTS.get().free).append(&mut slots);
        }
    }
}

thread_local! {
    static SPARE: Spare = const { Spare(RefCell::new(Vec::new())) };
}

/// Returns the kernel's id of this thread, which is asked for once a thread.
fn thread_id() -> i32 {
    thread_local! {
        static KNOWN: Cell<(u32, i32)> = const { Cell::new((u32::MAX, 0)) };
    }
    let (process, known) = KNOWN.get();
    if process == process_number() {
        return known;
    }
    let id = sys::thread_id();
    KNOWN.set((process_number(), id));
    id
}

fn allocate() -> Option<&'static Slot> {
    let own = SPARE.try_with(|spare| spare.0.borrow_mut().pop()).ok().flatten();
    // The slots of a parent process stay where they are.
    own.filter(|slot| slot.process == process_number()).or_else(refill)
}

#[cold]
#[inline(never)]
fn refill() -> Option<&'static Slot> {
    // The last process number may be shared by several processes, so it takes no lock of theirs.
    if is_disabled() || process_number() as usize == MAX_PROCESSES {
        return None;
    }
    let slots = SLOTS.get();
    let mut batch = {
        let mut free = lock_std(&slots.free);
        let rest = free.len().saturating_sub(BATCH);
        free.split_off(rest)
    };
    if batch.is_empty() {
        batch.extend(make(slots)?);
    }
    let slot = batch.pop();
    let kept = SPARE.try_with(|spare| {
        let mut spare = spare.0.borrow_mut();
        // After a fork they are the parent's.
        spare.retain(|slot| slot.process == process_number());
        spare.append(&mut batch);
    });
    if kept.is_err() {
        lock_std(&slots.free).append(&mut batch);
    }
    slot
}

fn make(slots: &Slots) -> Option<&'static [Slot]> {
    let made = slots.made.fetch_add(BATCH, Ordering::Relaxed);
    if made >= MAX {
        slots.made.fetch_sub(BATCH, Ordering::Relaxed);
        if made == MAX {
            log_safely(|| {
                tracing::error!(target: TARGET, limit = MAX, "more resources are held than heeler keeps track of");
            });
        }
        return None;
    }
    let process = process_number();
    let more: &'static [Slot] =
        keep((0..BATCH).map(|_| Slot { process, entry: RowLock::new(None) }).collect::<Box<[Slot]>>());
    lock_std(&slots.all).push(more);
    Some(more)
}

fn free(slot: &'static Slot) {
    let kept = SPARE.try_with(|spare| {
        let mut spare = spare.0.borrow_mut();
        spare.push(slot);
        if spare.len() > 2 * BATCH {
            let rest = spare.split_off(BATCH);
            lock_std(&SLOTS.get().free).extend(rest);
        }
    });
    if kept.is_err() {
        lock_std(&SLOTS.get().free).push(slot);
    }
}

/// A wait or a hold: one entry, until it is dropped.
pub(crate) struct Claim(&'static Slot);

impl Claim {
    /// Begins to wait, on a thread that `blocks` or in a poll that is pending. Returns `None` if it can't be tracked.
    pub(crate) fn wait(resource: ResourceId, mode: Mode, at: &'static Location<'static>, blocks: bool) -> Option<Self> {
        static TURN: AtomicU64 = AtomicU64::new(0);
        let turn = TURN.fetch_add(1, Ordering::Relaxed);
        let claim = Self::new(resource, mode, at, |work| Some(Wait { turn, polled_in: polls(work), blocks }))?;
        WAITS.fetch_add(1, Ordering::Relaxed);
        Some(claim)
    }

    /// Begins to hold. Returns `None` if it can't be tracked.
    #[inline]
    pub(crate) fn hold(resource: ResourceId, mode: Mode, at: &'static Location<'static>) -> Option<Self> {
        Self::new(resource, mode, at, |_| None)
    }

    #[inline]
    fn new(
        resource: ResourceId,
        mode: Mode,
        at: &'static Location<'static>,
        wait: impl FnOnce(RowId) -> Option<Wait>,
    ) -> Option<Self> {
        let slot = allocate()?;
        // What it is a part of now: a box may end while something that was taken in it is still held.
        let work = work_of(current_row());
        let thread = if work == RowId::NONE { Some(thread_id()) } else { None };
        let entry = Entry { resource, mode, work, thread, at, since: Clock::get().ticks(), wait: wait(work) };
        *lock(&slot.entry) = Some(entry);
        Some(Self(slot))
    }

    /// Notes that the wait is polled: its task has not forgotten it.
    pub(crate) fn polled(&self) {
        if let Some(entry) = lock(&self.0.entry).as_mut()
            && let Some(wait) = &mut entry.wait
        {
            wait.polled_in = polls(entry.work);
        }
    }

    /// Turns the wait into a hold that begins now.
    pub(crate) fn take(&self) {
        if let Some(entry) = lock(&self.0.entry).as_mut() {
            entry.since = Clock::get().ticks();
            if entry.wait.take().is_some() {
                WAITS.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn entry(&self) -> Option<Entry> {
        *lock(&self.0.entry)
    }
}

/// Returns the number of the poll that the work is in, or was in last.
fn polls(work: RowId) -> u32 {
    table().row(work).map_or(0, crate::inflight::Row::polls)
}

impl Drop for Claim {
    #[inline]
    fn drop(&mut self) {
        // A parent's slot may be locked for ever.
        if self.0.process != process_number() {
            return;
        }
        let entry = lock(&self.0.entry).take();
        if entry.is_some_and(|entry| entry.wait.is_some()) {
            WAITS.fetch_sub(1, Ordering::Relaxed);
        }
        free(self.0);
    }
}

impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claim").finish_non_exhaustive()
    }
}

/// All waits and holds at one moment.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) entries: Vec<Entry>,
}

/// Returns all waits and holds, or nothing if nothing waits.
pub(crate) fn snapshot() -> Snapshot {
    if WAITS.load(Ordering::Relaxed) == 0 { Snapshot::default() } else { whole_snapshot() }
}

/// Returns all waits and holds, also if nothing waits.
pub(crate) fn whole_snapshot() -> Snapshot {
    let Some(slots) = SLOTS.existing() else { return Snapshot::default() };
    let all = lock_std(&slots.all).clone();
    let entries = all.into_iter().flatten().filter_map(|slot| *try_lock(&slot.entry)?).collect();
    Snapshot { entries }
}

#[cfg(all(test, not(heeler_loom)))]
mod tests {
    use super::*;

    fn of(name: &'static str) -> Vec<Entry> {
        // Other tests may have nothing that waits.
        let _one = Claim::wait("a wait of its own".into(), Mode::Exclusive, Location::caller(), false);
        snapshot().entries.into_iter().filter(|entry| entry.resource == name.into()).collect()
    }

    /// Guards: an entry is there as long as its claim, on whichever thread that ends, and its slot is used again.
    #[test]
    fn an_entry_lasts_as_long_as_its_claim() {
        const NAME: &str = "an_entry_lasts_as_long_as_its_claim";
        let claim = Claim::wait(NAME.into(), Mode::Shared, Location::caller(), false).unwrap();
        let waits = of(NAME);
        assert!(waits.len() == 1 && waits[0].wait.is_some() && waits[0].thread.is_some(), "{waits:?}");
        claim.take();
        let holds = of(NAME);
        assert!(holds.len() == 1 && holds[0].wait.is_none() && holds[0].since >= waits[0].since, "{holds:?}");
        std::thread::spawn(move || drop(claim)).join().unwrap();
        assert!(of(NAME).is_empty());
        let many: Vec<_> = (0..200).map(|_| Claim::hold(NAME.into(), Mode::Exclusive, Location::caller())).collect();
        assert_eq!(of(NAME).len(), many.len());
        let made = SLOTS.get().made.load(Ordering::Relaxed);
        drop(many);
        let again: Vec<_> = (0..200).map(|_| Claim::hold(NAME.into(), Mode::Exclusive, Location::caller())).collect();
        assert_eq!(of(NAME).len(), again.len());
        // Other tests run beside this one.
        assert!(SLOTS.get().made.load(Ordering::Relaxed) < made + 200);
    }
}
