//! The `tracing` spans that a thread has entered.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::capture::SPANS;

/// The spans that a thread is in, outermost first. The thread writes it. The thread and a handler on it read it.
#[derive(Debug)]
pub(crate) struct SpanStack {
    depth: AtomicUsize,
    ids: [AtomicU64; SPANS],
}

impl SpanStack {
    pub(crate) const fn new() -> Self {
        Self { depth: AtomicUsize::new(0), ids: [const { AtomicU64::new(0) }; SPANS] }
    }

    /// Empties it for another thread.
    pub(crate) fn clear(&self) {
        self.depth.store(0, Ordering::Relaxed);
    }

    pub(crate) fn enter(&self, id: u64) {
        let depth = self.depth.load(Ordering::Relaxed);
        if let Some(place) = self.ids.get(depth) {
            place.store(id, Ordering::Relaxed);
        }
        // Deeper ones are counted and not kept. The handler must see the id before the depth that includes it.
        self.depth.store(depth + 1, Ordering::Release);
    }

    pub(crate) fn exit(&self, id: u64) {
        let depth = self.depth.load(Ordering::Relaxed);
        // Spans may be left in another order than they were entered in. One that was entered before the slot existed is
        // unknown.
        let known = depth.min(SPANS);
        let place = (0..known).rev().find(|place| self.ids[*place].load(Ordering::Relaxed) == id);
        if let Some(place) = place {
            for later in place + 1..known {
                let id = self.ids[later].load(Ordering::Relaxed);
                self.ids[later - 1].store(id, Ordering::Relaxed);
            }
            self.depth.store(depth - 1, Ordering::Release);
        } else if depth > SPANS {
            self.depth.store(depth - 1, Ordering::Release);
        }
    }

    /// Copies the ids. A zero ends them.
    pub(crate) fn copy(&self, to: &mut [u64; SPANS]) {
        let depth = self.depth.load(Ordering::Acquire);
        for (place, to) in to.iter_mut().enumerate() {
            *to = if place < depth { self.ids[place].load(Ordering::Relaxed) } else { 0 };
        }
    }

    /// Does the same, to where another thread will read them. For the handler.
    #[cfg(heeler_copies)]
    pub(crate) fn publish(&self, to: &[AtomicU64; SPANS]) {
        let mut ids = [0; SPANS];
        self.copy(&mut ids);
        for (to, id) in to.iter().zip(ids) {
            to.store(id, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: spans that are left out of order, or too deep to keep, leave the right ones behind.
    #[test]
    fn the_stack_keeps_spans_that_are_entered() {
        let stack = SpanStack::new();
        let ids = || {
            let mut ids = [0; SPANS];
            stack.copy(&mut ids);
            ids.into_iter().take_while(|id| *id != 0).collect::<Vec<_>>()
        };
        (1..=3).for_each(|id| stack.enter(id));
        stack.exit(2);
        assert_eq!(ids(), [1, 3]);
        (10..10 + SPANS as u64).for_each(|id| stack.enter(id));
        (10..10 + SPANS as u64).rev().for_each(|id| stack.exit(id));
        assert_eq!(ids(), [1, 3]);
        stack.exit(99);
        assert_eq!(ids(), [1, 3]);
    }
}
