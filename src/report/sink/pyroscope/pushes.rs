//! The profiles that wait for a server.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::target::{Push, Target};
use crate::capture::PerProcess;
use crate::report::SinkStats;
use crate::report::delivery::{Outcome, Slot, pause};
use crate::report::sink::SinkError;
use crate::sync::lock_std;

/// How long a profile is tried again. By default, a server refuses what is older.
const RETRY_FOR: Duration = Duration::from_secs(60 * 60);

/// Returns the runtime's time.
fn clock() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A server, and the profiles on their way to it. They are sent one after the other.
pub(crate) struct Pushes {
    target: Arc<Target>,
    max_queued: usize,
    /// A child of `fork` has its own, because the parent still sends what is in its queue.
    queue: PerProcess<Queue, MakeQueue>,
}

type MakeQueue = Box<dyn Fn() -> Queue + Send + Sync>;

struct Queue {
    slot: Slot<Arc<Target>>,
    state: Mutex<State>,
    /// Somebody wants the next pause to be skipped.
    hurry: Notify,
    /// One less is on its way.
    settled: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    /// A task sends them.
    driven: bool,
    /// The number of failures in a row.
    failures: u32,
}

struct Waiting {
    push: Push,
    /// When it was first tried.
    tried: Option<Instant>,
}

/// Held by the task that sends.
struct Driving<'a>(&'a Queue);

impl Drop for Driving<'_> {
    fn drop(&mut self) {
        // Otherwise nothing was left to send, and another task may have begun.
        if std::thread::panicking() {
            lock_std(&self.0.state).driven = false;
        }
    }
}

impl Pushes {
    pub(super) fn new(target: Target, max_queued: usize) -> Self {
        let target = Arc::new(target);
        let of_queue = Arc::clone(&target);
        let queue = move || {
            let name = format!("pyroscope {} profiles", of_queue.host());
            let slot = Slot::new(name, Arc::clone(&of_queue), "a profile");
            Queue { slot, state: Mutex::default(), hurry: Notify::new(), settled: Notify::new() }
        };
        Self { target, max_queued, queue: PerProcess::new(Box::new(queue) as MakeQueue) }
    }

    fn slot(&self) -> &Slot<Arc<Target>> {
        &self.queue.get().slot
    }

    /// Sends what `make` returns, on `runtime`, which must be the same each time. `make` may take long, and may find that
    /// there is nothing to send. Never waits.
    pub(crate) fn push(
        self: &Arc<Self>,
        runtime: &Handle,
        make: impl FnOnce(&Target) -> Result<Option<Push>, SinkError> + Send + 'static,
    ) {
        self.slot().count_accepted();
        let pushes = Arc::clone(self);
        runtime.spawn(async move {
            let this = Arc::clone(&pushes);
            let made = spawn_blocking(move || make(&this.target)).await;
            match made.map_err(SinkError::permanent).flatten() {
                Ok(Some(push)) => {
                    pushes.enqueue(Waiting { push, tried: None }, false);
                    pushes.drive().await;
                }
                Ok(None) => pushes.settle(Outcome::Taken),
                Err(error) => pushes.refused(&error),
            }
        });
    }

    /// Counts and logs a profile that cannot even begin its way.
    pub(crate) fn lost(&self, error: &SinkError) {
        self.slot().count_accepted();
        self.refused(error);
    }

    /// Puts one at the end, or back at the front. The oldest makes room.
    fn enqueue(&self, waiting: Waiting, back: bool) {
        let mut state = lock_std(&self.queue.get().state);
        if back {
            state.waiting.push_front(waiting);
        } else {
            state.waiting.push_back(waiting);
        }
        let dropped = if state.waiting.len() > self.max_queued { state.waiting.pop_front() } else { None };
        drop(state);
        if dropped.is_some() {
            let failure = SinkError::permanent("too many profiles wait for it: the oldest is dropped");
            self.slot().log(&failure, clock());
            self.settle(Outcome::GivenUp);
        }
    }

    fn settle(&self, outcome: Outcome) {
        self.slot().count_settled(outcome);
        self.queue.get().settled.notify_waiters();
    }

    fn refused(&self, error: &SinkError) {
        self.slot().failed(error, clock());
        self.settle(Outcome::GivenUp);
    }

    /// Begins to send, unless another task does.
    fn begin_driving(&self) -> Option<Driving<'_>> {
        let queue = self.queue.get();
        let mut state = lock_std(&queue.state);
        let free = !std::mem::replace(&mut state.driven, true);
        free.then_some(Driving(queue))
    }

    /// Returns the next one. With `None`, somebody else may drive the queue.
    fn next(&self) -> Option<Waiting> {
        let mut state = lock_std(&self.queue.get().state);
        let next = state.waiting.pop_front();
        state.driven = next.is_some();
        next
    }

    async fn drive(&self) {
        let Some(driving) = self.begin_driving() else { return };
        while let Some(mut waiting) = self.next() {
            let tried = *waiting.tried.get_or_insert_with(clock);
            match self.target.send(&waiting.push).await {
                Ok(()) => {
                    lock_std(&driving.0.state).failures = 0;
                    self.settle(Outcome::Taken);
                }
                Err(error) if error.is_permanent() => {
                    lock_std(&driving.0.state).failures = 0;
                    self.refused(&error);
                }
                Err(error) if clock().saturating_duration_since(tried) >= RETRY_FOR => self.refused(&error),
                Err(error) => {
                    self.slot().failed(&error, clock());
                    self.enqueue(waiting, true);
                    let failures = {
                        let mut state = lock_std(&driving.0.state);
                        state.failures = state.failures.saturating_add(1);
                        state.failures
                    };
                    let _ = timeout(pause(failures, fastrand::f64()), driving.0.hurry.notified()).await;
                }
            }
        }
    }

    /// Returns how many profiles there were, and what happened to them.
    pub(crate) fn stats(&self) -> SinkStats {
        self.slot().stats()
    }

    /// Waits until nothing is on its way. What failed is tried again at once.
    pub(crate) async fn settled(&self) {
        let queue = self.queue.get();
        queue.hurry.notify_one();
        loop {
            // It is notified of everything from here on.
            let settled = queue.settled.notified();
            if self.stats().queued == 0 {
                return;
            }
            settled.await;
        }
    }
}

impl fmt::Debug for Pushes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pushes")
            .field("target", &self.target)
            .field("max_queued", &self.max_queued)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use pprof::protos;

    use super::*;
    use crate::report::ProcessInfo;
    use crate::report::sink::Pyroscope;
    use crate::report::sink::pyroscope::Source;

    /// Guards: a profile for a server that is down is tried again and again, with pauses, and given up after an hour.
    #[tokio::test(start_paused = true)]
    async fn a_profile_is_given_up_after_an_hour() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let pushes = Arc::new(Pyroscope::new(format!("http://{closed}")).prepare_for_profiles().unwrap());
        let began = clock();
        pushes.push(&Handle::current(), |target| {
            let now = std::time::SystemTime::now();
            target.push(Source::Profile, &ProcessInfo::default(), &protos::Profile::default(), now, now).map(Some)
        });
        assert!(timeout(RETRY_FOR / 2, pushes.settled()).await.is_err());
        assert!(timeout(RETRY_FOR, pushes.settled()).await.is_ok());
        assert!(clock() - began >= RETRY_FOR);
        let stats = pushes.stats();
        assert_eq!((stats.delivered, stats.undelivered, stats.queued), (0, 1, 0));
        assert!((12..=40).contains(&stats.failed_deliveries), "{stats:?}");
    }

    /// Guards: what cannot be made, or panics, is counted and takes nobody with it. What has nothing to send is done.
    #[tokio::test]
    async fn a_profile_that_cannot_be_made_is_counted() {
        let pushes = Arc::new(Pyroscope::new("http://localhost:1").prepare_for_profiles().unwrap());
        pushes.push(&Handle::current(), |_| panic!("as the test has it"));
        pushes.push(&Handle::current(), |_| Err(SinkError::permanent("no room")));
        pushes.push(&Handle::current(), |_| Ok(None));
        assert!(timeout(Duration::from_secs(40), pushes.settled()).await.is_ok());
        let stats = pushes.stats();
        assert_eq!((stats.delivered, stats.undelivered, stats.failed_deliveries), (1, 2, 2));
    }
}
