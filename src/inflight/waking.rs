//! Wakes other people's tasks, on threads of its own, because a waker is somebody else's code and may block.
//!
//! One thread at a time drives the queue. If a wake has not returned after [`PATIENCE`], another thread takes over the
//! queue, so nothing behind it waits longer than that. No thread keeps time while nothing waits.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex};
use std::task::Waker;
use std::time::{Duration, Instant};

use super::clones;
use crate::capture::RowId;
use crate::capture::{self, PerProcess};
use crate::sync::lock_std;

/// A wake takes microseconds. One that takes longer than this is left behind.
const PATIENCE: Duration = Duration::from_millis(2);
/// The most threads, including those that are held up.
const MAX_THREADS: usize = 8;
/// How many threads stay when there is nothing to do: one that drives, and one that keeps time.
const KEPT: usize = 2;

/// See [`Wakes`](crate::report::metrics::Wakes).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) slow: u64,
    pub(crate) blocked: u64,
    pub(crate) waiting: u64,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Waiting>,
    threads: usize,
    /// Threads with nothing to do.
    idle: usize,
    /// The wake that the driving thread is in: its number, and since when.
    driving: Option<(u64, Instant)>,
    /// Wakes that were ever begun.
    begun: u64,
    /// Whether a thread waits for the driver to take too long.
    is_timed: bool,
    /// Wakes that were left behind and have not returned.
    left: usize,
    slow: u64,
    /// Whether it was logged, or soon will be, that no thread is left. Until then, `unsaid` has what kept one from
    /// being made.
    said: bool,
    unsaid: Option<Option<std::io::Error>>,
}

/// A waker to be woken, and its row if it is a row's.
#[derive(Debug)]
struct Waiting {
    row: Option<RowId>,
    waker: Waker,
}

impl Waiting {
    fn wake(self) {
        match self.row {
            Some(row) => clones::wake_taken(row, self.waker),
            None => self.waker.wake(),
        }
    }
}

/// The queue and its threads.
#[derive(Debug, Default)]
struct Waking {
    state: Mutex<State>,
    changed: Condvar,
}

static WAKING: PerProcess<Waking> = PerProcess::new(Waking::default);

/// Makes the waker be woken soon, on another thread. This one runs nobody else's code.
pub(crate) fn wake(waker: Waker) {
    WAKING.get().push(Waiting { row: None, waker });
}

/// Does the same for a waker that was taken out of a row.
pub(crate) fn wake_row(row: RowId, waker: Waker) {
    WAKING.get().push(Waiting { row: Some(row), waker });
}

/// Takes back the waker of a row of that process, which is this one or an ancestor, if it still waits for a thread. For
/// callers who wake the row themselves and must not wait for heeler's turn.
pub(super) fn take_back(row: RowId, process: u32) -> Option<Waker> {
    let state = &WAKING.of(process)?.state;
    // A thread that doesn't exist here may hold a parent's lock.
    let mut state = if process == capture::process_number() { lock_std(state) } else { state.try_lock().ok()? };
    let at = state.queue.iter().position(|waiting| waiting.row == Some(row))?;
    state.queue.remove(at).map(|waiting| waiting.waker)
}

/// Logs what was found out where nothing may be logged. The reporter calls it now and then.
pub(crate) fn say_what_is_left() {
    let unsaid = lock_std(&WAKING.get().state).unsaid.take();
    if let Some(error) = unsaid {
        say(|| {
            let error = error.map(tracing::field::display);
            tracing::error!(
                target: "heeler",
                error,
                "no thread is left to wake tasks: they learn late, or never, that their time is up"
            );
        });
    }
}

/// Returns the numbers about wakes.
pub(crate) fn tally() -> Tally {
    let state = lock_std(&WAKING.get().state);
    Tally {
        slow: state.slow + u64::from(state.is_held_up()),
        blocked: (state.left + usize::from(state.is_held_up())) as u64,
        waiting: state.queue.len() as u64,
    }
}

impl State {
    /// Returns whether the wake that is going on has taken too long.
    fn is_held_up(&self) -> bool {
        self.driving.is_some_and(|(_, since)| since.elapsed() >= PATIENCE)
    }
}

/// What a thread should do next.
enum Next {
    Wake(u64, Waiting),
    End,
}

impl Waking {
    fn push(&'static self, waiting: Waiting) {
        let mut state = lock_std(&self.state);
        state.queue.push_back(waiting);
        if state.is_timed && state.driving.is_some() {
            // The driver gets to it, or is relieved.
            return;
        }
        let started = self.call_one(&mut state);
        let all_held_up = state.threads == MAX_THREADS && state.is_held_up();
        if (started.is_err() || all_held_up) && !std::mem::replace(&mut state.said, true) {
            // Not here, because logging runs other people's code, too.
            state.unsaid = Some(started.err());
        }
    }

    /// Makes a thread look at the queue. Returns an error if there is none and none could be made.
    fn call_one(&'static self, state: &mut State) -> std::io::Result<()> {
        if state.idle > 0 {
            self.changed.notify_one();
        } else if state.threads < MAX_THREADS {
            // The next caller tries again.
            let started = self.spawn(state);
            return if state.threads == 0 { started } else { Ok(()) };
        }
        Ok(())
    }

    fn spawn(&'static self, state: &mut State) -> std::io::Result<()> {
        let started = std::thread::Builder::new().name("heeler-waker".into()).spawn(move || {
            capture::sys::block_signals();
            self.run();
        });
        started.map(|_| state.threads += 1)
    }

    fn run(&'static self) {
        while let Next::Wake(number, waiting) = self.next() {
            // Waking runs a scheduler's code, which may panic if the scheduler is gone.
            if catch_unwind(AssertUnwindSafe(|| waiting.wake())).is_err() {
                say(|| tracing::error!(target: "heeler", "a waker panicked: its task may not hear of it"));
            }
            let mut state = lock_std(&self.state);
            if state.driving.is_some_and(|(driving, _)| driving == number) {
                // driving → done
                state.slow += u64::from(state.is_held_up());
                state.driving = None;
            } else {
                // left behind → back
                state.left -= 1;
            }
        }
    }

    fn next(&'static self) -> Next {
        let mut state = lock_std(&self.state);
        loop {
            match state.driving {
                // nobody drives → this thread does
                None => {
                    if let Some(waiting) = state.queue.pop_front() {
                        state.begun += 1;
                        let number = state.begun;
                        state.driving = Some((number, Instant::now()));
                        return Next::Wake(number, waiting);
                    }
                }
                // another thread does, and others wait → this thread keeps time
                Some((_, since)) if !state.queue.is_empty() && !state.is_timed => {
                    let left = PATIENCE.saturating_sub(since.elapsed());
                    if left.is_zero() {
                        // driving → left behind
                        state.driving = None;
                        state.left += 1;
                        state.slow += 1;
                        if state.queue.len() > 1 {
                            // This thread drives now, so another one has to keep time. If none can be made, `push` says
                            // so.
                            let _ = self.call_one(&mut state);
                        }
                        continue;
                    }
                    state.is_timed = true;
                    let waited = self.changed.wait_timeout(state, left);
                    state = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
                    state.is_timed = false;
                    continue;
                }
                Some(_) => {}
            }
            if state.idle >= KEPT {
                state.threads -= 1;
                return Next::End;
            }
            state.idle += 1;
            state = self.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
            state.idle -= 1;
        }
    }
}

/// Logs. A subscriber may panic, which must not end waking.
fn say(log: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(log));
}
