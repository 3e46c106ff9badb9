//! Computing what others wait for.

use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use crate::inflight::ResourceId;
use crate::inflight::resources::{Claim, Mode};

pin_project! {
    /// The future returned by [`initialize`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct Initialize<F> {
        // Dropped in this order.
        #[pin]
        inner: F,
        claim: Option<Claim>,
        resource: ResourceId,
        at: &'static Location<'static>,
    }
}

/// Computes something that others wait for, and says so: the current work holds `resource` from the first poll of
/// `future` until that ends.
///
/// This is for values that one of many computes: a cache's entry, a `OnceCell`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// # async fn fetch() -> f64 { 1.08 }
/// static RATE: tokio::sync::OnceCell<f64> = tokio::sync::OnceCell::const_new();
///
/// let rate = heeler::wait_for("rate", RATE.get_or_init(|| heeler::initialize("rate", fetch()))).await;
/// # assert_eq!(*rate, 1.08);
/// # }
/// ```
#[track_caller]
pub fn initialize<F: Future>(resource: impl Into<ResourceId>, future: F) -> Initialize<F> {
    Initialize::new(resource.into(), future, Location::caller())
}

impl<F> Initialize<F> {
    pub(crate) fn new(resource: ResourceId, inner: F, at: &'static Location<'static>) -> Self {
        Self { inner, claim: None, resource, at }
    }
}

impl<F: Future> Future for Initialize<F> {
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if this.claim.is_none() {
            *this.claim = Claim::hold(*this.resource, Mode::Initialize, this.at);
        }
        let result = this.inner.poll(cx);
        if result.is_ready() {
            *this.claim = None;
        }
        result
    }
}
