//! The service: opens the box when a request comes in.

use std::fmt;
use std::task::{Context, Poll};
use std::time::Duration;

use http::request::Parts;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::answer::Protocol;
use super::settings::Config;
use super::{ResponseBody, ResponseFuture};
use crate::capture::frame_address;
use crate::inflight::{self, Head, nanos};
use crate::macros::inner_service_accessors;
use crate::parts::with_parts;
use crate::timebox::deadline_header;
use crate::timebox::open::Open;

/// A service whose requests have a limit: see [`TimeboxLayer`](super::TimeboxLayer).
#[derive(Clone)]
pub struct TimeboxService<S> {
    inner: S,
    config: &'static Config,
}

impl<S> TimeboxService<S> {
    pub(super) fn new(inner: S, config: &'static Config) -> Self {
        Self { inner, config }
    }

    inner_service_accessors!();
}

impl<S: fmt::Debug> fmt::Debug for TimeboxService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimeboxService").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, B, R> Service<Request<B>> for TimeboxService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body,
{
    type Response = Response<ResponseBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let config = self.config;
        if config.policy.saw_request() {
            inflight::layer_order::by_timebox(config.policy);
        }
        let protocol = Protocol::of(&request);
        let limit = limit(config, protocol, &mut request);
        let head =
            if config.respond.is_some() && protocol == Protocol::Http { Some(copy_head(&request)) } else { None };
        let mut open = open(config, limit, &Head::of(&request));
        let inside = open.enter(frame_address!());
        let inner = self.inner.call(request);
        drop(inside);
        open.settle();
        ResponseFuture::new(inner, open, config, protocol, head)
    }
}

/// Returns the limit of this request.
#[inline]
fn limit<B>(config: &Config, protocol: Protocol, request: &mut Request<B>) -> Duration {
    let mut limit = config.limit;
    if let Some(limit_for) = &config.limit_for {
        limit = with_parts(request, |parts| limit_for(parts)).unwrap_or(limit);
    }
    let headers = request.headers();
    if protocol != Protocol::Http {
        limit = deadline_header::read(headers, &deadline_header::GRPC_TIMEOUT).map_or(limit, |left| left.min(limit));
    }
    if let Some(name) = &config.deadline_header {
        limit = deadline_header::read(headers, name).map_or(limit, |left| left.min(limit));
    }
    limit
}

/// Opens the box of the request. Not generic over the service's types.
#[inline]
fn open(config: &Config, limit: Duration, head: &Head<'_>) -> Open {
    Open::of_layer(config.policy.id, nanos(limit), config.label.as_ref(), !config.body, |details| {
        // A body may outlive the row of a watchdog around.
        if !config.body && inflight::is_in_request() {
            return;
        }
        details.request.fill(&mut head.uri.path_and_query().cloned(), head, &config.policy.headers);
        details.request.headers_of = config.policy.id;
    })
}

/// Copies all of the head but the extensions, which belong to whoever put them there.
#[cold]
fn copy_head<B>(request: &Request<B>) -> Box<Parts> {
    let mut copy = Request::new(());
    request.method().clone_into(copy.method_mut());
    request.uri().clone_into(copy.uri_mut());
    request.headers().clone_into(copy.headers_mut());
    *copy.version_mut() = request.version();
    Box::new(copy.into_parts().0)
}
