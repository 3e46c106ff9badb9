//! For tests of asynchronous code: what a test that hangs is waiting for.
//!
//! ```
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! // As a test's whole body, or around the part that hangs now and then:
//! heeler::test::hang_guard(Duration::from_secs(20), async {
//!     // …
//! })
//! .await;
//! # }
//! ```

use std::fmt;
use std::fs::File;
use std::io::Write as _;
use std::panic::Location;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use pin_project_lite::pin_project;

use crate::capture::sys;
use crate::disabled::is_disabled;
use crate::inflight::{Ended, Job, PolicyId, Registered, Watched, Work};
use crate::report;
use crate::report::blocking_dump;
use crate::sync::lock_std;
use crate::text::units::{duration, short_path};

/// Runs a test's future, and fails the test if it takes longer than `limit`: first prints where it waits, every branch with
/// its await stack, and what else is in flight; then panics.
///
/// It is printed straight to the standard error, also where the test runner captures output, because a runner that kills a
/// test throws that away. The limit is a time of the system's clock, also if tokio's is paused. Choose one below the
/// runner's own. If the test blocks its thread, the stack is printed, and the test goes on to hang: nothing can end it but
/// the runner.
///
/// Each test of a process may have its own guard. A report shows everything in the process that is watched, so other tests'
/// work may stand below this one's.
///
/// # Panics
///
/// If the future is not ready within `limit`.
#[track_caller]
pub fn hang_guard<F: Future>(limit: Duration, future: F) -> HangGuard<F> {
    if !is_disabled() {
        report::start_watching();
    }
    HangGuard { inner: future, watched: Watched::off(), limit, at: Location::caller(), watch: None }
}

pin_project! {
    /// The future of [`hang_guard`].
    #[must_use = "futures do nothing unless polled"]
    pub struct HangGuard<F> {
        #[pin]
        inner: F,
        watched: Watched,
        limit: Duration,
        at: &'static Location<'static>,
        watch: Option<Watch>,
    }
}

/// The thread that looks at the clock, until this is dropped.
struct Watch(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    done: Condvar,
}

#[derive(Default)]
struct State {
    is_done: bool,
    is_late: bool,
    waker: Option<Waker>,
}

impl Watch {
    fn start(name: String, limit: Duration) -> Self {
        let shared = Arc::new(Shared::default());
        let watched = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("heeler-test".into());
        let started = thread.spawn(move || {
            sys::block_signals();
            watched.run(&name, limit);
        });
        if let Err(error) = started {
            print(&format!("hang_guard: the test is not watched, because no thread could be started: {error}\n"));
        }
        Self(shared)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        lock_std(&self.0.state).is_done = true;
        self.0.done.notify_all();
    }
}

impl Shared {
    fn run(&self, name: &str, limit: Duration) {
        let began = Instant::now();
        let mut state = lock_std(&self.state);
        while !state.is_done {
            let left = limit.saturating_sub(began.elapsed());
            if left.is_zero() {
                drop(state);
                tell(name, limit);
                let waker = {
                    let mut state = lock_std(&self.state);
                    state.is_late = true;
                    state.waker.take()
                };
                if let Some(waker) = waker {
                    waker.wake();
                }
                return;
            }
            state = self.done.wait_timeout(state, left).unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }
}

/// Returns a name that no other guard has: tests run side by side, and many may share a line.
fn name_of(at: &Location<'_>) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("hang_guard {number} at {}:{}", short_path(at.file()), at.line())
}

/// Prints where the test is.
fn tell(name: &str, limit: Duration) {
    let dump = blocking_dump();
    let own = dump.work.iter().find(|work| work.name == name);
    let own = own.map(|work| dump.about(work)).unwrap_or_default();
    print(&format!("\n{name}: not finished after {}\n\n{own}\nEverything in flight\n\n{dump}\n", duration(limit)));
}

/// Writes to the standard error itself, past what a test runner captures and without its lock.
fn print(text: &str) {
    #[cfg(unix)]
    {
        use std::os::fd::AsFd as _;

        if let Ok(own) = std::io::stderr().as_fd().try_clone_to_owned() {
            // Nobody can be told.
            let _ = File::from(own).write_all(text.as_bytes());
        }
    }
    #[cfg(not(unix))]
    let _ = std::io::stderr().write_all(text.as_bytes());
}

impl<F: Future> Future for HangGuard<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if is_disabled() {
            return this.inner.poll(cx);
        }
        let (at, limit) = (*this.at, *this.limit);
        let watch = match this.watch {
            Some(watch) => watch,
            None => {
                let name = name_of(at);
                let job = Box::new(Job::new(name.clone()));
                let fill = |details: &mut crate::inflight::Details| details.work = Work::Job(job);
                *this.watched = Watched::new(Registered::new(PolicyId::NONE, u64::MAX, 0, fill));
                this.watch.insert(Watch::start(name, limit))
            }
        };
        // A waker is the executor's code, which the lock must not wait for.
        let waker = cx.waker().clone();
        let (is_late, before) = {
            let mut state = lock_std(&watch.0.state);
            (state.is_late, state.waker.replace(waker))
        };
        drop(before);
        assert!(
            !is_late,
            "hang_guard at {}:{}: not finished after {}; where it waits was printed",
            short_path(at.file()),
            at.line(),
            duration(limit)
        );
        let inner = this.inner;
        let result = this.watched.poll(cx, |cx| inner.poll(cx));
        if result.is_ready() {
            this.watched.finish(|| (Ended::Finished, None));
            drop(this.watched.take());
            *this.watch = None;
        }
        result
    }
}

impl<F> fmt::Debug for HangGuard<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HangGuard").field("limit", &self.limit).finish_non_exhaustive()
    }
}
