//! The response to come.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::Response;
use pin_project_lite::pin_project;

use super::ResponseBody;
use crate::inflight::{Watched, frame_address};

pin_project! {
    /// The future of a [`Watchdog`](super::Watchdog).
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F> {
        // Dropped in this order: what the inner future does in its destructor is still this request.
        #[pin]
        inner: F,
        watched: Watched,
        body: bool,
    }
}

impl<F> ResponseFuture<F> {
    #[inline]
    pub(super) fn new(inner: F, watched: Watched, body: bool) -> Self {
        Self { inner, watched, body }
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<ResponseBody<R>>, E>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let inner = this.inner;
        let frame = frame_address!();
        let inside = this.watched.begin(frame);
        let traced = this.watched.is_traced(&inside);
        let result = if traced { this.watched.traced(cx, frame, |cx| inner.poll(cx)) } else { inner.poll(cx) };
        this.watched.leave(inside, traced, result.is_pending().then(|| cx.waker()));
        if result.is_pending() {
            return Poll::Pending;
        }
        let watch_body = *this.body || this.watched.wants_body();
        if !watch_body {
            // The row is free from here on.
            this.watched.end();
        }
        match result {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => {
                this.watched.end();
                Poll::Ready(Err(error))
            }
            Poll::Ready(Ok(response)) => {
                let (head, body) = response.into_parts();
                let body = if watch_body {
                    ResponseBody::watched(body, this.watched.take())
                } else {
                    ResponseBody::unwatched(body)
                };
                Poll::Ready(Ok(Response::from_parts(head, body)))
            }
        }
    }
}
