//! The console as a service.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::request::Parts;
use http::{Request, Response};
use tower_service::Service;

use super::ResponseBody;
use super::answer::{answer, not_found};
use crate::authorize::{Access, Authorize, Authorizer};
use crate::disabled::is_disabled;
use crate::inflight::step_aside;
use crate::report::Reports;

/// Creates a console for callers whom `authorize` allows. It shows what `reports` are about from now on. See the
/// [module](mod@crate::console).
///
/// ```
/// use heeler::{Reports, authorize};
///
/// # fn app(token: String) -> Result<axum::Router, heeler::Error> {
/// let console = heeler::console(Reports::default(), authorize::bearer(token)?);
/// let app = axum::Router::new().nest_service("/console", console);
/// # Ok(app)
/// # }
/// # app("correct-horse-battery-staple".to_owned()).unwrap();
/// ```
pub fn console<Kind>(reports: Reports, authorize: impl Authorize<Kind>) -> Console {
    reports.keep_history();
    Console { inner: Arc::new(Inner { reports, authorizer: authorize.into_authorizer() }) }
}

/// A page about what is in flight: a [`Service`] to nest under any path, or to [serve](Console::serve) on an address of
/// its own. Made by [`console`](console()). Cheap to clone.
#[derive(Clone)]
pub struct Console {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) reports: Reports,
    pub(super) authorizer: Authorizer,
}

impl Console {
    /// Returns the answer to a request, if its sender may look.
    pub(super) async fn respond(&self, head: &Parts) -> Response<ResponseBody> {
        if is_disabled() {
            return not_found();
        }
        let access = self.inner.authorizer.ask(head).await;
        self.respond_to(head, &access).await
    }

    /// Does the same, but gives the authorizer up after that time. On a runtime of heeler's.
    pub(super) async fn respond_within(&self, head: &Parts, patience: Duration) -> Response<ResponseBody> {
        match tokio::time::timeout(patience, self.inner.authorizer.ask(head)).await {
            Ok(access) => self.respond_to(head, &access).await,
            Err(_) => not_found(),
        }
    }

    async fn respond_to(&self, head: &Parts, access: &Access) -> Response<ResponseBody> {
        if !access.is_allowed() {
            return not_found();
        }
        // Whoever looks at what is in flight is no part of it. Until it is known who asks, limits apply.
        step_aside();
        answer(&self.inner.reports, head, access.principal()).await
    }
}

impl<B> Service<Request<B>> for Console {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        let console = self.clone();
        let (head, _) = request.into_parts();
        ResponseFuture(Box::pin(async move { Ok(console.respond(&head).await) }))
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console").field("authorizer", &self.inner.authorizer).finish_non_exhaustive()
    }
}

/// The response of a [`Console`].
pub struct ResponseFuture(Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, Infallible>> + Send>>);

impl Future for ResponseFuture {
    type Output = Result<Response<ResponseBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
