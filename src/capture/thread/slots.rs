//! A slot for each thread that polls watched work: which row it polls, since which poll, and down to which address its
//! stack belongs to that poll.
//!
//! Only the thread itself writes its slot while it lives. The monitor reads it, and the signal handler, which runs on
//! the thread and so sees what the thread wrote.

use std::cell::Cell;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::{RowId, RuntimeId};
use crate::capture::{self, PerProcess, sys};
use crate::sync::lock_std;

/// Which poll of which thread: as a row remembers it.
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

    /// Whether the poll is still going on.
    #[inline]
    pub(crate) const fn is_polling(self) -> bool {
        self.0 & IN_POLL != 0
    }

    #[inline]
    pub(crate) const fn ended(self) -> Self {
        Self(self.0 & !IN_POLL)
    }

    /// The thread that polls, or did last.
    pub(crate) fn slot(self) -> Option<&'static ThreadSlot> {
        let index = (self.0 & !IN_POLL) >> SEQUENCE_BITS;
        lock_std(SLOTS.get()).get((index as usize).checked_sub(1)?).copied()
    }
}

/// What one thread polls now. Recycled when the thread ends, never freed.
#[repr(align(128))]
#[derive(Debug)]
pub(crate) struct ThreadSlot {
    /// The innermost watched work that the thread polls.
    current: AtomicU64,
    /// The outermost.
    outer: AtomicU64,
    /// Outermost polls begun.
    sequence: AtomicU64,
    /// An address in the frame of the outermost poll: where copies of the stack end.
    frame: AtomicUsize,
    /// The addresses of the thread's stack.
    stack: [AtomicUsize; 2],
    /// The poll that was signalled on a stack that is not the thread's own: not again.
    foreign: AtomicU64,
    /// What all its polls have in common as a [`Poller`].
    poller: u64,
    /// Boxes that its threads have opened. Written by the thread alone.
    boxes: AtomicU64,
    /// The process whose thread it is, as [`capture::process_number`] counts.
    process: u32,
    #[cfg(feature = "spans")]
    pub(crate) spans: super::SpanStack,
    /// Held while a signal is sent, so that the thread cannot end meanwhile.
    life: Mutex<Option<Life>>,
}

/// What is known of a living thread.
#[derive(Debug, Clone)]
pub(crate) struct Life {
    pub(crate) tid: i32,
    /// The addresses of its stack.
    pub(crate) stack: Range<usize>,
    /// Its alternate stack has room for the signal handler.
    #[cfg_attr(not(heeler_copies), allow(dead_code, reason = "nobody is signalled"))]
    pub(crate) may_be_signalled: bool,
    /// The tokio runtime it belonged to when it first polled watched work.
    pub(crate) runtime: Option<RuntimeId>,
}

static SLOTS: PerProcess<Mutex<Vec<&'static ThreadSlot>>> = PerProcess::new(Mutex::default);

/// All slots, including those of threads that have ended.
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
        // A parent's slot stays as it is: its lock may be held by a thread that is not here.
        if let Some((slot, signal_stack)) = taken.filter(|(slot, _)| slot.process == capture::process_number()) {
            slot.current.store(0, Ordering::Relaxed);
            // Waits for a signal that is being sent; none is sent afterwards.
            *lock_std(&slot.life) = None;
            drop(signal_stack);
        }
    }
}

thread_local! {
    // Two cells, for one without a destructor costs no check at each access.
    static SLOT: Cell<Option<&'static ThreadSlot>> = const { Cell::new(None) };
    static ENDED: Cell<bool> = const { Cell::new(false) };
    static RELEASE: Release = const { Release(Cell::new(None)) };
}

impl ThreadSlot {
    /// This thread's slot; `None` once the thread is ending.
    #[inline]
    pub(crate) fn mine() -> Option<&'static Self> {
        SLOT.get().or_else(Self::register)
    }

    /// This thread's slot if it has ever polled watched work.
    #[inline]
    pub(crate) fn existing() -> Option<&'static Self> {
        SLOT.get()
    }

    /// This thread's slot, to poll something of that process in. `None` once the thread is ending, and in a child of `fork` for
    /// what is the parent's.
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

    /// The thread begins to poll that work; `frame` is an address in the frame of what polls it. Returns which poll it is, and
    /// what [`ThreadSlot::leave`] is to be given.
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

    /// The poll is over: the thread polls what it polled before.
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
        // After a fork there is the parent's, which goes before it is looked for what is there.
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
        // Its last thread may have ended inside spans.
        #[cfg(feature = "spans")]
        slot.spans.clear();
        *lock_std(&slot.life) = Some(life);
        drop(slots);
        RELEASE.with(|release| release.0.set(Some((slot, signal_stack))));
        SLOT.set(Some(slot));
        Some(slot)
    }

    /// One box more is opened on this thread.
    #[inline]
    pub(crate) fn count_box(&self) {
        self.boxes.store(self.boxes.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// There was no row for it.
    #[cold]
    pub(crate) fn uncount_box(&self) {
        self.boxes.store(self.boxes.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
    }

    /// How many were.
    pub(crate) fn boxes(&self) -> u64 {
        self.boxes.load(Ordering::Relaxed)
    }

    /// The innermost watched work that this thread polls.
    #[inline]
    pub(crate) fn current(&self) -> RowId {
        RowId::from_bits(self.current.load(Ordering::Relaxed))
    }

    /// The poll that goes on now, for an observer: the outermost work and the poll's number.
    pub(crate) fn polling(&self) -> Option<(RowId, u64)> {
        let sequence = self.sequence.load(Ordering::Acquire);
        let outer = RowId::from_bits(self.outer.load(Ordering::Relaxed));
        let busy = self.current.load(Ordering::Acquire) != 0;
        (busy && self.sequence.load(Ordering::Acquire) == sequence).then_some((outer, sequence))
    }

    /// Whether the poll with that number still goes on. Exact on the thread itself.
    #[inline]
    pub(crate) fn is_in(&self, sequence: u64) -> bool {
        self.sequence.load(Ordering::Acquire) == sequence && self.current.load(Ordering::Acquire) != 0
    }

    /// An address in the frame of the outermost poll.
    #[cfg_attr(not(heeler_copies), allow(dead_code, reason = "copied stacks only"))]
    #[inline]
    pub(crate) fn frame(&self) -> usize {
        self.frame.load(Ordering::Relaxed)
    }

    /// The addresses of the thread's stack, without a lock. For the thread itself.
    pub(crate) fn stack(&self) -> Range<usize> {
        self.stack[0].load(Ordering::Relaxed)..self.stack[1].load(Ordering::Relaxed)
    }

    /// The poll has been signalled on a stack that is not the thread's own.
    #[cfg_attr(not(heeler_copies), allow(dead_code, reason = "nobody is signalled"))]
    pub(crate) fn note_foreign(&self, sequence: u64) {
        self.foreign.store(sequence, Ordering::Relaxed);
    }

    /// Whether that is so.
    #[cfg_attr(not(heeler_copies), allow(dead_code, reason = "nobody is signalled"))]
    pub(crate) fn is_foreign(&self, sequence: u64) -> bool {
        self.foreign.load(Ordering::Relaxed) == sequence
    }

    /// Runs `f` with what is known of the thread, which cannot end meanwhile; `None` if it has ended.
    pub(crate) fn with_life<T>(&self, f: impl FnOnce(&Life) -> T) -> Option<T> {
        lock_std(&self.life).as_ref().map(f)
    }
}
