//! The service: registers a request when it comes in.

use std::fmt;
use std::task::{Context, Poll};

use http::{Request, Response};
use tower_service::Service;

use super::layer::{Config, SHORTEST};
use super::{ResponseBody, ResponseFuture};
use crate::capture::frame_address;
use crate::inflight::{self, Head, Registered, Watched, Work, flags};
use crate::log::Clamp;
use crate::macros::inner_service_accessors;
use crate::parts::with_parts;
use crate::report;

/// A service whose requests are watched: see [`WatchdogLayer`](super::WatchdogLayer).
#[derive(Clone)]
pub struct WatchdogService<S> {
    inner: S,
    config: &'static Config,
}

impl<S> WatchdogService<S> {
    pub(super) fn new(inner: S, config: &'static Config) -> Self {
        Self { inner, config }
    }

    inner_service_accessors!();
}

impl<S: fmt::Debug> fmt::Debug for WatchdogService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchdogService").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, B, R> Service<Request<B>> for WatchdogService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
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
        let policy = config.policy;
        if policy.saw_request() {
            inflight::layer_order::of_watchdog(policy);
        }
        let watched = if !policy.is_enabled() {
            Watched::off()
        } else if config.has_exceptions() {
            register_with_exceptions(config, &mut request)
        } else {
            register(config, policy.threshold_nanos(), &Head::of(&request))
        };
        // In one place and with a guard, not a closure: a request is some 200 bytes, and moving it just after it was
        // written takes longer than everything that heeler writes.
        let inside = watched.enter(frame_address!());
        let future = self.inner.call(request);
        drop(inside);
        ResponseFuture::new(future, watched, config.body)
    }
}

/// Registers a row for the request, unless a layer further out has one for it.
///
/// Not generic over the service's types.
#[inline]
fn register(config: &Config, threshold: u64, head: &Head<'_>) -> Watched {
    let policy = config.policy;
    if inflight::join(policy, threshold, config.body) {
        // If the threshold is not shorter than the row's, the monitor expects it already.
        report::expect(threshold);
        return Watched::off();
    }
    // Before the row's lock is taken: then the stores have landed when the path is moved.
    let mut path = head.uri.path_and_query().cloned();
    let registered = Registered::new(policy.id, threshold, flags::REQUEST, |details| {
        details.work = Work::REQUEST;
        details.request.fill(&mut path, head, &policy.headers);
        details.request.headers_of = policy.id;
    });
    if registered.is_some() {
        report::expect(threshold);
    }
    Watched::new(registered)
}

/// The same, after asking the user's closures. They get the request's head, which has to be moved out and back.
#[inline(never)]
fn register_with_exceptions<B>(config: &Config, request: &mut Request<B>) -> Watched {
    static CLAMP: Clamp = Clamp::new("WatchdogLayer::threshold_for");
    let (ignored, special) = with_parts(request, |parts| {
        let ignored = config.ignore.as_ref().is_some_and(|ignore| ignore(parts));
        (ignored, config.threshold_for.as_ref().and_then(|threshold_for| threshold_for(parts)))
    });
    if ignored {
        return Watched::off();
    }
    let raised = |special| inflight::nanos(CLAMP.at_least(special, SHORTEST));
    let threshold = special.map_or_else(|| config.policy.threshold_nanos(), raised);
    register(config, threshold, &Head::of(request))
}
