//! The services that are compared: one and the same inside, with one layer or another around it.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use await_tree::InstrumentAwait;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri, header};
use http_body_util::Full;
use tower::{Layer, Service};

/// As dogslow's, and as the layer's default.
pub(crate) const LIMIT: Duration = Duration::from_secs(25);

/// The request's body. It has nothing to do with the layers.
pub(crate) type Body = http_body_util::Empty<Bytes>;
pub(crate) type Answer = Result<Response<Full<Bytes>>, Infallible>;

/// Answers after `.0` suspensions; it wakes itself before each.
#[derive(Clone)]
pub(crate) struct Answers(pub(crate) u32);

/// The future of [`Answers`].
pub(crate) struct AnswerFuture(u32);

impl Service<Request<Body>> for Answers {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = AnswerFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    // Not inlined, as no service of any size is into its layers: what a layer does with a request on its way through
    // shows only then.
    #[inline(never)]
    fn call(&mut self, request: Request<Body>) -> AnswerFuture {
        drop(request);
        AnswerFuture(self.0)
    }
}

impl Future for AnswerFuture {
    type Output = Answer;

    #[inline(never)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        if self.0 > 0 {
            self.0 -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(Response::new(Full::default())))
    }
}

/// A service whose futures are wrapped by `wrap`: for peers that instrument futures and have no layer.
#[derive(Clone)]
pub(crate) struct Wrapped<S, W> {
    inner: S,
    wrap: W,
}

impl<S: Service<R>, R, W: Fn(S::Future) -> F, F: Future<Output = Result<S::Response, S::Error>>> Service<R>
    for Wrapped<S, W>
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = F;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: R) -> F {
        (self.wrap)(self.inner.call(request))
    }
}

/// A request as one writes it down in a test: static path, no header.
#[inline(never)]
pub(crate) fn plain_request() -> Request<Body> {
    Request::new(Body::new())
}

/// Makes requests of which path and header values are slices of one received buffer, as hyper does.
pub(crate) fn hyper_requests() -> impl Fn() -> Request<Body> + Clone {
    let head = "/users/4711/photos?page=2example.com curl/8.5.0 */* 0af7651916cd43dd";
    let mut buffer = BytesMut::with_capacity(4096);
    buffer.extend_from_slice(head.as_bytes());
    // What hyper splits off shares its buffer by a count.
    let head = buffer.split_to(head.len()).freeze();
    let names = [header::HOST, header::USER_AGENT, header::ACCEPT, HeaderName::from_static("x-request-id")];
    let ranges = [25..36, 37..47, 48..51, 52..68];
    move || {
        let mut request = Request::new(Body::new());
        *request.uri_mut() = Uri::from_maybe_shared(head.slice(0..25)).expect("a path");
        let mut headers = HeaderMap::with_capacity(names.len());
        for (name, range) in names.iter().zip(&ranges) {
            let value = HeaderValue::from_maybe_shared(head.slice(range.clone())).expect("a value");
            headers.append(name.clone(), value);
        }
        *request.headers_mut() = headers;
        request
    }
}

/// Requests made some at a time, so that each has been in memory for a while when it is sent: a service gets its requests
/// from a parser and through other layers. Moving one that was written a moment ago, piece by piece, stalls the processor
/// for longer than any layer here takes, or not, as its address happens to be.
pub(crate) struct Requests<M> {
    make: M,
    made: Vec<Request<Body>>,
}

impl<M: Fn() -> Request<Body>> Requests<M> {
    pub(crate) fn new(make: M) -> Self {
        Self { make, made: Vec::with_capacity(32) }
    }

    #[inline]
    pub(crate) fn next(&mut self) -> Request<Body> {
        self.made.pop().unwrap_or_else(|| self.refill())
    }

    #[cold]
    #[inline(never)]
    fn refill(&mut self) -> Request<Body> {
        self.made.extend((0..32).map(|_| (self.make)()));
        (self.make)()
    }
}

/// Calls the service `n` times and polls each future until it is ready, without a scheduler in between.
#[inline(never)]
pub(crate) fn drive<S: Service<Request<Body>>>(
    service: &mut S,
    cx: &mut Context<'_>,
    requests: &mut Requests<impl Fn() -> Request<Body>>,
    n: u64,
) {
    for _ in 0..n {
        let mut future = pin!(service.call(requests.next()));
        loop {
            if let Poll::Ready(result) = future.as_mut().poll(cx) {
                std::hint::black_box(result.is_ok());
                break;
            }
        }
    }
}

/// Something to be done with each of the services.
pub(crate) trait Visit<I> {
    fn visit<S>(&mut self, name: &'static str, service: S)
    where
        S: Service<Request<Body>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Send,
        S::Response: Send;
}

/// Shows all services to the visitor: bare, heeler's, tower's timeout, then the other peers.
pub(crate) fn services<I>(inner: I, visitor: &mut impl Visit<I>)
where
    I: Service<Request<Body>, Response = Response<Full<Bytes>>, Error = Infallible> + Clone + Send + 'static,
    I::Future: Send,
{
    visitor.visit("bare", inner.clone());
    visitor.visit("heeler", heeler::WatchdogLayer::new(LIMIT).layer(inner.clone()));
    let timebox = heeler::TimeboxLayer::new(LIMIT + LIMIT);
    visitor.visit("heeler_timebox", timebox.layer(inner.clone()));
    let profile = heeler::ProfileLayer::new(|_: &http::request::Parts| false);
    visitor.visit("heeler_profile", profile.layer(inner.clone()));
    let all = heeler::WatchdogLayer::new(LIMIT).layer(profile.layer(timebox.layer(inner.clone())));
    visitor.visit("heeler_all", all);
    visitor.visit("tower", tower::timeout::TimeoutLayer::new(LIMIT).layer(inner.clone()));
    let status = http::StatusCode::GATEWAY_TIMEOUT;
    let timeout = tower_http::timeout::TimeoutLayer::with_status_code(status, LIMIT);
    visitor.visit("tower_http_timeout", timeout.layer(inner.clone()));
    visitor.visit("tower_http_trace", tower_http::trace::TraceLayer::new_for_http().layer(inner.clone()));
    let monitor = tokio_metrics::TaskMonitor::new();
    visitor.visit("tokio_metrics", Wrapped { inner: inner.clone(), wrap: move |future| monitor.instrument(future) });
    // The handle stays with the request, as it would for somebody who wants to look at any moment.
    let wrap = |future| {
        let (future, handle) = tasktrace::traced(future);
        async move {
            let result = future.await;
            drop(handle);
            result
        }
    };
    visitor.visit("tasktrace", Wrapped { inner: inner.clone(), wrap });
    let registry = await_tree::Registry::new(await_tree::Config::default());
    let wrap =
        move |future: I::Future| registry.register_anonymous("request").instrument(future.instrument_await("inner"));
    visitor.visit("await_tree", Wrapped { inner: inner.clone(), wrap });
}
