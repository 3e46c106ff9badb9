//! A slot for each thread that polls watched work. It says which row the thread polls, since which poll, and down to
//! which address its stack belongs to that poll.
//!
//! Only the thread itself writes its slot while it lives. The monitor reads it, and so does the signal handler, which
//! runs on the thread and so sees what the thread wrote.

use std::cell::Cell;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::{RowId, RuntimeId};
use crate::capture::{self, PerProcess, sys};
use crate::sync::lock_std;

/// A poll and its thread, as a row remembers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Poller(u64);

const IN_POLL: u64 = 1 << 63;
const SEQUENCE_BITS: u32 = 40;
const SEQUENCE: u64 = (1 << SEQUENCE_BITS) - 1;

impl Poller {
    #[inline]
    const fn new(slot: &ThreadSlot, sequence: u64) -> Self {
        Self(slot.poller | sequence & SEQUENCE)
    }

    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(crate) const fn to_bits(self) -> u64 {
        self.0
    }

    /// Returns whether the poll is still going on.
    #[inline]
    pub(crate) const fn is_polling(self) -> bool {
        self.0 & IN_POLL != 0
    }

    /// Returns whether there was any poll.
    pub(crate) const fn has_polled(self) -> bool {
        self.0 != 0
    }

    #[inline]
    pub(crate) const fn ended(self) -> Self {
        Self(self.0 & !IN_POLL)
    }

    /// Returns the thread that polls, or did last.
    pub(crate) fn slot(self) -> Option<&'static ThreadSlot> {
        let index = (self.0 & !IN_POLL) >> SEQUENCE_BITS;
        lock_std(SLOTS.get()).get((index as usize).checked_sub(1)?).copied()
    }
}

/// What one thread polls now. It is recycled when the thread ends, and never freed.
#[repr(align(128))]
#[derive(Debug)]
pub(crate) struct ThreadSlot {
    /// The innermost watched work that the thread polls.
    current: AtomicU64,
    /// The outermost.
    outer: AtomicU64,
    /// How many outermost polls have begun.
    sequence: AtomicU64,
    /// An address in the frame of the outermost poll: where copies of the stack end.
    frame: AtomicUsize,
    /// The addresses of the thread's stack.
    stack: [AtomicUsize; 2],
    /// The poll that was signalled on a stack that isn't the thread's own, and is not signalled again.
    foreign: AtomicU64,
    /// The part of a [`Poller`] that is the same for all its polls.
    poller: u64,
    /// How many boxes its threads have opened. Written only by the thread.
    boxes: AtomicU64,
    /// How many of them, in addition, share the row of a request.
    shared_boxes: AtomicU64,
    /// The process that the thread belongs to, as [`capture::process_number`] counts.
    process: u32,
    #[cfg(feature = "spans")]
    pub(crate) spans: super::SpanStack,
    /// Held while a signal is sent, so that the thread cannot end during that.
    life: Mutex<Option<Life>>,
}

/// What is known about a living thread.
#[derive(Debug, Clone)]
pub(crate) struct Life {
    pub(crate) tid: i32,
    /// The addresses of its stack.
    pub(crate) stack: Range<usize>,
    /// Whether its alternate stack has room for the signal handler.
    #[cfg_attr(not(heeler_copies), allow(dead_code, reason = "nobody is signalled"))]
    pub(crate) may_be_signalled: bool,
    /// The tokio runtime it belonged to when it first polled watched work.
    pub(crate) runtime: Option<RuntimeId>,
}

static SLOTS: PerProcess<Mutex<Vec<&'static ThreadSlot>>> = PerProcess::new(Mutex::default);

/// Returns all slots, including those of threads that have ended.
pub(crate) fn slots() -> Vec<&'static ThreadSlot> {
    lock_std(SLOTS.get()).clone()
}

/// Frees the slot when its thread ends, and takes back what was set up for its signals.
struct Release(Cell<Option<(&'static ThreadSlot, sys::SignalStack)>>);

impl Drop for Release {
    fn drop(&mut self) {
        ENDED.set(true);
        SLOT.set(None);
        let taken = self.0.take();
        // A parent's slot stays as it is, because a thread that doesn't exist here may hold its lock.
        if let Some((slot, signal_stack)) = taken.filter(|(slot, _)| slot.process == capture::process_number()) {
            slot.current.store(0, Ordering::Relaxed);
            // Waits for a signal that is being sent. None is sent afterwards.
            *lock_std(&slot.life) = None;
            drop(signal_stack);
        }
    }
}

thread_local! {
    // Two cells, because a cell without a destructor costs no check at each access.
    static SLOT: Cell<Option<&'static ThreadSlot>> = const { Cell::new(None) };
    static ENDED: Cell<bool> = const { Cell::new(false) };
    static RELEASE: Release = const { Release(Cell::new(None)) };
}

impl ThreadSlot {
    /// Returns this thread's slot, or `None` once the thread is ending.
    #[inline]
    pub(crate) fn mine() -> Option<&'static Self> {
        SLOT.get().or_else(Self::register)
    }

    /// Returns this thread's slot if it has ever polled watched work.
    #[inline]
    pub(crate) fn existing() -> Option<&'static Self> {
        SLOT.get()
    }

    /// Returns this thread's slot, to poll work of that process in. `None` once the thread is ending, and in a child of
    /// `fork` for the parent's work.
    #[inline]
    pub(crate) fn in_process(process: u32) -> Option<&'static Self> {
        let slot = Self::mine()?;
        if slot.process == process { Some(slot) } else { Self::after_fork(process) }
    }

    /// The thread that called `fork` has the slot of the parent's thread.
    #[cold]
    #[inline(never)]
    fn after_fork(process: u32) -> Option<&'static Self> {
        if process == capture::process_number() { Self::register() } else { None }
    }

    /// Begins a poll of that work. `frame` is an address in the frame of what polls it. Returns which poll it is, and
    /// what to pass to [`ThreadSlot::leave`].
    #[inline]
    pub(crate) fn enter(&self, id: RowId, frame: usize) -> (Poller, RowId) {
        let outer = self.current();
        let mut sequence = self.sequence.load(Ordering::Relaxed);
        if outer == RowId::NONE {
            sequence += 1;
            self.frame.store(frame, Ordering::Relaxed);
            self.outer.store(id.to_bits(), Ordering::Relaxed);
            self.sequence.store(sequence, Ordering::Release);
        }
        self.current.store(id.to_bits(), Ordering::Release);
        (Poller::new(self, sequence), outer)
    }

    /// Ends the poll. The thread then polls what it polled before.
    #[inline]
    pub(crate) fn leave(&self, outer: RowId) {
        self.current.store(outer.to_bits(), Ordering::Release);
    }

    #[cold]
    #[inline(never)]
    fn register() -> Option<&'static Self> {
        if ENDED.get() {
            return None;
        }
        // After a fork this is the parent's. It is dropped before the current signal stack is checked.
        drop(RELEASE.with(|release| release.0.take()));
        let signal_stack = sys::SignalStack::ensure();
        let life = Life {
            tid: sys::thread_id(),
            may_be_signalled: signal_stack.is_enough(),
            stack: sys::stack_bounds(),
            runtime: RuntimeId::current(),
        };
        let mut slots = lock_std(SLOTS.get());
        let vacant = slots.iter().copied().find(|slot| lock_std(&slot.life).is_none());
        let slot = vacant.unwrap_or_else(|| {
            let slot: &'static Self = Box::leak(Box::new(Self {
                current: AtomicU64::new(0),
                outer: AtomicU64::new(0),
                sequence: AtomicU64::new(0),
                frame: AtomicUsize::new(0),
                stack: [const { AtomicUsize::new(0) }; 2],
                process: capture::process_number(),
                boxes: AtomicU64::new(0),
                shared_boxes: AtomicU64::new(0),
                foreign: AtomicU64::new(0),
                poller: IN_POLL | (slots.len() as u64 + 1) << SEQUENCE_BITS,
                #[cfg(feature = "spans")]
                spans: super::SpanStack::new(),
                life: Mutex::new(None),
            }));
            slots.push(slot);
            slot
        });
        slot.stack[0].store(life.stack.start, Ordering::Relaxed);
        slot.stack[1].store(life.stack.end, Ordering::Relaxed);
        // The slot's last thread may have ended inside spans.
        #[cfg(feature = "spans")]
        slot.spans.clear();
        *lock_std(&slot.life) = Some(life);
        drop(slots);
        RELEASE.with(|release| release.0.set(Some((slot, signal_stack))));
        SLOT.set(Some(slot));
        Some(slot)
    }

    /// Counts a box that is opened on this thread.
    #[inline]
    pub(crate) fn count_box(&self) {
        self.boxes.store(self.boxes.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Takes a count back, because there was no row for the box.
    #[cold]
    pub(crate) fn uncount_box(&self) {
        self.boxes.store(self.boxes.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
    }

    /// Counts a box that shares the row of a request.
    #[inline]
    pub(crate) fn count_shared_box(&self) {
        self.shared_boxes.store(self.shared_boxes.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// Takes a count back, because the box has a row of its own now.
    pub(crate) fn uncount_shared_box(&self) {
        self.shared_boxes.store(self.shared_boxes.load(Ordering::Relaxed).wrapping_sub(1), Ordering::Relaxed);
    }

    /// Returns how many boxes shared the row of a request to their end. Where a box got a row on another thread, the
    /// numbers of the two threads add up to that.
    pub(crate) fn shared_boxes(&self) -> u64 {
        self.shared_boxes.load(Ordering::Relaxed)
    }

    /// Returns how many boxes were opened.
    pub(crate) fn boxes(&self) -> u64 {
        self.boxes.load(Ordering::Relaxed)
    }

    /// Returns the innermost watched work that this thread polls.
    #[inline]
    pub(crate) fn current(&self) -> RowId {
        RowId::from_bits(self.current.load(Ordering::Relaxed))
    }

    /// Returns the poll that is going on now, for an observer: the outermost work and the poll's number.
    pub(crate) fn polling(&self) -> Option<(RowId, u64)> {
        let sequence = self.sequence.load(Ordering::Acquire);
        let outer = RowId::from_bits(self.outer.load(Ordering::Relaxed));
        let busy = self.current.load(Ordering::Acquire) != 0;
        (busy && self.sequence.load(Ordering::Acquire) == sequence).then_some((outer, sequence))
    }

    /// Returns whether the poll with that number is still going on. Exact on the thread itself.
    #[inline]
    pub(crate) fn is_in(&self, sequence: u64) -> bool {
        self.sequence.load(Ordering::Acquire) == sequence && self.current.load(Ordering::Acquire) != 0
    }

    /// Returns whether no poll is going on. Exact on the thread itself.
    #[cfg_attr(not(heeler_copies), allow(dead_code, reason = "nobody is signalled"))]
    pub(crate) fn is_outside(&self) -> bool {
        self.current.load(Ordering::Acquire) == 0
    }

    /// Returns an address in the frame of the outermost poll.
    #[cfg_attr(not(heeler_copies), allow(dead_code, reason = "copied stacks, and boxes"))]
    #[inline]
    pub(crate) fn frame(&self) -> usize {
        self.frame.load(Ordering::Relaxed)
    }

    /// Returns the addresses of the thread's stack, without a lock. For the thread itself.
    pub(crate) fn stack(&self) -> Range<usize> {
        self.stack[0].load(Ordering::Relaxed)..self.stack[1].load(Ordering::Relaxed)
    }

    /// Notes that the poll has been signalled on a stack that isn't the thread's own.
    #[cfg_attr(not(heeler_copies), allow(dead_code, reason = "nobody is signalled"))]
    pub(crate) fn note_foreign(&self, sequence: u64) {
        self.foreign.store(sequence, Ordering::Relaxed);
    }

    /// Returns whether that was noted.
    #[cfg_attr(not(heeler_copies), allow(dead_code, reason = "nobody is signalled"))]
    pub(crate) fn is_foreign(&self, sequence: u64) -> bool {
        self.foreign.load(Ordering::Relaxed) == sequence
    }

    /// Runs `f` with what is known about the thread, which cannot end during that. Returns `None` if it has ended.
    pub(crate) fn with_life<T>(&self, f: impl FnOnce(&Life) -> T) -> Option<T> {
        lock_std(&self.life).as_ref().map(f)
    }
}
