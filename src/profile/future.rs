//! The response to come: the service's own, or the profiler's.

use std::fmt;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use http::{HeaderName, HeaderValue, Response};
use pin_project_lite::pin_project;

use super::ResponseBody;
use super::body::Foreign;
use super::tail::Tail;

/// Says why a request was not profiled, on a response that is the service's own.
const X_GEORDI_ERROR: HeaderName = HeaderName::from_static("x-geordi-error");
const NO_RUNTIME: HeaderValue =
    HeaderValue::from_static("not profiled: the service was called outside of a tokio runtime");

/// How a request with the flag goes on.
pub(super) enum Step<F> {
    /// The service answers, as if there were no flag.
    Pass(F),
    /// The service answers, because a profile needs a tokio runtime and there is none.
    Unprofiled(F),
    Respond(Response<Foreign>),
}

/// Never locked. The lock lets the future be shared as the service's own may be.
type Asked<F, E> = Mutex<Pin<Box<dyn Future<Output = Result<Step<F>, E>> + Send>>>;

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
        // In a box, because it is rare and large.
        Tail { tail: Box<Tail<F>> },
        Unprofiled {
            #[pin]
            inner: F,
        },
    }
}

impl<F, E> ResponseFuture<F, E> {
    #[inline]
    pub(super) fn pass(inner: F) -> Self {
        Self { state: State::Pass { inner } }
    }

    pub(super) fn tail(tail: Tail<F>) -> Self {
        Self { state: State::Tail { tail: Box::new(tail) } }
    }

    pub(super) fn asked(asked: impl Future<Output = Result<Step<F>, E>> + Send + 'static) -> Self {
        Self { state: State::Asked { asked: Mutex::new(Box::pin(asked)) } }
    }
}

impl<F, R, E> Future for ResponseFuture<F, E>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: fmt::Display,
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
                StateProjection::Tail { tail } => {
                    return tail.poll(cx).map(|result| Ok(result?.map(ResponseBody::plain)));
                }
                StateProjection::Asked { asked } => {
                    match asked.get_mut().unwrap_or_else(PoisonError::into_inner).as_mut().poll(cx) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Ready(Ok(Step::Respond(response))) => {
                            return Poll::Ready(Ok(response.map(ResponseBody::foreign)));
                        }
                        // asked → pass
                        Poll::Ready(Ok(Step::Pass(inner))) => state.set(State::Pass { inner }),
                        // asked → unprofiled
                        Poll::Ready(Ok(Step::Unprofiled(inner))) => state.set(State::Unprofiled { inner }),
                    }
                }
                StateProjection::Unprofiled { inner } => {
                    return inner.poll(cx).map(|result| {
                        let mut response = result?.map(ResponseBody::plain);
                        response.headers_mut().insert(X_GEORDI_ERROR, NO_RUNTIME);
                        Ok(response)
                    });
                }
            }
        }
    }
}

impl<F, E> fmt::Debug for ResponseFuture<F, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
