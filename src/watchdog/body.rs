//! The response's body: its clock runs while somebody waits for a frame, and stands still otherwise.

use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::clock::Clock;
use crate::inflight::{Ended, Watched, flags};

pin_project! {
    /// The body of a response of a [`WatchdogService`](super::WatchdogService). Frames, trailers, errors, size hint and end of stream
    /// are those of the body inside.
    #[derive(Debug)]
    pub struct ResponseBody<B> {
        #[pin]
        inner: B,
        watched: Watched,
    }
}

impl<B> ResponseBody<B> {
    #[inline]
    pub(super) fn unwatched(inner: B) -> Self {
        Self { inner, watched: Watched::off() }
    }

    pub(super) fn watched(inner: B, mut watched: Watched) -> Self {
        watched.pause(flags::BODY);
        Self { inner, watched }
    }
}

impl<B: Body> Body for ResponseBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    #[inline]
    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let inner = this.inner;
        let result = this.watched.poll(cx, |cx| inner.poll_frame(cx));
        match &result {
            // somebody waits, so the clock runs
            Poll::Pending => this.watched.resume(|| Clock::get().ticks()),
            // delivered: the clock stands still until somebody asks again
            Poll::Ready(Some(Ok(_))) => {
                this.watched.finish(|| (Ended::Finished, None));
                this.watched.pause(0);
            }
            // over, so the row is free
            Poll::Ready(end) => {
                this.watched.finish(|| (if end.is_none() { Ended::Finished } else { Ended::Failed }, None));
                drop(this.watched.take());
            }
        }
        result
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    #[inline]
    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// An empty body, for frameworks that want one.
impl<B: Default> Default for ResponseBody<B> {
    fn default() -> Self {
        Self::unwatched(B::default())
    }
}
