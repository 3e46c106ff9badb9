//! The response to come: the service's own, or what a profiler has to say.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Response;
use pin_project_lite::pin_project;

use super::ResponseBody;
use super::body::Foreign;

/// What becomes of a request with the flag.
pub(super) enum Step<F> {
    /// The service answers, as if there were no flag.
    Pass(F),
    Respond(Response<Foreign>),
}

type Asked<F, E> = Pin<Box<dyn Future<Output = Result<Step<F>, E>> + Send>>;

pin_project! {
    /// The future of a [`ProfileService`](super::ProfileService).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F, E> {
        #[pin]
        state: State<F, E>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F, E> {
        Pass {
            #[pin]
            inner: F,
        },
        Asked { asked: Asked<F, E> },
    }
}

impl<F, E> ResponseFuture<F, E> {
    #[inline]
    pub(super) fn pass(inner: F) -> Self {
        Self { state: State::Pass { inner } }
    }

    pub(super) fn asked(asked: impl Future<Output = Result<Step<F>, E>> + Send + 'static) -> Self {
        Self { state: State::Asked { asked: Box::pin(asked) } }
    }
}

impl<F, R, E> Future for ResponseFuture<F, E>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<ResponseBody<R>>, E>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            match state.as_mut().project() {
                StateProjection::Pass { inner } => {
                    return inner.poll(cx).map(|result| {
                        let (head, body) = result?.into_parts();
                        Ok(Response::from_parts(head, ResponseBody::plain(body)))
                    });
                }
                StateProjection::Asked { asked } => match asked.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Ready(Ok(Step::Respond(response))) => {
                        return Poll::Ready(Ok(response.map(ResponseBody::foreign)));
                    }
                    // asked → pass
                    Poll::Ready(Ok(Step::Pass(inner))) => state.set(State::Pass { inner }),
                },
            }
        }
    }
}

impl<F, E> fmt::Debug for ResponseFuture<F, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
