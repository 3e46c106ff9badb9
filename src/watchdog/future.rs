//! The response to come.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::Response;
use pin_project_lite::pin_project;

use super::ResponseBody;
use crate::capture::frame_address;
use crate::inflight::{Ended, InsteadOfResponse, PollKind, Watched};

pin_project! {
    /// The future of a [`WatchdogService`](super::WatchdogService).
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
        let kind = this.watched.kind(&inside, cx);
        let plain = kind == PollKind::Plain;
        let result = if plain { inner.poll(cx) } else { this.watched.seen(cx, frame, kind, |cx| inner.poll(cx)) };
        this.watched.leave(inside, kind, result.is_pending().then(|| cx.waker()));
        if result.is_pending() {
            return Poll::Pending;
        }
        this.watched.finish(|| ending_of(&result));
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

/// Returns how a request has ended, and with which status.
fn ending_of<R, E>(result: &Poll<Result<Response<R>, E>>) -> (Ended, Option<u16>) {
    let Poll::Ready(Ok(response)) = result else { return (Ended::Failed, None) };
    let how = match response.extensions().get::<InsteadOfResponse>() {
        Some(_) => Ended::Interrupted,
        None => Ended::Finished,
    };
    (how, Some(response.status().as_u16()))
}
