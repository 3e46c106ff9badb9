//! The answer to come.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use pin_project_lite::pin_project;

use crate::timebox::core::{Core, Step};
use crate::timebox::{Interruption, interrupted, remaining};

type BoxError = Box<dyn Error + Send + Sync>;

/// Clients with a clock of their own (tonic's channel reads `grpc-timeout`, too) give up within this of the box.
const MARGIN: Duration = Duration::from_millis(2);

/// A box that expires polls its work at most three times before it drops it.
const POLLS: u8 = 4;

pin_project! {
    /// The future of a [`DeadlineService`](super::DeadlineService).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F> {
        // Dropped in this order: what the call does in its destructor happens in the box.
        #[pin]
        inner: Option<F>,
        core: Core,
        // When the time of the call is up. `None` without a limit.
        deadline: Option<Instant>,
        over: Over,
    }
}

/// What is known once the call is gone because its time is up.
#[derive(Debug, Default)]
struct Over {
    /// The client's error for that.
    error: Option<BoxError>,
    interruption: Option<Interruption>,
    polls: u8,
}

// An error is moved out, and nobody looks at it before.
impl std::panic::UnwindSafe for Over {}

impl<F> ResponseFuture<F> {
    pub(super) fn limited(inner: F, core: Core, deadline: Instant) -> Self {
        Self { inner: Some(inner), core, deadline: Some(deadline), over: Over::default() }
    }

    /// There is no time for the call, so none is made.
    pub(super) fn refused(core: Core) -> Self {
        Self { inner: None, core, deadline: None, over: Over::default() }
    }

    /// Boxes are switched off.
    pub(super) fn unlimited(inner: F) -> Self {
        let core = Core::closed(Duration::MAX.into());
        Self { inner: Some(inner), core, deadline: None, over: Over::default() }
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let step = this.core.poll_part(cx, |cx| {
            if let Some(inner) = this.inner.as_mut().as_pin_mut() {
                match inner.poll(cx) {
                    // The call failed because its own clock has run out. The box reports that.
                    Poll::Ready(Err(error)) if is_late(*this.deadline) => {
                        this.over.error = Some(error.into());
                        this.inner.set(None);
                    }
                    result => return result.map_err(Into::into).map(Some),
                }
            }
            this.over.poll(cx).map(|error| error.map(Err))
        });
        let result = match step {
            Step::Pending => return Poll::Pending,
            Step::Ready(Some(result)) => result,
            // Refused, and there is no box to report it.
            Step::Ready(None) => Err(this.core.interrupt().into()),
            Step::Interrupted(interrupted) => {
                this.inner.set(None);
                Err(interrupted.into())
            }
        };
        this.core.end();
        Poll::Ready(result)
    }
}

#[cold]
fn is_late(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| deadline.saturating_duration_since(Instant::now()) <= MARGIN)
}

impl Over {
    /// Waits until the box that is about to expire interrupts, whether it is the call's own box or one around. A ready
    /// error would win over the interruption, and a caller that repeats a failed call without a pause would never hear
    /// of it.
    ///
    /// Ready if no box interrupts: the one around leaves its work a grace, or there is none any more.
    #[cold]
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<BoxError>> {
        // So that a traced poll sees where it waits.
        drop(cx.waker().clone());
        if remaining().is_none_or(|left| left > MARGIN * 2) {
            return Poll::Ready(self.error.take());
        }
        // The interruption shows this line as its place.
        let interruption = self.interruption.get_or_insert(interrupted());
        let Poll::Ready(told) = Pin::new(interruption).poll(cx) else { return Poll::Pending };
        self.polls += 1;
        if self.polls < POLLS {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Some(told.into()))
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("core", &self.core)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}
