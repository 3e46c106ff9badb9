//! The queue of messages for the reporter. It is bounded in number and in bytes, and drops the oldest first.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::Notify;

use super::ledger::{Ledger, Weight};
use crate::sync::lock_std;

/// A queue that is filled from any thread and emptied by one task.
#[derive(Debug)]
pub(in crate::report) struct Inbox<T> {
    state: Mutex<State<T>>,
    filled: Notify,
}

#[derive(Debug)]
struct State<T> {
    parcels: VecDeque<Parcel<T>>,
    /// By owner: the bytes of its messages.
    ledgers: HashMap<usize, Ledger>,
}

#[derive(Debug)]
struct Parcel<T> {
    message: T,
    charge: Option<Charge>,
}

/// How much memory a message takes, and whose.
#[derive(Debug)]
pub(in crate::report) struct Charge {
    /// Identifies the owner while it has a message in here.
    pub(in crate::report) owner: usize,
    pub(in crate::report) weight: Weight,
    /// Bytes that all messages of this owner may take. The newest stays, whatever it takes.
    pub(in crate::report) limit: usize,
}

impl<T> Default for Inbox<T> {
    fn default() -> Self {
        let state = State { parcels: VecDeque::new(), ledgers: HashMap::new() };
        Self { state: Mutex::new(state), filled: Notify::new() }
    }
}

impl<T> Inbox<T> {
    /// Adds a message and never waits for room. Returns the messages that had to make room for it, oldest first: one of
    /// any owner's if there are `capacity` messages already, and as many of the same owner's as together take too much
    /// memory. A message without a charge is never dropped.
    #[must_use]
    pub(in crate::report) fn push(&self, message: T, charge: Option<Charge>, capacity: usize) -> Vec<T> {
        let mut dropped = Vec::new();
        let mut state = lock_std(&self.state);
        if state.parcels.len() >= capacity {
            dropped.extend(state.remove_oldest(|_| true));
        }
        let room = charge.as_ref().map(|charge| (charge.owner, charge.limit));
        if let Some(charge) = &charge {
            state.ledgers.entry(charge.owner).or_default().add(&charge.weight);
        }
        if let Some((owner, limit)) = room {
            while state.ledgers.get(&owner).is_some_and(|ledger| ledger.bytes() > limit) {
                // The new one is not in the list yet: it stays.
                let Some(oldest) = state.remove_oldest(|charge| charge.owner == owner) else { break };
                dropped.push(oldest);
            }
        }
        state.parcels.push_back(Parcel { message, charge });
        drop(state);
        self.filled.notify_one();
        dropped
    }

    /// Returns how many messages wait.
    pub(in crate::report) fn len(&self) -> usize {
        lock_std(&self.state).parcels.len()
    }

    /// Waits for the next message. Returns `None` if there is none within `timeout`. Only one task may call it at a
    /// time.
    pub(in crate::report) async fn next(&self, timeout: Duration) -> Option<T> {
        // Gives other tasks on this runtime a turn, however many messages there are.
        tokio::task::yield_now().await;
        let message = async {
            loop {
                if let Some(message) = lock_std(&self.state).pop() {
                    return message;
                }
                self.filled.notified().await;
            }
        };
        tokio::time::timeout(timeout, message).await.ok()
    }
}

impl<T> State<T> {
    fn pop(&mut self) -> Option<T> {
        let parcel = self.parcels.pop_front()?;
        Some(self.release(parcel))
    }

    fn remove_oldest(&mut self, which: impl Fn(&Charge) -> bool) -> Option<T> {
        let at = self.parcels.iter().position(|parcel| parcel.charge.as_ref().is_some_and(&which))?;
        let parcel = self.parcels.remove(at)?;
        Some(self.release(parcel))
    }

    /// Gives back the memory of a message that is no longer in here.
    fn release(&mut self, Parcel { message, charge }: Parcel<T>) -> T {
        if let Some(charge) = charge
            && let Some(ledger) = self.ledgers.get_mut(&charge.owner)
        {
            ledger.remove(&charge.weight);
            if ledger.bytes() == 0 {
                self.ledgers.remove(&charge.owner);
            }
        }
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn charge(owner: usize, own: usize, shared: &[(usize, usize)]) -> Option<Charge> {
        Some(Charge { owner, weight: Weight { own, shared: shared.to_vec() }, limit: 100 })
    }

    fn push(inbox: &Inbox<u32>, message: u32, charge: Option<Charge>, capacity: usize) -> Vec<u32> {
        inbox.push(message, charge, capacity)
    }

    const NOBODY: [u32; 0] = [];

    fn emptied(inbox: &Inbox<u32>) -> Vec<u32> {
        let mut state = lock_std(&inbox.state);
        let messages = std::iter::from_fn(|| state.pop()).collect();
        assert!(state.ledgers.is_empty(), "{:?}", state.ledgers);
        messages
    }

    /// Guards: the oldest evidence of the same owner makes room for as many bytes as are needed, and other owners'
    /// doesn't. A message that isn't evidence stays.
    #[test]
    fn the_oldest_make_room_in_bytes() {
        let inbox = Inbox::default();
        assert_eq!(push(&inbox, 0, None, 10), NOBODY);
        for message in 1..4 {
            assert_eq!(push(&inbox, message, charge(7, 30, &[]), 10), NOBODY);
        }
        assert_eq!(push(&inbox, 4, charge(8, 90, &[]), 10), NOBODY);
        assert_eq!(push(&inbox, 5, charge(7, 50, &[]), 10), [1, 2]);
        assert_eq!(push(&inbox, 6, charge(7, 1_000, &[]), 10), [3, 5], "the newest stays, whatever it takes");
        assert_eq!(emptied(&inbox), [0, 4, 6]);
    }

    /// Guards: a stack that all requests share doesn't cause any of them to be dropped.
    #[test]
    fn shared_stacks_are_counted_once() {
        let inbox = Inbox::default();
        for message in 0..9 {
            assert_eq!(push(&inbox, message, charge(7, 1, &[(1, 90)]), 10), NOBODY);
        }
        assert_eq!(
            push(&inbox, 9, charge(7, 1, &[(2, 5)]), 10),
            [0, 1, 2, 3, 4],
            "the bytes of each that goes are one"
        );
        assert_eq!(emptied(&inbox).len(), 5);
    }

    /// Guards: the number of messages is bounded, however small they are.
    #[test]
    fn the_oldest_make_room_in_number() {
        let inbox = Inbox::default();
        assert_eq!(push(&inbox, 0, None, 2), NOBODY);
        assert_eq!(push(&inbox, 1, charge(7, 1, &[]), 2), NOBODY);
        assert_eq!(push(&inbox, 2, charge(8, 1, &[]), 2), [1]);
        assert_eq!(push(&inbox, 3, None, 2), [2]);
        assert_eq!(push(&inbox, 4, None, 2), NOBODY);
        assert_eq!(emptied(&inbox), [0, 3, 4]);
    }
}
