//! One recording: from the first poll of a request to the last byte of its response.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::SystemTime;

use pin_project_lite::pin_project;

use super::live::Live;
use super::tree::Names;
use super::{sampler, timeline};
use crate::capture::ThreadSlot;
use crate::clock::now;
use crate::inflight::recording::{Place, Session, TaskRecorder};
use crate::inflight::{Job, PolicyId, Registered, Scope, Watched, Work, flags, is_in_request};
use crate::profile::{Node, Quality, Slice};
use crate::report;
use crate::report::Frame;
use crate::sync::lock_std;

/// Records what futures do that are polled with it, one after the other.
#[derive(Debug, Clone)]
pub(crate) struct Recording(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    started_at: SystemTime,
    began: u64,
    live: Arc<Live>,
    root: Arc<TaskRecorder>,
    is_sampled: bool,
    /// Whether there was a row for each part of its work. Only polls of rows are sampled.
    has_rows: AtomicBool,
}

/// How far a recording is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    /// Nanoseconds since its beginning.
    pub(crate) nanos: u64,
    pub(crate) polls: u64,
    pub(crate) samples: u64,
    /// Where the request waits now, or which function it runs: the application's own, in words.
    pub(crate) place: Option<String>,
}

/// What was recorded: the parts of a profile that a recording knows.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) started_at: SystemTime,
    pub(crate) wall_nanos: u64,
    pub(crate) frames: Vec<Frame>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) slices: Vec<Slice>,
    pub(crate) beside: Vec<Slice>,
    pub(crate) quality: Quality,
    pub(crate) notes: Vec<String>,
}

impl Recording {
    /// Begins now. `rate_hz`: samples per second of a thread that is inside a poll.
    pub(crate) fn start(rate_hz: u32) -> Self {
        report::start_watching();
        let session = Session::new();
        let root = Arc::new(TaskRecorder::root(&session));
        let live = Arc::new(Live::new(session, 1_000_000_000 / u64::from(rate_hz.max(1))));
        let is_sampled = sampler::join(&live);
        Self(Arc::new(Inner {
            started_at: SystemTime::now(),
            began: now(),
            live,
            root,
            is_sampled,
            has_rows: AtomicBool::new(true),
        }))
    }

    /// Records the polls of the future.
    pub(crate) fn record<F>(&self, future: F) -> Recorded<F> {
        let registered = Registered::new(PolicyId::NONE, u64::MAX, flags::PROFILED, |details| {
            details.work = Work::Job(Box::new(Job::new("profile")));
        });
        if registered.is_none() {
            self.0.has_rows.store(false, Ordering::Relaxed);
        }
        Recorded { future, recorder: Arc::clone(&self.0.root), watched: Watched::new(registered) }
    }

    /// Records the polls of the future, which stays in what it belongs to: its limits and thresholds apply.
    pub(crate) fn record_in_place<F>(&self, future: F) -> InPlace<F> {
        // A thread is known by the row that it polls. There is one already, unless no layer around watches the request.
        let registered = if is_in_request() {
            None
        } else {
            let row = Registered::new(PolicyId::NONE, u64::MAX, flags::UNLISTED, |details| {
                details.work = Work::Job(Box::new(Job::new("profile")));
            });
            if row.is_none() {
                self.0.has_rows.store(false, Ordering::Relaxed);
            }
            row
        };
        let (recorder, watched) = (Arc::clone(&self.0.root), Watched::new(registered));
        InPlace { future, recorder, watched, recording: self.clone() }
    }

    /// Returns what all parts of the recording share, as long as one of them exists.
    #[cfg(test)]
    pub(super) fn session(&self) -> std::sync::Weak<Session> {
        Arc::downgrade(&self.0.live.session)
    }

    /// Locks what was seen until the value is dropped, like a sampler that is at work.
    #[cfg(test)]
    pub(crate) fn hold(&self) -> impl Drop + '_ {
        lock_std(&self.0.live.data)
    }

    /// Returns how far it is. `own_crates` count as the application's own, too. Has no place while other profiles are
    /// being named. May take milliseconds, and many the first time in a process, so call it on a thread that may block.
    pub(crate) fn progress(&self, own_crates: &[String]) -> Progress {
        let Inner { began, live, .. } = &*self.0;
        let place = live.session.place();
        let data = lock_std(&live.data);
        let at = match place {
            Place::Polling => data.samples.taken.last().map(|sample| sample.stack),
            Place::Waiting(number) => data.stacks.awaited(number),
            Place::Unknown => None,
        };
        let addresses = at.map(|at| data.stacks.path(at)).unwrap_or_default();
        let samples = data.samples.taken.len() as u64;
        drop(data);
        let place = if addresses.is_empty() {
            None
        } else {
            Names::try_get().and_then(|mut names| names.own_place(&addresses, own_crates))
        };
        Progress { nanos: live.session.until().saturating_sub(*began), polls: live.session.polls(), samples, place }
    }

    /// Ends what belongs to the recording.
    pub(crate) fn stop(&self) {
        self.0.live.session.end();
    }

    /// Ends the recording. Takes milliseconds, so call it on a thread that may block.
    pub(crate) fn finish(self) -> Record {
        let inner = &*self.0;
        let session = &inner.live.session;
        let ended = session.end();
        sampler::leave(&inner.live);
        let logs = session.take_logs();
        // The request may have ended before.
        let ended = logs.first().and_then(|log| log.ended).map_or(ended, |of_request| of_request.min(ended));
        let mut data = lock_std(&inner.live.data);
        data.stacks.add_awaits(inner.live.session.take_raw());
        let mut record = timeline::build(&logs, &data.stacks, &data.samples, inner.began, ended, inner.live.period);
        if !inner.is_sampled || !crate::capture::sys::SUPPORTED {
            record.notes.push("threads cannot be sampled here: polls are not subdivided".to_owned());
        }
        if !inner.has_rows.load(Ordering::Relaxed) {
            record.notes.push("polls were not sampled: too much work is in flight to be watched, or this is polled apart from the request around it".to_owned());
        }
        if session.unknown() > 0 {
            let note = "spawned tasks were too many to be told apart: waits for them are not looked into";
            record.notes.push(format!("{} {note}", session.unknown()));
        }
        record.started_at = inner.started_at;
        record
    }
}

/// Returns whether the calling code runs in a poll that a sampler can find.
fn is_in_poll() -> bool {
    ThreadSlot::existing().is_some_and(|slot| slot.polling().is_some())
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !self.live.session.is_own() {
            return;
        }
        // Otherwise the session and its tasks would keep each other alive.
        drop(self.live.session.take_logs());
        sampler::leave(&self.live);
    }
}

pin_project! {
    /// A future whose polls are recorded.
    #[derive(Debug)]
    pub(crate) struct Recorded<F> {
        // Dropped in this order, because what the future does in its destructor still belongs to this work.
        #[pin]
        future: F,
        recorder: Arc<TaskRecorder>,
        watched: Watched,
    }
}

pin_project! {
    /// A future whose polls are recorded where it is.
    #[derive(Debug)]
    pub(crate) struct InPlace<F> {
        // Dropped in this order, as above.
        #[pin]
        future: F,
        recorder: Arc<TaskRecorder>,
        watched: Watched,
        recording: Recording,
    }
}

impl<F: Future> Future for InPlace<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let (future, recorder) = (this.future, this.recorder);
        // What is around it may have handed it to another task.
        if this.watched.row().is_none() && !is_in_poll() {
            this.recording.0.has_rows.store(false, Ordering::Relaxed);
        }
        this.watched.poll(cx, |cx| recorder.poll(cx, |cx| future.poll(cx)))
    }
}

impl<F: Future> Future for Recorded<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let (future, recorder) = (this.future, this.recorder);
        let scope = this.watched.row().map(|(row, _)| Scope::enter_inheritor(row));
        let result = this.watched.poll(cx, |cx| recorder.poll(cx, |cx| future.poll(cx)));
        drop(scope);
        result
    }
}
