//! The response to come.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::Response;
use pin_project_lite::pin_project;

use super::ResponseBody;
use crate::inflight::Watched;

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
        match this.watched.poll(cx, |cx| inner.poll(cx)) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(response)) => {
                // The row is free from here on, or the body's.
                let watched = this.watched.take();
                let (head, body) = response.into_parts();
                let body = if *this.body {
                    ResponseBody::watched(body, watched)
                } else {
                    drop(watched);
                    ResponseBody::unwatched(body)
                };
                Poll::Ready(Ok(Response::from_parts(head, body)))
            }
            Poll::Ready(Err(error)) => {
                drop(this.watched.take());
                Poll::Ready(Err(error))
            }
        }
    }
}
