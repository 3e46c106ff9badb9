//! One recording: from the first poll of a request to the last byte of its response.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::SystemTime;

use pin_project_lite::pin_project;

use crate::inflight::now;
use crate::profile::{Node, Quality, Slice, State};
use crate::report::Frame;
use crate::sync::lock_std;

/// Records what futures do that are polled with it, one after the other.
#[derive(Debug, Clone)]
pub(crate) struct Recording(Arc<Mutex<Times>>);

#[derive(Debug, Clone, Copy)]
struct Times {
    began_at: SystemTime,
    began: u64,
    polls: u64,
    busy: u64,
}

/// How far a recording is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    /// Since its beginning.
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
    /// Begins now. `rate_hz`: samples a second of a thread that is inside a poll.
    pub(crate) fn start(_rate_hz: u32) -> Self {
        Self(Arc::new(Mutex::new(Times { began_at: SystemTime::now(), began: now(), polls: 0, busy: 0 })))
    }

    /// Polls of the future are recorded.
    pub(crate) fn record<F>(&self, future: F) -> Recorded<F> {
        Recorded { future, recording: self.clone() }
    }

    /// How far it is.
    pub(crate) fn progress(&self) -> Progress {
        let times = *lock_std(&self.0);
        Progress { nanos: now().saturating_sub(times.began), polls: times.polls, samples: 0, place: None }
    }

    /// Ends the recording. Takes milliseconds: for a thread that may block.
    pub(crate) fn finish(self) -> Record {
        let times = *lock_std(&self.0);
        let wall_nanos = now().saturating_sub(times.began);
        let busy = times.busy.min(wall_nanos);
        let frame = |name: &str| Frame { function: Some(name.to_owned()), own: true, ..Frame::default() };
        let slice = |start_nanos, nanos, state, stack| Slice { start_nanos, nanos, state, stack, count: 0 };
        Record {
            started_at: times.began_at,
            wall_nanos,
            frames: vec![frame("[unattributed]")],
            nodes: vec![Node { parent: None, frame: 0 }],
            slices: vec![slice(0, busy, State::OnCpu, 0), slice(busy, wall_nanos - busy, State::Waiting, 0)],
            beside: Vec::new(),
            quality: Quality { polls: times.polls, ..Quality::default() },
            notes: Vec::new(),
        }
    }
}

pin_project! {
    /// A future whose polls are recorded.
    #[derive(Debug)]
    pub(crate) struct Recorded<F> {
        #[pin]
        future: F,
        recording: Recording,
    }
}

impl<F: Future> Future for Recorded<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let began = now();
        let result = this.future.poll(cx);
        let mut times = lock_std(&this.recording.0);
        times.polls += 1;
        times.busy += now().saturating_sub(began);
        result
    }
}
