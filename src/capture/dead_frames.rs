//! What a finished poll has left on the stack. It shows where a future waits that has kept no waker, so that nothing
//! was copied while it was polled.
//!
//! Whatever runs there next overwrites it. So it is copied at once, by code that calls nothing. This happens at the end
//! of the traced poll, and of each poll of other watched work within, whose bookkeeping would come next.

#[cfg(heeler_copies)]
pub(crate) use imp::{forget, poll};

/// How many words below the polling frame are at the start of a copy: 32 KiB.
pub(crate) const DEPTH: usize = 4096;

/// Nothing is left behind that could be forgotten.
#[cfg(not(heeler_copies))]
pub(crate) fn forget() {}

/// Polls. Where stacks are walked, nothing is known about frames that are gone.
#[cfg(not(heeler_copies))]
pub(crate) fn poll<T>(
    cx: &mut std::task::Context<'_>,
    poll: impl FnOnce(&mut std::task::Context<'_>) -> std::task::Poll<T>,
) -> std::task::Poll<T> {
    poll(cx)
}

#[cfg(heeler_copies)]
mod imp {
    use std::cell::Cell;
    use std::task::{Context, Poll, Waker};

    use super::super::arena::{Arena, Head, SPANS, WORDS};
    use super::super::snapshot::Registers;
    use super::super::task::{Tracer, each_tracer};
    use super::super::{sys, threads_stack};
    use super::DEPTH;

    /// How much of a stack stays free if it is nearly used up.
    const GUARD: usize = 16 * 1024;
    /// How many nested traced polls are served. Further ones on the outside get nothing.
    const NESTED: usize = 4;

    thread_local! {
        /// Counts what has been forgotten.
        static FORGOTTEN: Cell<u64> = const { Cell::new(0) };
    }

    /// Notes that work that was polled on this thread is dropped before it is ready. What it may have left behind no
    /// longer matters to a traced poll around it, which goes on.
    pub(crate) fn forget() {
        FORGOTTEN.with(|forgotten| forgotten.set(forgotten.get().wrapping_add(1)));
    }

    /// Polls on a stack that was wiped below this frame. Then copies what the poll left there, for each traced poll
    /// around it that wants it and has seen neither a clone of its waker nor a wake-up.
    #[inline(never)]
    pub(crate) fn poll<T>(cx: &mut Context<'_>, poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        let here = sys::registers();
        let Some(lowest) = room_below(here.sp as usize) else { return poll(cx) };
        let mut takers = takers(cx.waker(), lowest);
        // It belongs to the thread, which outlives any poll on it.
        let forgotten = FORGOTTEN.with(Cell::as_ptr);
        if takers[0].words > 0 {
            // SAFETY: they are on this thread's own stack, which has that much room: `room_below` has checked.
            unsafe { sys::wipe_stack(lowest as *mut u64) };
        }
        let result = poll(cx);
        if matches!(result, Poll::Pending) {
            // From here to the last copy nothing is called, not even in a debug build.
            // SAFETY: it belongs to this thread, and there is no reference to what is in it.
            let now = unsafe { *forgotten };
            let mut at = 0;
            while at < NESTED && takers[at].words > 0 {
                let Taker { arena, words, .. } = takers[at];
                // SAFETY: `is_mine` said that the arena is this thread's. The callbacks that use it have returned.
                let arena = unsafe { &mut *arena };
                let silent = arena.clones == 0 && arena.wakes == 0;
                // A copy that was taken further in is nearer to the place, if what it shows still exists.
                let taken = matches!(arena.dead_frames, Some(then) if then == now);
                if silent && !taken {
                    // SAFETY: the source reaches from the wiped words to the frame that encloses the taker's poll, all
                    // of it on this thread's stack. The arena, on the heap, has room for `WORDS`, and `words` is no
                    // more.
                    unsafe { sys::copy_words(lowest as *const u64, &raw mut *arena.words as *mut u64, words) };
                    takers[at].took = true;
                }
                at += 1;
            }
            for Taker { arena, words, .. } in takers.into_iter().filter(|taker| taker.took) {
                // The registers of this frame, except for the stack pointer, from which the words are counted.
                let registers = Registers { sp: lowest as u64, ..here };
                let truncated = words == WORDS;
                let head = Head { registers, start: 0, len: words, truncated, foreign: false, spans: [0; SPANS] };
                // SAFETY: as above.
                let arena = unsafe { &mut *arena };
                arena.heads[0] = head;
                (arena.count, arena.used, arena.dead_frames) = (1, words, Some(now));
            }
        }
        result
    }

    /// Returns the lowest address to wipe, if the stack has that much room.
    fn room_below(here: usize) -> Option<usize> {
        let lowest = here.checked_sub(DEPTH * 8)? & !7;
        let stack = threads_stack();
        (stack.contains(&lowest.saturating_sub(GUARD)) && stack.contains(&here)).then_some(lowest)
    }

    /// A traced poll that wants the words from the lowest one up to its own frame.
    #[derive(Clone, Copy)]
    struct Taker {
        arena: *mut Arena,
        words: usize,
        took: bool,
    }

    /// Returns the takers, innermost first. Unused entries have no words.
    fn takers(waker: &Waker, lowest: usize) -> [Taker; NESTED] {
        let mut takers = [Taker { arena: std::ptr::null_mut(), words: 0, took: false }; NESTED];
        let mut count = 0;
        each_tracer(waker, |tracer| {
            if let Some(words) = words_for(tracer, lowest).filter(|_| count < NESTED) {
                takers[count] = Taker { arena: tracer.arena, words, took: false };
                count += 1;
            }
        });
        takers
    }

    fn words_for(tracer: &Tracer<'_>, lowest: usize) -> Option<usize> {
        let wanted = tracer.looks_below && tracer.is_mine() && tracer.lowest <= lowest;
        let words = tracer.end.checked_sub(lowest)? / 8;
        wanted.then_some(words.min(WORDS))
    }
}
