//! The stack of a suspended future: poll it once with a waker of our own, and copy the stack at each clone of it.
//!
//! Whatever future finally waits must clone the waker it is polled with, and does so on the stack of its await point.
//! The traced poll is a real poll: its result counts, and each clone is a clone of the **original** waker, so that nothing
//! of ours outlives the poll. A clone may happen under the leaf's own lock: copying takes no lock, allocates nothing and
//! calls nobody.
//!
//! A profiled request is the exception: there each clone is a waker of its own, made by a [`Branches`], so that it is known
//! which branch has woken the task.

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

use super::arena::{Arena, Event, Head, SPANS, STACKS, WORDS};
use super::residue;
use super::snapshot::Registers;
#[cfg(heeler_copies)]
use super::sys;

/// Makes the wakers that the branches of a profiled request keep: on whichever thread a branch clones the one it was lent.
pub(crate) trait Branches: Sync {
    /// A waker that stands for `original`, for the branch with the stack of that number in the arena; `None` if that was not
    /// copied. May run under the leaf's own lock.
    fn branch(&self, stack: Option<usize>, original: &Waker) -> Waker;

    /// The work has woken itself during its poll.
    fn woken(&self);
}

/// What the tracing waker points to, for the time of one poll.
pub(super) struct Tracer<'a> {
    pub(super) original: &'a Waker,
    pub(super) arena: *mut Arena,
    /// The lowest address of the thread's stack.
    pub(super) lowest: usize,
    /// Where the copies end: an address in a frame that encloses the poll.
    pub(super) end: usize,
    /// A poll that keeps no waker leaves a copy of what its frames left on the stack.
    pub(super) looks_below: bool,
    /// Tells this thread from others: a waker may be cloned on any.
    thread: usize,
    branches: Option<&'a dyn Branches>,
}

thread_local! {
    static MARK: Cell<u8> = const { Cell::new(0) };
}

fn this_thread() -> usize {
    MARK.with(|mark| std::ptr::from_ref(mark).addr())
}

/// Whether it is the waker of a traced poll, which must not be kept beyond that.
#[inline]
pub(crate) fn is_tracing(waker: &Waker) -> bool {
    std::ptr::eq(waker.vtable(), &VTABLE)
}

/// What a tracing waker points to.
pub(super) fn tracer(waker: &Waker) -> Option<&Tracer<'_>> {
    // SAFETY: only `trace_branches` makes wakers with this vtable. Their data is a `Tracer` that lives as long as they do.
    is_tracing(waker).then(|| unsafe { &*waker.data().cast::<Tracer<'_>>() })
}

/// The waker that a tracing one stands for, else the waker itself: what may be kept beyond the poll, and compared.
pub(crate) fn original(mut waker: &Waker) -> &Waker {
    while let Some(tracer) = tracer(waker) {
        waker = tracer.original;
    }
    waker
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, drop_nothing);

/// What the first traced poll would otherwise wait for: where stacks are walked, the first walk reads tables, which takes up
/// to hundreds of milliseconds.
pub(crate) fn warm_up() {
    super::code_range();
    #[cfg(not(heeler_copies))]
    walk(|_| true);
}

/// Walks this thread's stack. Not by `backtrace::trace`, which waits for whoever names a frame meanwhile.
#[cfg(not(heeler_copies))]
#[inline(always)]
fn walk(visit: impl FnMut(&backtrace::Frame) -> bool) {
    // SAFETY: what the lock left out here protects is `dbghelp` of Windows; other platforms' unwinders need none.
    #[cfg(not(windows))]
    unsafe {
        backtrace::trace_unsynchronized(visit);
    }
    #[cfg(windows)]
    backtrace::trace(visit);
}

/// Polls with a waker that copies the stack at each clone. `end` is an address in a frame that encloses this call.
///
/// With `look_below`, a poll that neither cloned nor woke the waker leaves a copy of what its frames left on the stack.
pub(crate) fn trace<T>(
    arena: &mut Arena,
    end: usize,
    look_below: bool,
    cx: &mut Context<'_>,
    poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    trace_branches(arena, end, look_below, None, cx, poll)
}

/// The same, and each clone is what `branches` makes.
pub(crate) fn trace_branches<T>(
    arena: &mut Arena,
    end: usize,
    look_below: bool,
    branches: Option<&dyn Branches>,
    cx: &mut Context<'_>,
    poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    arena.reset();
    let arena: *mut Arena = arena;
    let stack = super::threads_stack();
    // Where the thread's stack is not known, nothing of it is read.
    let lowest = if stack.contains(&end) { stack.start } else { usize::MAX };
    // Within another traced poll, that one's waker: so it sees these clones, too.
    let (original, thread) = (cx.waker(), this_thread());
    let tracer = Tracer { original, arena, lowest, end, looks_below: look_below, thread, branches };
    let raw = RawWaker::new((&raw const tracer).cast(), &VTABLE);
    // SAFETY: the vtable's functions take the pointer for a `Tracer`. The waker itself is never dropped and is only lent
    // to `poll`, for less long than `tracer` lives; clones are clones of the original and do not refer to `tracer`.
    let waker = ManuallyDrop::new(unsafe { Waker::from_raw(raw) });
    let mut cx = Context::from_waker(&waker);
    // Also for the traced poll around this one.
    if look_below || is_tracing(original) { residue::poll(&mut cx, poll) } else { poll(&mut cx) }
}

// SAFETY (of the four functions of the vtable): `data` points to the `Tracer` of `trace`, which is alive as long as the
// waker that it was made for; no other waker has this vtable.

unsafe fn clone(data: *const ()) -> RawWaker {
    // SAFETY: see above.
    let tracer = unsafe { &*data.cast::<Tracer<'_>>() };
    // The registers are those of this frame, which stands until the copy is done.
    #[cfg(heeler_copies)]
    let stack = tracer.copy(Event::Clone, sys::registers());
    #[cfg(not(heeler_copies))]
    let stack = tracer.walk(Event::Clone);
    let clone = match tracer.branches {
        Some(branches) => branches.branch(stack, tracer.original),
        None => tracer.original.clone(),
    };
    let clone = ManuallyDrop::new(clone);
    RawWaker::new(clone.data(), clone.vtable())
}

unsafe fn wake(data: *const ()) {
    // SAFETY: as for `wake_by_ref`.
    unsafe { wake_by_ref(data) };
}

unsafe fn wake_by_ref(data: *const ()) {
    // SAFETY: see above.
    let tracer = unsafe { &*data.cast::<Tracer<'_>>() };
    #[cfg(heeler_copies)]
    tracer.copy(Event::Wake, sys::registers());
    #[cfg(not(heeler_copies))]
    tracer.walk(Event::Wake);
    if let Some(branches) = tracer.branches {
        branches.woken();
    }
    tracer.original.wake_by_ref();
}

unsafe fn drop_nothing(_: *const ()) {}

impl Tracer<'_> {
    /// Whether this is the thread that polls. Another may have been lent the waker: what it does is not recorded, for to
    /// touch the arena from there would be a data race.
    ///
    /// On the polling thread the arena may be borrowed mutably in `copy` and `walk`: only they use it while the poll runs,
    /// neither calls anything that could come back to this waker, and `trace` keeps its own reference out of use meanwhile.
    pub(super) fn is_mine(&self) -> bool {
        this_thread() == self.thread
    }

    /// Copies the stack from `registers.sp` up to the poll's frame. The number of the copy, if there is one.
    #[cfg(heeler_copies)]
    #[inline(never)]
    fn copy(&self, event: Event, registers: Registers) -> Option<usize> {
        if !self.is_mine() {
            return None;
        }
        // SAFETY: see `is_mine`.
        let arena = unsafe { &mut *self.arena };
        arena.count_event(event);
        let sp = registers.sp as usize;
        let room = WORDS - arena.used;
        // A leaf may run on a stack of its own (a stackful coroutine): of that, nothing says what can be read.
        if sp < self.lowest
            || sp >= self.end
            || arena.count == STACKS
            || room < 64
            || self.end - sp > super::thread::MAX_COPY
        {
            arena.lost += 1;
            return None;
        }
        let wanted = (self.end - sp) / 8;
        let len = wanted.min(room);
        let start = arena.used;
        // SAFETY: `[sp, end)` is the part of this thread's stack between the callback's frame and the frame that
        // encloses the poll, both within its bounds and in use, so all between is mapped and readable; words of it that no frame has
        // written yet are copied as bytes and never interpreted but by the unwinder. `len` words are free in the arena.
        unsafe {
            let to = arena.words.as_mut_ptr().add(start);
            std::ptr::copy_nonoverlapping(sp as *const u64, to, len);
        }
        let mut spans = [0; SPANS];
        super::copy_spans(&mut spans);
        arena.heads[arena.count] = Head { registers, start, len, truncated: len < wanted, spans };
        arena.count += 1;
        arena.used += len;
        Some(arena.count - 1)
    }

    /// Walks the stack, where it cannot be copied.
    #[cfg(not(heeler_copies))]
    #[inline(never)]
    fn walk(&self, event: Event) -> Option<usize> {
        if !self.is_mine() {
            return None;
        }
        // SAFETY: see `is_mine`.
        let arena = unsafe { &mut *self.arena };
        arena.count_event(event);
        if arena.count == STACKS || WORDS - arena.used < 256 {
            arena.lost += 1;
            return None;
        }
        let start = arena.used;
        let mut len = 0;
        let mut truncated = true;
        walk(|frame| {
            let below = frame.sp().addr() <= self.end;
            if below && len < 256 {
                arena.words[start + len] = frame.ip().addr() as u64;
                len += 1;
                return true;
            }
            truncated = below;
            false
        });
        let mut spans = [0; SPANS];
        super::copy_spans(&mut spans);
        arena.heads[arena.count] = Head { registers: Registers::default(), start, len, truncated, spans };
        arena.count += 1;
        arena.used += len;
        Some(arena.count - 1)
    }
}
