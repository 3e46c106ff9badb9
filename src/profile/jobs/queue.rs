//! Decides whose turn it is: few requests are profiled at a time, a few more wait, and the rest are refused.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::capture::{PerProcess, process_number};
use crate::sync::lock_std;

/// The assumed length of a turn before one has been seen.
const GUESS: Duration = Duration::from_secs(2);

/// First come, first served, up to a limit, which a child of `fork` has for itself.
#[derive(Debug)]
pub(in crate::profile) struct Queue {
    concurrent: usize,
    longest: usize,
    state: PerProcess<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    running: usize,
    waiting: VecDeque<(u64, oneshot::Sender<()>)>,
    next: u64,
    /// The length of recent turns.
    typical: Duration,
}

impl Default for State {
    fn default() -> Self {
        Self { running: 0, waiting: VecDeque::new(), next: 0, typical: GUESS }
    }
}

/// There is no place left. One may be free in this many seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::profile) struct Full {
    pub(in crate::profile) retry_after: u64,
}

impl Queue {
    /// Allows `concurrent` at a time, at least one, and `longest` more that wait.
    pub(in crate::profile) fn new(concurrent: usize, longest: usize) -> Arc<Self> {
        Arc::new(Self { concurrent: concurrent.max(1), longest, state: PerProcess::new(Mutex::default) })
    }

    /// Takes a place, if there is one left.
    pub(in crate::profile) fn enter(self: &Arc<Self>) -> Result<Ticket, Full> {
        let mut state = lock_std(self.state.get());
        if state.running >= self.concurrent && state.waiting.len() >= self.longest {
            let turns = state.waiting.len() / self.concurrent + 1;
            let seconds = state.typical.as_secs_f64() * turns as f64;
            return Err(Full { retry_after: seconds.ceil().clamp(1.0, 600.0) as u64 });
        }
        Ok(self.admit(&mut state))
    }

    /// Takes a place, however many wait: for what somebody else has admitted.
    #[cfg(heeler_remote)]
    pub(in crate::profile) fn enter_admitted(self: &Arc<Self>) -> Ticket {
        self.admit(&mut lock_std(self.state.get()))
    }

    fn admit(self: &Arc<Self>, state: &mut State) -> Ticket {
        let number = state.next;
        state.next += 1;
        let turn = if state.running < self.concurrent {
            state.running += 1;
            None
        } else {
            let (give, turn) = oneshot::channel();
            state.waiting.push_back((number, give));
            Some(turn)
        };
        let began = turn.is_none().then(Instant::now);
        Ticket { queue: Arc::clone(self), process: process_number(), number, turn, began }
    }
}

/// A place in the queue, and later a turn, until it is dropped.
#[derive(Debug)]
pub(in crate::profile) struct Ticket {
    queue: Arc<Queue>,
    process: u32,
    number: u64,
    turn: Option<oneshot::Receiver<()>>,
    began: Option<Instant>,
}

impl Ticket {
    /// Returns how many are before it in the queue.
    pub(in crate::profile) fn place(&self) -> usize {
        let state = lock_std(self.queue.state.get());
        state.waiting.iter().position(|(number, _)| *number == self.number).unwrap_or(0)
    }

    /// Waits for its turn.
    pub(in crate::profile) async fn turn(&mut self) {
        if let Some(turn) = &mut self.turn {
            // The other end is kept until it is used.
            let _ = turn.await;
            self.turn = None;
            self.began = Some(Instant::now());
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.process != process_number() {
            return;
        }
        let mut state = lock_std(self.queue.state.get());
        if let Some(at) = state.waiting.iter().position(|(number, _)| *number == self.number) {
            state.waiting.remove(at);
            return;
        }
        if let Some(began) = self.began {
            state.typical = (state.typical + began.elapsed()) / 2;
        }
        // It had its turn, or was given it and has not noticed. Now it is the next one's turn.
        match state.waiting.pop_front() {
            Some((_, give)) => drop(give.send(())),
            None => state.running -= 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn has_turn(ticket: &mut Ticket) -> bool {
        ticket.turn().now_or_never().is_some()
    }

    /// Guards: jobs run in their order, each as soon as there is room. Their places count down.
    #[test]
    fn jobs_run_in_their_order() {
        let queue = Queue::new(2, 3);
        let mut tickets: Vec<Ticket> = (0..5).map(|_| queue.enter().unwrap()).collect();
        let places = |tickets: &[Ticket]| tickets.iter().map(Ticket::place).collect::<Vec<_>>();
        assert_eq!(places(&tickets), [0, 0, 0, 1, 2]);
        assert!(queue.enter().is_err());
        assert!(has_turn(&mut tickets[0]) && has_turn(&mut tickets[1]) && !has_turn(&mut tickets[2]));
        drop(tickets.remove(1));
        assert_eq!(places(&tickets), [0, 0, 0, 1]);
        assert!(has_turn(&mut tickets[1]) && !has_turn(&mut tickets[2]));
        // A job that leaves the queue takes nobody's turn and gives none away.
        drop(tickets.remove(2));
        assert_eq!(places(&tickets), [0, 0, 0]);
        assert!(!has_turn(&mut tickets[2]));
        tickets.clear();
        let state = lock_std(queue.state.get());
        assert_eq!((state.running, state.waiting.len()), (0, 0));
    }

    /// Guards: what was admitted elsewhere waits for its turn like others, and no longer.
    #[cfg(heeler_remote)]
    #[test]
    fn what_is_admitted_waits_for_its_turn() {
        let queue = Queue::new(1, 0);
        let first = queue.enter().unwrap();
        let (mut second, mut third) = (queue.enter_admitted(), queue.enter_admitted());
        assert!(!has_turn(&mut second) && !has_turn(&mut third) && third.place() == 1);
        drop(first);
        assert!(has_turn(&mut second) && !has_turn(&mut third));
    }

    /// Guards: a turn given to a job that never looked is not lost.
    #[test]
    fn an_unnoticed_turn_is_not_lost() {
        let queue = Queue::new(1, 2);
        let (first, second, mut third) = (queue.enter().unwrap(), queue.enter().unwrap(), queue.enter().unwrap());
        drop(first);
        drop(second);
        assert!(has_turn(&mut third));
        drop(third);
        assert_eq!(lock_std(queue.state.get()).running, 0);
    }

    /// Guards: nobody waits where no queue is wanted. A request that is sent away gets a time to retry, within bounds.
    #[test]
    fn a_full_queue_says_when_to_retry() {
        let queue = Queue::new(0, 0);
        let ticket = queue.enter().unwrap();
        assert_eq!(queue.enter().unwrap_err(), Full { retry_after: 2 });
        lock_std(queue.state.get()).typical = Duration::from_secs(100_000);
        assert_eq!(queue.enter().unwrap_err(), Full { retry_after: 600 });
        drop(ticket);
        assert!(queue.enter().is_ok());
    }
}
