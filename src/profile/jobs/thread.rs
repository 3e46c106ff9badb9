//! The profile thread: one for each profiled request, which polls it inside the application's runtime.
//!
//! Because it uses `Handle::block_on`, the request's code finds the runtime that it would have found without a profile.
//! The tasks that it spawns and the connections that it opens belong there, and go on when this thread blocks or ends.

use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::turn::{GiveUp, Turn};
use super::{Job, Run, Stop, UNRETURNED};
use crate::capture::ThreadSlot;
use crate::profile::Outcome;
use crate::profile::supervisor::STACK;
use crate::sync::lock_std;

/// How long to wait before trying again to start a thread.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// A request whose turn it is.
pub(super) struct Drive {
    pub(super) job: Arc<Job>,
    pub(super) turn: Turn,
    pub(super) run: Run,
    pub(super) rate_hz: u32,
}

impl Drive {
    /// Runs it on a profile thread, inside `runtime`. Nothing is sent if the thread ends early.
    ///
    /// # Errors
    ///
    /// Returns an error if no thread can be started. The error has the request, because its destructors must not run on
    /// the supervisor.
    pub(super) fn on_thread(
        self,
        runtime: Handle,
        supervisor: Handle,
    ) -> Result<oneshot::Receiver<Outcome>, (io::Error, Self)> {
        let (give, outcome) = oneshot::channel();
        self.hand_to_thread(move |drive| {
            {
                // A slot keeps the runtime in which it was created. This thread isn't one of the application's workers,
                // so nobody who waits for a worker waits for it.
                let _supervisor = supervisor.enter();
                ThreadSlot::mine();
            }
            let end = RuntimeEnd::watch(&runtime, &drive.job);
            let outcome = runtime.block_on(drive.drive(Some(end)));
            let _ = give.send(outcome);
        })?;
        Ok(outcome)
    }

    /// Drops it without polling it, inside `runtime`, where its destructors may look for that, and on a thread of its
    /// own, because they may block. It is the next one's turn from now on, unless too many have been given up. Until it
    /// is dropped, it counts with those that have not returned.
    pub(super) fn discard(self, runtime: Handle, give_up: &GiveUp) {
        give_up.give_up(UNRETURNED.get());
        tokio::spawn(async move {
            let mut drive = self;
            loop {
                let runtime = runtime.clone();
                let discarded = drive.hand_to_thread(move |Self { run, turn, .. }| {
                    let _inside = runtime.enter();
                    drop(run);
                    drop(turn);
                });
                let Err((_, back)) = discarded else { return };
                drive = back;
                sleep(TRY_AGAIN).await;
            }
        });
    }

    /// Starts a thread that does `work` with it. Returns it if no thread can be started.
    fn hand_to_thread(self, work: impl FnOnce(Self) + Send + 'static) -> Result<(), (io::Error, Self)> {
        // If the thread does not start, its closure is dropped. The mutex keeps the request.
        let drive = Arc::new(Mutex::new(Some(self)));
        let theirs = Arc::clone(&drive);
        let thread = std::thread::Builder::new().name("heeler-profile".to_owned()).stack_size(STACK);
        let started = thread.spawn(move || {
            let drive = lock_std(&theirs).take();
            if let Some(drive) = drive {
                work(drive);
            }
        });
        match started {
            Ok(_) => Ok(()),
            Err(error) => match lock_std(&drive).take() {
                Some(drive) => Err((error, drive)),
                None => Ok(()),
            },
        }
    }

    /// Runs it as a task of `runtime`. Nothing is sent if the runtime shuts down first.
    pub(super) fn inline(self, runtime: &Handle) -> oneshot::Receiver<Outcome> {
        let (give, outcome) = oneshot::channel();
        runtime.spawn(async {
            let _ = give.send(self.drive(None).await);
        });
        outcome
    }

    /// The request itself. Its turn is over when this ends, that is, when nothing of it is polled any more.
    async fn drive(self, end: Option<RuntimeEnd>) -> Outcome {
        let Self { job, turn, run, rate_hz } = self;
        let recording = job.begin(rate_hz);
        let mut run = recording.record(run);
        let has_ended = || end.as_ref().is_some_and(RuntimeEnd::has_ended);
        let outcome = {
            let (mut run, mut stopped) = (pin!(&mut run), pin!(job.stopped()));
            poll_fn(|cx| {
                // A wait for a timer of that runtime would panic.
                if has_ended() {
                    return Poll::Ready(Stop::RuntimeEnded.outcome());
                }
                match run.as_mut().poll(cx) {
                    Poll::Ready(outcome) => Poll::Ready(outcome),
                    Poll::Pending => stopped.as_mut().poll(cx).map(Stop::outcome),
                }
            })
            .await
        };
        // Dropped here and now, so that its destructors have finished when the next turn begins.
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(run)));
        recording.stop();
        drop(turn);
        let outcome = match dropped {
            Ok(()) => outcome,
            Err(_) => Outcome::Panicked("a destructor panicked when the request was stopped".to_owned()),
        };
        // This is the reason, whatever went wrong.
        let went_wrong = outcome != Outcome::Finished;
        if went_wrong && end.is_some_and(|end| end.is_near(&job)) { Stop::RuntimeEnded.outcome() } else { outcome }
    }
}

/// Stops a job when a runtime shuts down, because nothing else would end a wait for its sockets, timers and tasks. It
/// is a task of that runtime until this is dropped.
struct RuntimeEnd {
    runtime: Handle,
    ended: Arc<AtomicBool>,
    _over: oneshot::Sender<()>,
}

impl RuntimeEnd {
    fn watch(runtime: &Handle, job: &Arc<Job>) -> Self {
        /// Dropped by a runtime that shuts down, or at the job's end, when it makes no difference.
        struct OnDrop {
            ended: Arc<AtomicBool>,
            // A runtime that nobody drives keeps its tasks.
            job: Weak<Job>,
        }

        impl Drop for OnDrop {
            fn drop(&mut self) {
                self.ended.store(true, Ordering::Release);
                if let Some(job) = self.job.upgrade() {
                    job.stop(Stop::RuntimeEnded);
                }
            }
        }

        let (_over, over) = oneshot::channel::<()>();
        let ended = Arc::new(AtomicBool::new(false));
        let on_drop = OnDrop { ended: Arc::clone(&ended), job: Arc::downgrade(job) };
        runtime.spawn(async move {
            let _on_drop = on_drop;
            let _ = over.await;
        });
        Self { runtime: runtime.clone(), ended, _over }
    }

    /// Returns whether the runtime has ended, or is just dropping its tasks. It may not have come to this task yet, but
    /// then it drops a new task at once.
    fn is_near(&self, job: &Arc<Job>) -> bool {
        self.has_ended() || Self::watch(&self.runtime, job).has_ended()
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

#[cfg(all(test, not(heeler_loom)))]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;
    use crate::profile::Request;
    use crate::profile::id::Id;

    /// Says that it is being dropped, and then waits.
    struct Parting(Sender<()>, Receiver<()>);

    impl Drop for Parting {
        fn drop(&mut self) {
            let _ = self.0.send(());
            let _ = self.1.recv();
        }
    }

    /// Guards: a runtime that drops its tasks has ended, even before it comes to the task that stands by. What the request
    /// sees of the end by then is not its own fault.
    #[test]
    fn a_runtime_that_drops_its_tasks_has_ended() {
        // In which order it drops them depends on their numbers, which are those of the process.
        let comes_first = |_| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let ((begin, has_begun), (go_on, waits)) = (channel(), channel());
            let parting = Parting(begin, waits);
            runtime.spawn(async move {
                let _parting = parting;
                std::future::pending::<()>().await;
            });
            let job = Arc::new(Job::new(Id::random().unwrap(), None, Request::default(), [].into(), 0));
            let end = RuntimeEnd::watch(runtime.handle(), &job);
            assert!(!end.is_near(&job));
            let shuts_down = std::thread::spawn(move || drop(runtime));
            has_begun.recv().unwrap();
            let is_before = !end.has_ended();
            assert!(end.is_near(&job));
            go_on.send(()).unwrap();
            shuts_down.join().unwrap();
            assert!(end.has_ended());
            is_before
        };
        assert!((0..64).any(comes_first), "the task that stands by was always dropped first");
    }
}
