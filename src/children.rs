//! Work that a request hands to other tasks and threads. Its stacks appear under the request's, and timeboxes apply to
//! it, too.

use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::task::JoinHandle;

use crate::capture::frame_address;
use crate::inflight::recording::{TaskRecorder, current_recorder};
use crate::inflight::{self, How, Watched, flags};

pin_project! {
    /// The future returned by [`watch_child`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct WatchChild<F> {
        // Declared in drop order: what the inner future does in its destructor still belongs to this work.
        #[pin]
        inner: F,
        recorder: Option<TaskRecorder>,
        watched: Watched,
    }
}

impl<F: Future> Future for WatchChild<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let inner = this.inner;
        let scope = this.watched.within_boxes();
        let recorder = this.recorder.as_ref();
        let result = this.watched.poll(cx, |cx| match recorder {
            Some(recorder) => recorder.poll(cx, |cx| inner.poll(cx)),
            None => inner.poll(cx),
        });
        drop(scope);
        if result.is_ready() {
            drop(this.watched.take());
        }
        result
    }
}

/// Makes a future visible that its parent doesn't poll each time: a member of a `FuturesUnordered`, a
/// `buffer_unordered` or a large `join_all`. Outside of watched work it does nothing.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use futures::stream::{FuturesUnordered, StreamExt};
///
/// let fetches: FuturesUnordered<_> = (0..3).map(|page| heeler::watch_child(async move { page })).collect();
/// # assert_eq!(fetches.count().await, 3);
/// # }
/// ```
#[track_caller]
pub fn watch_child<F: Future>(future: F) -> WatchChild<F> {
    WatchChild { inner: future, recorder: None, watched: inflight::child(How::WatchChild, Location::caller(), 0) }
}

/// Spawns a task as [`tokio::spawn`] does and carries the request along: a report on the request also shows where the
/// new task is.
///
/// # Panics
///
/// Outside of a tokio runtime, as [`tokio::spawn`] does.
#[track_caller]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let recorder = current_recorder(How::Spawn);
    tokio::spawn(WatchChild { inner: future, recorder, watched: inflight::child(How::Spawn, Location::caller(), 0) })
}

/// Runs `f` as [`tokio::task::spawn_blocking`] does and carries the request along: a report on the request also shows
/// the stack of the blocking thread.
///
/// # Panics
///
/// Outside of a tokio runtime, as [`tokio::task::spawn_blocking`] does.
#[track_caller]
pub fn spawn_blocking<F, T>(f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let watched = inflight::child(How::SpawnBlocking, Location::caller(), flags::MAY_BLOCK);
    let recorder = current_recorder(How::SpawnBlocking);
    tokio::task::spawn_blocking(move || {
        let inside = watched.enter(frame_address!());
        let scope = watched.within_boxes();
        let result = match recorder {
            Some(recorder) => recorder.run(f),
            None => f(),
        };
        drop(scope);
        drop(inside);
        result
    })
}
