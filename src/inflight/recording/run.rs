//! Polling a task.

use std::cell::{Cell, RefCell};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll};

use super::log::{Log, PollEntry, WaitEntry};
use super::session::{Active, Session};
use super::wake::{Tracing, Woken};
use crate::capture::ThreadSlot;
use crate::capture::frame_address;
use crate::capture::{self, Arena, sys};
use crate::clock::now;
use crate::inflight::poll::{give_arena, take_arena};
use crate::inflight::{How, WaitKind};
use crate::sync::lock_std;

/// Recorded work, as its owner has it. Dropping it ends the work.
#[derive(Debug)]
pub(crate) struct TaskRecorder(Arc<Inner>);

/// What the session knows about a task.
pub(super) struct Inner {
    session: Arc<Session>,
    number: u32,
    pub(super) log: Mutex<Log>,
    woken: Mutex<Option<Woken>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("number", &self.number).finish_non_exhaustive()
    }
}

thread_local! {
    /// The task that this thread polls.
    static CURRENT: RefCell<Option<Arc<Inner>>> = const { RefCell::new(None) };
    /// The task whose last poll ever was on this thread, by session and number. Whatever waits for it is woken next.
    /// Valid until the thread polls another task, or sleeps.
    static LAST: Cell<Option<Last>> = const { Cell::new(None) };
}

/// What waits for a task's end is woken within that many nanoseconds, or something else has woken it. It is 5 ms,
/// because the thread may lose the CPU in between.
const AT_ONCE: u64 = 5_000_000;

#[derive(Debug, Clone, Copy)]
struct Last {
    session: u64,
    recorder: u32,
    ended: u64,
    /// How often the thread had slept by then.
    sleeps: u64,
}

impl Last {
    /// Returns whether the calling code may still follow from the task's end. If the thread has slept since, it wakes
    /// others for another reason.
    fn is_just_over(&self) -> bool {
        now().saturating_sub(self.ended) < AT_ONCE && sys::own_sleeps() == self.sleeps
    }
}

/// Returns a recorder for work that the calling code hands on, or `None` outside of any recording.
pub(crate) fn current_recorder(how: How) -> Option<TaskRecorder> {
    let current = CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()?;
    TaskRecorder::enter(&current.session, Some((current.number, how)))
}

/// Returns the task of the same session that the calling thread runs, or has just finished.
pub(super) fn running(recorder: &Inner) -> Option<u32> {
    let current = CURRENT.try_with(|current| {
        let current = current.borrow();
        let number = |other: &Arc<Inner>| Arc::ptr_eq(&other.session, &recorder.session).then_some(other.number);
        current.as_ref().and_then(number)
    });
    let number = current.ok().flatten();
    let last = || {
        let last = LAST.get().filter(|last| last.session == recorder.session.id())?;
        last.is_just_over().then_some(last.recorder)
    };
    number.or_else(last).filter(|number| *number != recorder.number)
}

impl Inner {
    /// Returns whether the recording has ended.
    pub(super) fn is_over(&self) -> bool {
        self.session.has_ended()
    }

    /// Notes a wake-up. Only the first one since the last poll began counts.
    pub(super) fn note_wake(&self, woken: impl FnOnce() -> Woken) {
        if !self.session.is_own() {
            return;
        }
        lock_std(&self.woken).get_or_insert_with(woken);
    }
}

impl TaskRecorder {
    /// Creates the recorder of a new session's root work.
    pub(crate) fn root(session: &Arc<Session>) -> Self {
        Self::enter(session, None).unwrap_or_else(|| Self(Self::inner(session, 0, None)))
    }

    /// Returns `None` if the session has ended or has too many tasks.
    fn enter(session: &Arc<Session>, parent: Option<(u32, How)>) -> Option<Self> {
        session.enter(|number| Self::inner(session, number, parent)).map(Self)
    }

    fn inner(session: &Arc<Session>, number: u32, parent: Option<(u32, How)>) -> Arc<Inner> {
        Arc::new(Inner {
            session: Arc::clone(session),
            number,
            log: Mutex::new(Log::new(parent, now())),
            woken: Mutex::new(None),
        })
    }

    /// Polls the work. It must be within the row's poll, which knows the thread.
    pub(crate) fn poll<T>(&self, cx: &mut Context<'_>, poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        if self.0.session.has_ended() {
            return poll(cx);
        }
        let frame = frame_address!();
        let mut arena = take_arena();
        let had_budget = tokio::task::coop::has_budget_remaining();
        let tracing = Tracing { recorder: &self.0, numbers: Arc::new(OnceLock::new()) };
        let running = Running::begin(&self.0);
        let result = capture::trace_branches(&mut arena, frame, &tracing, cx, poll);
        let kind = match (arena.wakes, arena.clones) {
            (0, 0) => WaitKind::NoWaker,
            (0, _) if had_budget => WaitKind::Waiting,
            _ => WaitKind::Yielding,
        };
        running.end(result.is_pending().then_some((&arena, kind, &tracing)));
        give_arena(arena);
        result
    }

    /// Runs a closure as the task's only poll.
    pub(crate) fn run<T>(&self, f: impl FnOnce() -> T) -> T {
        if self.0.session.has_ended() {
            return f();
        }
        let running = Running::begin(&self.0);
        let result = f();
        running.end(None);
        result
    }
}

impl Drop for TaskRecorder {
    fn drop(&mut self) {
        if !self.0.session.is_own() {
            return;
        }
        let mut log = lock_std(&self.0.log);
        log.ended.get_or_insert_with(now);
    }
}

/// A poll that is going on. One that panics is over, too.
struct Running<'a> {
    recorder: &'a Arc<Inner>,
    previous: Option<Arc<Inner>>,
    woken: Option<Woken>,
    entered: u64,
    began: u64,
    cpu: u64,
    over: bool,
}

impl<'a> Running<'a> {
    fn begin(recorder: &'a Arc<Inner>) -> Self {
        let entered = now();
        let woken = lock_std(&recorder.woken).take();
        let previous = CURRENT.try_with(|current| current.replace(Some(Arc::clone(recorder)))).ok().flatten();
        LAST.set(None);
        let cpu = sys::own_cpu_time();
        let slot = ThreadSlot::existing().and_then(|slot| Some((slot, slot.polling()?.1)));
        let began = now();
        {
            let mut log = lock_std(&recorder.log);
            (log.polling, log.ended) = (Some(began), None);
        }
        if let Some((slot, sequence)) = slot {
            recorder.session.begin(Active { recorder: recorder.number, slot, sequence, began, cpu });
        }
        Self { recorder, previous, woken, entered, began, cpu, over: false }
    }

    /// Ends the poll, with what it left behind if it is pending.
    fn end(mut self, pending: Option<(&Arena, WaitKind, &Tracing<'_>)>) {
        self.over = true;
        self.close(pending);
    }

    fn close(&mut self, pending: Option<(&Arena, WaitKind, &Tracing<'_>)>) {
        let ended = now();
        let Self { recorder, began, .. } = *self;
        let cpu = sys::own_cpu_time().saturating_sub(self.cpu);
        let previous = self.previous.take();
        let is_outermost = previous.is_none();
        let _ = CURRENT.try_with(|current| current.replace(previous));
        if !recorder.session.is_own() {
            // The poll has forked.
            return;
        }
        recorder.session.end_poll(recorder.number, began);
        let mut log = lock_std(&recorder.log);
        log.polling = None;
        if log.is_over {
            return;
        }
        let wake = self.woken.take().map(|woken| woken.entry());
        let mut wait = WaitEntry { kind: WaitKind::NoWaker, first: log.stacks.len() as u32, branches: 0, lost: 0 };
        if recorder.session.count_poll() {
            if let Some((arena, kind, tracing)) = pending {
                let lost = recorder.session.keep(arena, &mut log.stacks);
                let numbers = &log.stacks[wait.first as usize..];
                // Set once per poll.
                let _ = tracing.numbers.set(numbers.into());
                (wait.kind, wait.branches, wait.lost) = (kind, numbers.len() as u16, lost.min(u16::MAX.into()) as u16);
            }
            log.polls.push(PollEntry { began, ended, cpu, wake, wait });
        } else {
            log.unwritten += 1;
            log.cut.get_or_insert(began);
        }
        if pending.is_none() {
            log.ended = Some(ended);
            if is_outermost {
                let session = recorder.session.id();
                LAST.set(Some(Last { session, recorder: recorder.number, ended, sleeps: sys::own_sleeps() }));
            }
        }
        let own = began.saturating_sub(self.entered) + now().saturating_sub(ended);
        log.own += own;
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.over {
            self.close(None);
        }
    }
}
