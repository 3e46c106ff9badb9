//! The stack of a suspended future: poll it once with a waker of our own, and copy the stack at each clone of it.
//!
//! A future that finally waits must clone the waker it is polled with, and does so on the stack of its await point. The
//! traced poll is a real poll, and its result counts. A clone may happen under the leaf's own lock, so copying takes no
//! lock, allocates nothing and calls nobody else's code.
//!
//! Each clone is one of the waker that the poll was begun with. That is the row's own, see `row_waker`, which counts it
//! under the row's lock, or the original where none is lent. Nothing of the poll outlives it. A profiled request is the
//! exception. There each clone is a separate waker, made by a [`Branches`], so that it is known which branch has woken
//! the task.

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

use super::arena::{Arena, Event, Head, SPANS, STACKS, WORDS};
use super::dead_frames;
use super::row_waker::{Lent, Linked, RowWaker, Rows, tracers};
use super::snapshot::Registers;
#[cfg(heeler_copies)]
use super::sys;

/// Makes the wakers that the branches of a profiled request keep, on any thread on which a branch clones the one it was
/// lent.
pub(crate) trait Branches: Sync {
    /// Returns a waker that stands for `original`, for the branch with the stack of that number in the arena, or `None`
    /// if that was not copied. May run under the leaf's own lock.
    fn branch(&self, stack: Option<usize>, original: Waker) -> Waker;

    /// Notes that the work has woken itself during its poll.
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
    /// Whether a poll that keeps no waker leaves a copy of what its frames left on the stack.
    pub(super) looks_below: bool,
    /// Identifies this thread, because a waker may be cloned on any.
    thread: usize,
    branches: Option<&'a dyn Branches>,
    /// The row's waker that the poll has. `None` for one that points here.
    pub(super) lent: Option<RowWaker>,
    /// The traced poll around this one on the same thread that has lent a row's waker.
    pub(super) outer: Cell<*const Tracer<'static>>,
}

thread_local! {
    static MARK: Cell<u8> = const { Cell::new(0) };
}

fn this_thread() -> usize {
    MARK.with(|mark| std::ptr::from_ref(mark).addr())
}

/// Returns whether a traced poll that is going on sees clones of the waker. For a row's waker, only polls on this
/// thread count.
pub(crate) fn is_traced(waker: &Waker) -> bool {
    let mut is = false;
    each_tracer(waker, |_| is = true);
    is
}

/// Returns whether it is a traced poll's waker that points to what the poll needs. Such a waker must not be kept beyond
/// the poll.
pub(crate) fn is_tracing(waker: &Waker) -> bool {
    std::ptr::eq(waker.vtable(), &VTABLE)
}

/// Returns what a tracing waker points to.
fn tracer(waker: &Waker) -> Option<&Tracer<'_>> {
    // SAFETY: only `trace_branches` makes wakers with this vtable. Their data is a `Tracer` that lives as long as they
    // do.
    is_tracing(waker).then(|| unsafe { &*waker.data().cast::<Tracer<'_>>() })
}

/// Visits the traced polls that see a clone of the waker, innermost first. Returns what the outermost of them was
/// polled with.
pub(super) fn each_tracer(mut waker: &Waker, mut visit: impl FnMut(&Tracer<'_>)) -> &Waker {
    let mut at = Linked::innermost();
    loop {
        if let Some(tracer) = tracer(waker) {
            visit(tracer);
            waker = tracer.original;
            continue;
        }
        let Some(row) = RowWaker::of(waker) else { return waker };
        let mut outermost: Option<*const Waker> = None;
        let mut around = at;
        tracers(at, row, |tracer| {
            visit(tracer);
            (outermost, around) = (Some(std::ptr::from_ref(tracer.original)), tracer.outer.get());
        });
        // The outermost may have been polled with the same waker once more, but not one from a poll within.
        at = around;
        let Some(original) = outermost else { return waker };
        // SAFETY: the waker that an enclosing poll on this thread was given outlives that poll, and so everything lent
        // within it.
        waker = unsafe { &*original };
    }
}

/// Returns the waker that a traced poll's waker stands for, otherwise the waker itself. That one may be kept beyond the
/// poll, and compared.
pub(crate) fn original(waker: &Waker) -> &Waker {
    each_tracer(waker, |_| {})
}

/// Returns the row that the waker belongs to, even through a traced poll that is within that row's.
pub(crate) fn row_of(mut waker: &Waker) -> Option<RowWaker> {
    while let Some(tracer) = tracer(waker) {
        waker = tracer.original;
    }
    RowWaker::of(waker)
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, drop_nothing);

/// Does what the first traced poll would otherwise wait for. Where stacks are walked, the first walk reads tables,
/// which takes up to hundreds of milliseconds.
pub(crate) fn warm_up() {
    super::code_range();
    #[cfg(heeler_copies)]
    super::places::refresh_places();
    #[cfg(not(heeler_copies))]
    walk(|_| true);
}

/// Walks this thread's stack. It isn't `backtrace::trace`, because that waits for any thread that is symbolizing a
/// frame.
#[cfg(not(heeler_copies))]
#[inline(always)]
fn walk(visit: impl FnMut(&backtrace::Frame) -> bool) {
    // SAFETY: the lock that is left out here protects `dbghelp` of Windows. Other platforms' unwinders need none.
    #[cfg(not(windows))]
    unsafe {
        backtrace::trace_unsynchronized(visit);
    }
    #[cfg(windows)]
    backtrace::trace(visit);
}

/// Polls with a waker that copies the stack at each clone. `end` is an address in a frame that encloses this call.
///
/// With `lent`, it is that row's waker. With `look_below`, a poll that neither cloned nor woke the waker leaves a copy
/// of what its frames left on the stack.
pub(crate) fn trace<T>(
    arena: &mut Arena,
    end: usize,
    look_below: bool,
    lent: Option<(RowWaker, &'static dyn Rows)>,
    cx: &mut Context<'_>,
    poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    trace_with(arena, end, look_below, (None, lent), cx, poll)
}

/// Does the same, but `branches` makes each clone.
pub(crate) fn trace_branches<T>(
    arena: &mut Arena,
    end: usize,
    branches: &dyn Branches,
    cx: &mut Context<'_>,
    poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    trace_with(arena, end, false, (Some(branches), None), cx, poll)
}

/// What makes the clones: `Branches`, or a row's wakers.
type Clones<'a> = (Option<&'a dyn Branches>, Option<(RowWaker, &'static dyn Rows)>);

#[inline(always)]
fn trace_with<T>(
    arena: &mut Arena,
    end: usize,
    look_below: bool,
    (branches, lent): Clones<'_>,
    cx: &mut Context<'_>,
    poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    arena.reset();
    let arena: *mut Arena = arena;
    let stack = super::threads_stack();
    // If the thread's stack is not known, nothing of it is read.
    let lowest = if stack.contains(&end) { stack.start } else { usize::MAX };
    // Within another traced poll, this is that one's waker, so that it sees these clones, too.
    let (original, thread, outer) = (cx.waker(), this_thread(), Cell::new(Linked::innermost()));
    let is_within = is_traced(original);
    let row = lent.map(|(row, _)| row);
    let tracer = Tracer { original, arena, lowest, end, looks_below: look_below, thread, branches, lent: row, outer };
    let (waker, _linked) = match lent {
        Some((row, rows)) => (row.lend(rows), Some(Linked::new(&tracer))),
        // The vtable's functions treat the pointer as a `Tracer`. It is only lent to `poll`, for less time than
        // `tracer` lives. Clones are clones of the original and do not refer to `tracer`.
        None => (Lent::new(RawWaker::new((&raw const tracer).cast(), &VTABLE)), None),
    };
    let mut cx = Context::from_waker(&waker);
    // Also for the traced poll around this one.
    if look_below || is_within { dead_frames::poll(&mut cx, poll) } else { poll(&mut cx) }
}

// SAFETY (of the four functions of the vtable): `data` points to the `Tracer` of `trace`, which is alive as long as the
// waker that it was made for; no other waker has this vtable.

unsafe fn clone(data: *const ()) -> RawWaker {
    // SAFETY: see above.
    let tracer = unsafe { &*data.cast::<Tracer<'_>>() };
    // The registers are those of this frame, which exists until the copies are done.
    #[cfg(heeler_copies)]
    let registers = sys::registers();
    #[cfg(not(heeler_copies))]
    let registers = Registers::default();
    let clone = ManuallyDrop::new(tracer.clone_original(registers));
    RawWaker::new(clone.data(), clone.vtable())
}

unsafe fn wake(data: *const ()) {
    // SAFETY: as for `wake_by_ref`.
    unsafe { wake_by_ref(data) };
}

unsafe fn wake_by_ref(data: *const ()) {
    // SAFETY: see above.
    let mut this = unsafe { &*data.cast::<Tracer<'_>>() };
    #[cfg(heeler_copies)]
    let registers = sys::registers();
    #[cfg(not(heeler_copies))]
    let registers = Registers::default();
    loop {
        this.take_stack(Event::Wake, registers);
        if let Some(branches) = this.branches {
            branches.woken();
        }
        match tracer(this.original) {
            Some(further_out) => this = further_out,
            None => break,
        }
    }
    this.original.wake_by_ref();
}

unsafe fn drop_nothing(_: *const ()) {}

impl Tracer<'_> {
    /// Clones the waker that this one stands for, and captures the stack from `registers` on, for this traced poll and
    /// each one around it. Those must not be called through their wakers, or the functions that do this would be on the
    /// leaf's stack.
    fn clone_original(&self, registers: Registers) -> Waker {
        let stack = self.take_stack(Event::Clone, registers);
        let original = match tracer(self.original) {
            Some(further_out) => further_out.clone_original(registers),
            None => self.original.clone(),
        };
        match self.branches {
            Some(branches) => branches.branch(stack, original),
            None => original,
        }
    }

    /// Copies or walks the stack. Returns its number, if there is one.
    #[inline]
    fn take_stack(&self, event: Event, registers: Registers) -> Option<usize> {
        #[cfg(heeler_copies)]
        return self.copy(event, registers);
        #[cfg(not(heeler_copies))]
        {
            let _ = registers;
            self.walk(event)
        }
    }

    /// Returns whether this is the thread that polls. Another may have been lent the waker. What it does is not
    /// recorded, because touching the arena from there would be a data race.
    ///
    /// On the polling thread the arena may be borrowed mutably in `copy` and `walk`, because only they use it while the
    /// poll runs, neither calls anything that could come back to this waker, and `trace` does not use its own reference
    /// during that time.
    pub(super) fn is_mine(&self) -> bool {
        this_thread() == self.thread
    }

    /// Copies the stack from `registers.sp` up to the poll's frame. Returns the number of the copy, if there is one.
    #[cfg(heeler_copies)]
    #[inline(never)]
    pub(super) fn copy(&self, event: Event, registers: Registers) -> Option<usize> {
        if !self.is_mine() {
            return None;
        }
        // SAFETY: see `is_mine`.
        let arena = unsafe { &mut *self.arena };
        arena.count_event(event);
        let sp = registers.sp as usize;
        let room = WORDS - arena.used;
        let is_own = sp >= self.lowest && sp < self.end;
        if arena.count == STACKS || room < 64 || (is_own && self.end - sp > super::thread::MAX_COPY) {
            arena.lost += 1;
            return None;
        }
        if !is_own {
            return self.copy_foreign(arena, registers);
        }
        let wanted = (self.end - sp) / 8;
        let len = wanted.min(room);
        let start = arena.used;
        // SAFETY: `[sp, end)` is the part of this thread's stack between the callback's frame and the frame that
        // encloses the poll, both within its bounds and in use, so all between is mapped and readable. Words of it that
        // no frame has written yet are copied as bytes, and only the unwinder interprets them. `len` words are free in
        // the arena.
        unsafe {
            // Not `memcpy`, because the address sanitizer's checks what is copied, and this is other functions' frames.
            let to = arena.words.as_mut_ptr().add(start);
            sys::copy_words(sp as *const u64, to, len);
        }
        let mut spans = [0; SPANS];
        super::copy_spans(&mut spans);
        arena.heads[arena.count] = Head { registers, start, len, truncated: len < wanted, foreign: false, spans };
        arena.count += 1;
        arena.used += len;
        Some(arena.count - 1)
    }

    /// Does the same if this frame, or the poll, is on a stack that isn't the thread's own (a stackful coroutine's).
    /// Nothing says what of it can be read. Takes some microseconds.
    #[cfg(heeler_copies)]
    #[cold]
    #[inline(never)]
    fn copy_foreign(&self, arena: &mut Arena, registers: Registers) -> Option<usize> {
        use super::memory::{AWAIT_APART, LEAST, Memory, extent, reaches};
        let (sp, start) = (registers.sp as usize, arena.used);
        let wanted = (extent(sp, self.end, AWAIT_APART) / 8).min(WORDS - start);
        // SAFETY: that many words are free in the arena. What is read may be anything.
        let len = Memory::prepared()
            .map_or(0, |memory| unsafe { memory.read(sp, arena.words.as_mut_ptr().add(start), wanted) });
        if len < LEAST {
            arena.lost += 1;
            return None;
        }
        let foreign = !reaches(sp, self.end, len * 8);
        let mut spans = [0; SPANS];
        super::copy_spans(&mut spans);
        arena.heads[arena.count] = Head { registers, start, len, truncated: foreign && len == wanted, foreign, spans };
        arena.count += 1;
        arena.used += len;
        Some(arena.count - 1)
    }

    /// Walks the stack, where it cannot be copied.
    #[cfg(not(heeler_copies))]
    #[inline(never)]
    pub(super) fn walk(&self, event: Event) -> Option<usize> {
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
        arena.heads[arena.count] =
            Head { registers: Registers::default(), start, len, truncated, foreign: false, spans };
        arena.count += 1;
        arena.used += len;
        Some(arena.count - 1)
    }
}

/// Returns what a function is called.
#[cfg(test)]
pub(super) fn name_of<T>(_: T) -> &'static str {
    std::any::type_name::<T>()
}

/// Returns the names of the functions that capture a stack within the call of a waker.
#[cfg(test)]
pub(super) fn names_of_callbacks() -> [&'static str; 3] {
    let tracer = std::any::type_name::<Tracer<'_>>();
    [name_of(clone), name_of(wake_by_ref), tracer.split('<').next().unwrap_or_default()]
}
