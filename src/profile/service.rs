//! The service: looks for the flag.

use std::fmt;
use std::fmt::Display;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body::Body;
use tokio::runtime::Handle;
use tower_service::Service;

use super::answer::{Client, Plan, plan};
use super::body::{BoxError, Foreign};
use super::future::Step;
use super::layer::Config;
#[cfg(heeler_remote)]
use super::remote;
use super::start::{begin, without_any_flag, without_flag};
use super::tail;
use super::{ResponseBody, ResponseFuture};
use crate::authorize::Access;
use crate::disabled::is_disabled;
use crate::macros::inner_service_accessors;
use crate::parts::with_parts;
use crate::report::rules::orders;

/// A service whose requests can be profiled: see [`ProfileLayer`](super::ProfileLayer).
#[derive(Clone)]
pub struct ProfileService<S> {
    inner: S,
    config: Arc<Config>,
}

impl<S> ProfileService<S> {
    pub(super) fn new(inner: S, config: Arc<Config>) -> Self {
        Self { inner, config }
    }

    inner_service_accessors!();
}

impl<S: fmt::Debug> fmt::Debug for ProfileService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProfileService").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S> ProfileService<S> {
    /// Everything that a request without the flag pays for, beside one load. With `strip_refused` it also pays for a search
    /// of its query for a `%`.
    #[inline]
    fn is_asked<B>(&self, request: &Request<B>) -> bool {
        self.config.flag.find(request.uri()).is_some()
            || self.config.header.as_ref().is_some_and(|name| request.headers().contains_key(name))
            || self.config.strip_refused && self.hides_flag(request.uri())
    }

    /// Returns whether the flag is there in a spelling that this layer ignores, but that a service further on may
    /// accept.
    fn hides_flag(&self, uri: &Uri) -> bool {
        uri.query().is_some_and(|query| self.config.flag.is_disguised_in(query))
    }
}

impl<S, B, R> Service<Request<B>> for ProfileService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Error: Display + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    R: Body + Send + 'static,
    R::Data: From<Bytes>,
    R::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, S::Error>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Request<B>) -> Self::Future {
        if self.is_asked(&request) {
            asked(self, request)
        } else if orders::has_orders() {
            unasked(self, request)
        } else {
            ResponseFuture::pass(self.inner.call(request))
        }
    }
}

/// Goes on with a request that did not ask to be profiled. A rule, or somebody at the console, may have.
#[cold]
#[inline(never)]
fn unasked<S, B, R>(profiled: &mut ProfileService<S>, mut request: Request<B>) -> ResponseFuture<S::Future, S::Error>
where
    S: Service<Request<B>, Response = Response<R>>,
    B: Body,
{
    let inner = &mut profiled.inner;
    let Some(wanted) = tail::wanted(&mut request) else { return ResponseFuture::pass(inner.call(request)) };
    let body_bytes = request.body().size_hint().exact().unwrap_or(0);
    match tail::begin(&profiled.config, request, body_bytes, wanted, |request| inner.call(request)) {
        Ok(tail) => ResponseFuture::tail(tail),
        Err(future) => ResponseFuture::pass(future),
    }
}

/// Handles a request with the flag, whether or not its sender may profile.
#[cold]
#[inline(never)]
fn asked<S, B, R>(profiled: &mut ProfileService<S>, mut request: Request<B>) -> ResponseFuture<S::Future, S::Error>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Error: Display + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    R: Body + Send + 'static,
    R::Error: Into<BoxError>,
{
    let config = Arc::clone(&profiled.config);
    #[cfg(heeler_remote)]
    if let Some(delivery) = request.extensions_mut().remove::<remote::Delivery>() {
        let runtime = Handle::try_current().ok();
        let clone = profiled.inner.clone();
        let service = mem::replace(&mut profiled.inner, clone);
        return ResponseFuture::asked(async move {
            let response = remote::receive(&config, delivery, runtime, service, request).await;
            Ok(Step::Respond(response.map(Foreign::answer)))
        });
    }
    let decided = if is_disabled() {
        // Nobody may, so the authorizer is not asked.
        Some(Access::refused())
    } else {
        with_parts(&mut request, |parts| config.authorizer.ask(parts).now())
    };
    if decided.as_ref().is_some_and(|access| !access.is_allowed()) {
        if config.strip_refused {
            let (mut head, body) = request.into_parts();
            without_any_flag(&config, &mut head);
            request = Request::from_parts(head, body);
        }
        return ResponseFuture::pass(profiled.inner.call(request));
    }
    // Where the request would have run.
    let runtime = Handle::try_current().ok();
    // The service that is ready goes with the request.
    let clone = profiled.inner.clone();
    let mut service = mem::replace(&mut profiled.inner, clone);
    ResponseFuture::asked(async move {
        let (mut head, body) = request.into_parts();
        let access = match decided {
            Some(access) => access,
            None => config.authorizer.ask(&head).await,
        };
        if !access.is_allowed() {
            if config.strip_refused {
                without_any_flag(&config, &mut head);
            }
            return Ok(Step::Pass(service.call(Request::from_parts(head, body))));
        }
        let sends_body = !body.is_end_stream() && body.size_hint().exact() != Some(0);
        let client = Client::of(&head, sends_body);
        match plan(&config, &access, &head, &client).await {
            Plan::Pass => Ok(Step::Pass(service.call(Request::from_parts(head, body)))),
            Plan::Answer(response) => Ok(Step::Respond(client.fit(response).map(Foreign::answer))),
            #[cfg(heeler_remote)]
            Plan::Start(wanted) if let Some(remote) = &config.remote => {
                let response = remote::send(&config, remote, &access, &client, wanted, head, body).await;
                Ok(Step::Respond(client.fit(response).map(Foreign::answer)))
            }
            Plan::Start(wanted) => {
                let Some(runtime) = runtime else {
                    without_flag(&config, &mut head);
                    return Ok(Step::Unprofiled(service.call(Request::from_parts(head, body))));
                };
                let request = Request::from_parts(head, body);
                Ok(Step::Respond(begin(&config, &access, &client, wanted, runtime, service, request).await?))
            }
        }
    })
}
