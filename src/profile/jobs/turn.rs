//! A turn that can be given up. A request whose poll does not return keeps its thread, but it does not keep others from
//! being profiled.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::Ticket;
use crate::capture::PerProcess;
use crate::sync::lock_std;

/// Requests of the whole process that were given up and have not yet returned from a poll or from their destructors.
pub(in crate::profile) static UNRETURNED: PerProcess<Unreturned> = PerProcess::new(|| Unreturned::new(8));

/// Counts requests that were given up, up to a limit.
#[derive(Debug)]
pub(in crate::profile) struct Unreturned {
    most: usize,
    count: AtomicUsize,
}

impl Unreturned {
    const fn new(most: usize) -> Self {
        Self { most, count: AtomicUsize::new(0) }
    }

    /// Returns whether there are so many that no other request should be profiled.
    pub(in crate::profile) fn is_full(&self) -> bool {
        self.count.load(Ordering::Relaxed) >= self.most
    }

    /// Counts one more, until the value is dropped. Returns `None` if there are too many.
    fn add(&'static self) -> Option<Counted> {
        let add = |count| (count < self.most).then_some(count + 1);
        self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok().map(|_| Counted(self))
    }
}

/// A request that counts as given up.
#[derive(Debug)]
struct Counted(&'static Unreturned);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a request occupies while it runs.
#[derive(Debug)]
enum Held {
    /// ticket → counted
    Ticket {
        _ticket: Ticket,
    },
    Counted {
        _counted: Counted,
    },
}

/// The turn of a running request. Ends when it is dropped.
#[derive(Debug)]
pub(super) struct Turn(Arc<Mutex<Option<Held>>>);

/// A way to give up a request that does not end.
#[derive(Debug)]
pub(super) struct GiveUp(Arc<Mutex<Option<Held>>>);

impl Turn {
    pub(super) fn new(ticket: Ticket) -> (Self, GiveUp) {
        let held = Arc::new(Mutex::new(Some(Held::Ticket { _ticket: ticket })));
        (Self(Arc::clone(&held)), GiveUp(held))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let held = lock_std(&self.0).take();
        drop(held);
    }
}

impl GiveUp {
    /// Begins the next request's turn, although this one has not returned. Returns false if the next one still has to
    /// wait, because too many have been given up.
    pub(super) fn give_up(&self, unreturned: &'static Unreturned) -> bool {
        let before = {
            let mut held = lock_std(&self.0);
            if held.is_none() {
                // It has just returned.
                return true;
            }
            let Some(counted) = unreturned.add() else { return false };
            held.replace(Held::Counted { _counted: counted })
        };
        drop(before);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::Queue;
    use super::*;

    /// Guards: a request that is dropped leaves its turn to the next one, and counts until it returns. Beyond the limit it
    /// keeps its turn.
    #[test]
    fn a_dropped_request_passes_its_turn_on() {
        static FEW: Unreturned = Unreturned::new(2);
        let queue = Queue::new(1, 0);
        let mut turns = Vec::new();
        for count in 0..2 {
            let (turn, give_up) = Turn::new(queue.enter().unwrap());
            assert!(queue.enter().is_err() && !FEW.is_full(), "{count}");
            assert!(give_up.give_up(&FEW));
            turns.push(turn);
        }
        let (last, give_up) = Turn::new(queue.enter().unwrap());
        assert!(FEW.is_full() && !give_up.give_up(&FEW));
        assert!(queue.enter().is_err());
        turns.pop();
        assert!(!FEW.is_full());
        drop(last);
        // It had returned, so there is nothing to give up and nobody to count.
        assert!(give_up.give_up(&FEW) && !FEW.is_full());
        assert!(queue.enter().is_ok());
        turns.clear();
        assert_eq!(FEW.count.load(Ordering::Relaxed), 0);
    }
}
