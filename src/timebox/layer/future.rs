//! The response to come, or the answer that replaces it.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::Response;
use http::request::Parts;
use http_body::Body;
use pin_project_lite::pin_project;

use super::ResponseBody;
use super::answer::{Protocol, answer};
use super::settings::Config;
use crate::capture::frame_address;
use crate::inflight::{InsteadOfResponse, PollKind};
use crate::timebox::core::Step;
use crate::timebox::open::Open;

pin_project! {
    /// The future of a [`TimeboxService`](super::TimeboxService).
    ///
    /// # Panics
    ///
    /// Panics if it is polled after it was ready.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F> {
        // Dropped in this order: what the service does in its destructor happens in the box.
        #[pin]
        inner: Option<F>,
        open: Open,
        config: &'static Config,
        protocol: Protocol,
        // For an answer that needs to look at it.
        head: Option<Box<Parts>>,
    }
}

// A request's head is only read.
impl<F: std::panic::UnwindSafe> std::panic::UnwindSafe for ResponseFuture<F> {}

impl<F> ResponseFuture<F> {
    #[inline]
    pub(super) fn new(
        inner: F,
        open: Open,
        config: &'static Config,
        protocol: Protocol,
        head: Option<Box<Parts>>,
    ) -> Self {
        Self { inner: Some(inner), open, config, protocol, head }
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body,
{
    type Output = Result<Response<ResponseBody<R>>, E>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        // Does not use `Open::poll`: a response is some hundred bytes, and moving it takes longer than everything else.
        let frame = frame_address!();
        let begun = this.open.begin(frame, cx);
        let (kind, inner) = (begun.kind, this.inner.as_mut());
        let plain = kind == PollKind::Plain;
        let result = if plain { poll(inner, cx) } else { this.open.seen(cx, frame, kind, |cx| poll(inner, cx)) };
        let is_over = this.open.leave(begun, cx, result.is_pending());
        match result {
            Poll::Pending if is_over => {
                let label = || this.config.label.clone();
                match this.open.last(kind, cx, label, |cx| poll(this.inner.as_mut(), cx)) {
                    Step::Interrupted(interrupted) => {
                        // In the box, so that a watchdog inside learns the outcome of its request.
                        this.open.run(|| this.inner.set(None));
                        this.open.end();
                        let head = this.head.as_deref();
                        let mut answer = answer(this.config, *this.protocol, &interrupted, head);
                        // For layers further out. It never leaves the process.
                        answer.extensions_mut().insert(interrupted);
                        answer.extensions_mut().insert(InsteadOfResponse);
                        Poll::Ready(Ok(answer.map(ResponseBody::answer)))
                    }
                    Step::Ready(result) => Poll::Ready(respond(this.open, this.config, *this.protocol, result)),
                    Step::Pending => Poll::Pending,
                }
            }
            Poll::Pending => Poll::Pending,
            Poll::Ready(result) => Poll::Ready(respond(this.open, this.config, *this.protocol, result)),
        }
    }
}

#[inline]
fn poll<F: Future>(inner: Pin<&mut Option<F>>, cx: &mut Context<'_>) -> Poll<F::Output> {
    match inner.as_pin_mut() {
        Some(inner) => inner.poll(cx),
        None => polled_again(),
    }
}

/// Returns the service's own response. Inlined, because moving one takes longer than everything else.
#[inline(always)]
fn respond<R: Body, E>(
    open: &mut Open,
    config: &'static Config,
    protocol: Protocol,
    result: Result<Response<R>, E>,
) -> Result<Response<ResponseBody<R>>, E> {
    let covers = config.body && result.as_ref().is_ok_and(|response| !response.body().is_end_stream());
    if !covers {
        open.end();
    }
    let (head, body) = result?.into_parts();
    let body =
        if covers { ResponseBody::boxed(body, open.take(), config, protocol) } else { ResponseBody::plain(body) };
    Ok(Response::from_parts(head, body))
}

#[cold]
#[inline(never)]
fn polled_again() -> ! {
    panic!("a response was polled after its timebox was interrupted")
}

impl<F> std::fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").field("open", &self.open).finish_non_exhaustive()
    }
}
