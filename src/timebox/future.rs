//! A future with a limit.

use std::borrow::Cow;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;

use super::core::{Core, Step};
use super::{Interrupted, Limit};

pin_project! {
    /// The future of [`timebox`].
    #[must_use = "futures do nothing unless polled"]
    pub struct Timebox<F> {
        // Dropped in this order: what the work does in its destructor happens in the box.
        #[pin]
        inner: Option<F>,
        core: Core,
    }
}

/// Gives `future` a limit. Returns its value, or an error that says what was interrupted and where.
///
/// The clock starts at the first poll. The future is polled first, so a ready value wins over a limit that has passed.
/// At the limit the future is polled once more, to see where it waits, and dropped. This needs no timer of a runtime.
///
/// A box inside another that has less time left has no effect: the outer one interrupts both.
///
/// ```
/// # async fn fetch() -> u32 { 7 }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), heeler::Interrupted> {
/// use std::time::Duration;
///
/// let answer = heeler::timebox(Duration::from_secs(2), fetch()).await?;
/// # assert_eq!(answer, 7);
/// # Ok(())
/// # }
/// ```
///
/// # Panics
///
/// The future panics if it is polled after it was ready.
#[inline]
pub fn timebox<F: Future>(limit: impl Into<Limit>, future: F) -> Timebox<F> {
    Timebox { inner: Some(future), core: Core::closed(limit.into()) }
}

/// [`timebox`] as a method.
pub trait TimeboxExt: Future + Sized {
    /// Gives the future a limit: see [`timebox`].
    #[inline]
    fn timebox(self, limit: impl Into<Limit>) -> Timebox<Self> {
        timebox(limit, self)
    }
}

impl<F: Future> TimeboxExt for F {}

impl<F> Timebox<F> {
    /// Names the box. [`Interrupted`] and reports show the name.
    pub fn label(self, label: impl Into<Cow<'static, str>>) -> Self {
        self.with(|limit| limit.label(label))
    }

    /// Lets the work end by itself for this long after the limit: see [`Limit::grace`].
    pub fn grace(self, grace: Duration) -> Self {
        self.with(|limit| limit.grace(grace))
    }

    /// Calls `hook` once if the box expires: see [`Limit::on_interrupt`].
    pub fn on_interrupt(self, hook: impl FnOnce(&Interrupted) + Send + 'static) -> Self {
        self.with(|limit| limit.on_interrupt(hook))
    }

    /// Replaces [`Interrupted`] with this error.
    pub fn or_err<E>(self, error: E) -> OrErr<F, E> {
        OrErr { inner: self, error: Some(error) }
    }

    /// Makes the error from [`Interrupted`]. A panic in `f` reaches the caller.
    pub fn map_err<M, E>(self, f: M) -> MapErr<F, M>
    where
        M: FnOnce(Interrupted) -> E,
    {
        MapErr { inner: self, f: Some(f) }
    }

    fn with(mut self, change: impl FnOnce(Limit) -> Limit) -> Self {
        let limit = self.core.limit();
        let old = std::mem::replace(limit, Limit::from(Duration::MAX));
        *limit = change(old);
        self
    }
}

impl<F: Future> Future for Timebox<F> {
    type Output = Result<F::Output, Interrupted>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let step = this.core.poll(cx, |cx| match this.inner.as_mut().as_pin_mut() {
            Some(inner) => inner.poll(cx),
            None => polled_again(),
        });
        match step {
            Step::Ready(value) => Poll::Ready(Ok(value)),
            Step::Pending => Poll::Pending,
            Step::Interrupted(interrupted) => {
                this.inner.set(None);
                this.core.end();
                Poll::Ready(Err(interrupted))
            }
        }
    }
}

#[cold]
#[inline(never)]
fn polled_again() -> ! {
    panic!("a timebox was polled after it was interrupted")
}

impl<F> fmt::Debug for Timebox<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timebox").field("core", &self.core).finish_non_exhaustive()
    }
}

pin_project! {
    /// The future of [`Timebox::or_err`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct OrErr<F, E> {
        #[pin]
        inner: Timebox<F>,
        error: Option<E>,
    }
}

impl<F: Future, E> Future for OrErr<F, E> {
    type Output = Result<F::Output, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match (ready!(this.inner.poll(cx)), this.error.take()) {
            (Ok(value), _) => Poll::Ready(Ok(value)),
            (Err(_), Some(error)) => Poll::Ready(Err(error)),
            (Err(_), None) => polled_again(),
        }
    }
}

pin_project! {
    /// The future of [`Timebox::map_err`].
    #[must_use = "futures do nothing unless polled"]
    pub struct MapErr<F, M> {
        #[pin]
        inner: Timebox<F>,
        f: Option<M>,
    }
}

impl<F, M> fmt::Debug for MapErr<F, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapErr").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<F: Future, E, M: FnOnce(Interrupted) -> E> Future for MapErr<F, M> {
    type Output = Result<F::Output, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match (ready!(this.inner.poll(cx)), this.f.take()) {
            (Ok(value), _) => Poll::Ready(Ok(value)),
            (Err(interrupted), Some(f)) => Poll::Ready(Err(f(interrupted))),
            (Err(_), None) => polled_again(),
        }
    }
}
