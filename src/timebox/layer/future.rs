//! The response to come, or the answer in its place.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::Response;
use http::request::Parts;
use http_body::Body;
use pin_project_lite::pin_project;

use super::ResponseBody;
use super::answer::{Protocol, answer};
use super::settings::Config;
use crate::timebox::core::{Core, Step};

pin_project! {
    /// The future of a [`TimeboxService`](super::TimeboxService).
    ///
    /// # Panics
    ///
    /// If it is polled after it was ready.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F> {
        // Dropped in this order: what the service does in its destructor happens in the box.
        #[pin]
        inner: Option<F>,
        core: Core,
        config: &'static Config,
        protocol: Protocol,
        // For an answer that wants to look at it.
        head: Option<Box<Parts>>,
    }
}

impl<F> ResponseFuture<F> {
    #[inline]
    pub(super) fn new(
        inner: F,
        core: Core,
        config: &'static Config,
        protocol: Protocol,
        head: Option<Box<Parts>>,
    ) -> Self {
        Self { inner: Some(inner), core, config, protocol, head }
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
        let step = this.core.poll_part(cx, |cx| match this.inner.as_mut().as_pin_mut() {
            Some(inner) => inner.poll(cx),
            None => polled_again(),
        });
        match step {
            Step::Pending => Poll::Pending,
            Step::Ready(Ok(response)) if this.config.body && !response.body().is_end_stream() => {
                let core = this.core.take();
                Poll::Ready(Ok(response.map(|body| ResponseBody::boxed(body, core, *this.protocol))))
            }
            Step::Ready(result) => {
                this.core.end();
                Poll::Ready(result.map(|response| response.map(ResponseBody::plain)))
            }
            Step::Interrupted(interrupted) => {
                // In the box, so that a watchdog within knows what became of its request.
                this.core.run(|| this.inner.set(None));
                this.core.end();
                let mut answer = answer(this.config, *this.protocol, &interrupted, this.head.as_deref());
                // For layers further out, and for nobody outside of the process.
                answer.extensions_mut().insert(interrupted);
                Poll::Ready(Ok(answer.map(ResponseBody::answer)))
            }
        }
    }
}

#[cold]
#[inline(never)]
fn polled_again() -> ! {
    panic!("a response was polled after its timebox was interrupted")
}

impl<F> std::fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").field("core", &self.core).finish_non_exhaustive()
    }
}
