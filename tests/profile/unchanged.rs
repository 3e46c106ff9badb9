//! Without the flag, and for those who may not, there might as well be no layer.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use heeler::ProfileLayer;
use http::request::Parts;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use tower::{Layer as _, Service, ServiceExt as _};

/// A service that is ready for one call at a time, and only if it was asked; each copy for itself.
#[derive(Debug, Default)]
struct Strict {
    ready: bool,
    calls: Arc<AtomicUsize>,
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self { ready: false, calls: Arc::clone(&self.calls) }
    }
}

impl Service<Request<Full<Bytes>>> for Strict {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without being ready");
        self.calls.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let said = format!(
                "{} {} {:?} {:?} {:?} {body:?}",
                head.method,
                head.uri,
                head.version,
                head.headers,
                head.extensions.get::<u8>()
            );
            Ok(Response::builder().status(418).header("x-own", "1").extension(7_u16).body(said.into()).unwrap())
        })
    }
}

fn request(path: &str) -> Request<Full<Bytes>> {
    let request = Request::put(path).version(http::Version::HTTP_2).header("x-geordi-like", "1").extension(7_u8);
    request.body("a body".into()).unwrap()
}

fn said(
    response: Response<impl http_body::Body<Data = Bytes, Error: std::fmt::Debug>>,
) -> (http::response::Parts, Bytes) {
    let (head, body) = response.into_parts();
    (head, futures::executor::block_on(body.collect()).unwrap().to_bytes())
}

fn runtime() -> tokio::runtime::Runtime {
    super::common::runtime(0)
}

/// Guards: the request reaches the service unchanged, and so does the response its client, including flag and header.
#[test]
fn the_service_sees_what_was_sent() {
    let layers = [
        ProfileLayer::new(|_: &Parts| false),
        ProfileLayer::new(async |_: &Parts| {
            tokio::task::yield_now().await;
            false
        }),
        ProfileLayer::new(|_: &Parts| -> bool { panic!("who knows") }),
    ];
    for (at, layer) in layers.into_iter().enumerate() {
        for path in ["/a", "/a?b=%41&&c", "/a?__geordi__", "/a?x&__geordi__=json&y", "/?__geordi__=index"] {
            for header in [None, Some("1"), Some("nonsense")] {
                let request = || {
                    let mut request = request(path);
                    if let Some(value) = header {
                        request.headers_mut().insert("x-geordi", value.parse().unwrap());
                    }
                    request
                };
                let runtime = runtime();
                let bare = said(runtime.block_on(Strict::default().oneshot(request())).unwrap());
                let with = said(runtime.block_on(layer.layer(Strict::default()).oneshot(request())).unwrap());
                assert_eq!(bare.1, with.1, "{at} {path} {header:?}");
                assert_eq!((bare.0.status, &bare.0.headers), (with.0.status, &with.0.headers));
                assert_eq!(with.0.extensions.get::<u16>(), Some(&7));
            }
        }
    }
}

/// Guards: a user with access changes nothing either, as long as there is no flag.
#[test]
fn permitted_users_without_the_flag_change_nothing() {
    let layer = ProfileLayer::new(|_: &Parts| true);
    for path in ["/a", "/a?__geordi__x", "/a?b=__geordi__", "/__geordi__", "/?%5F_geordi__"] {
        let bare = said(runtime().block_on(Strict::default().oneshot(request(path))).unwrap());
        let with = said(runtime().block_on(layer.layer(Strict::default()).oneshot(request(path))).unwrap());
        assert_eq!(bare.1, with.1, "{path}");
    }
}

/// Guards: without the flag, the service is called within `call`, as it would be without the layer, and the authorizer is not
/// asked.
#[test]
fn a_request_without_the_flag_is_called_at_once() {
    let asked = Arc::new(AtomicUsize::new(0));
    let layer = {
        let asked = Arc::clone(&asked);
        ProfileLayer::new(move |_: &Parts| {
            asked.fetch_add(1, Ordering::SeqCst);
            false
        })
    };
    let inner = Strict::default();
    let calls = Arc::clone(&inner.calls);
    let mut service = layer.layer(inner);
    for (path, expected) in [("/", 0), ("/?__geordi__", 1)] {
        let before = calls.load(Ordering::SeqCst);
        assert!(service.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready());
        let future = service.call(request(path));
        assert_eq!(calls.load(Ordering::SeqCst), before + 1, "{path}");
        drop(future);
        assert_eq!(asked.load(Ordering::SeqCst), expected, "{path}");
    }
}

/// Guards: the copy of the service that runs is the one that is ready, and each further run waits until its own copy is.
#[test]
fn every_run_waits_until_its_service_is_ready() {
    let layer = ProfileLayer::new(|_: &Parts| true);
    let inner = Strict::default();
    let calls = Arc::clone(&inner.calls);
    let mut service = layer.layer(inner);
    let runtime = runtime();
    for (at, query) in ["?__geordi__=json", "?__geordi__=json,5x", ""].into_iter().enumerate() {
        let request = Request::get(format!("/{query}")).body(Full::default()).unwrap();
        let response = runtime.block_on(async { service.ready().await.unwrap().call(request).await.unwrap() });
        let (head, body) = said(response);
        if query.is_empty() {
            assert_eq!(head.status, 418);
        } else {
            let profile: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!((&profile["outcome"], &profile["response"]["status"]), (&"finished".into(), &418.into()));
        }
        assert_eq!(calls.load(Ordering::SeqCst), [1, 6, 7][at]);
    }
}

/// Guards: the parameter and the header have the names they were given, and no others.
#[test]
fn uses_only_the_configured_names() {
    let layer = ProfileLayer::new(|_: &Parts| true).parameter("prof").unwrap().without_header();
    let runtime = runtime();
    let ask = |request| said(runtime.block_on(layer.layer(Strict::default()).oneshot(request)).unwrap()).0.status;
    assert_eq!(ask(request("/?__geordi__")), 418);
    assert_eq!(ask(request("/?prof=json")), 200);
    let mut with_header = request("/");
    with_header.headers_mut().insert("x-geordi", "nonsense".parse().unwrap());
    assert_eq!(ask(with_header), 418);
    for name in ["", "a b", "a=b", "ä"] {
        assert!(ProfileLayer::new(|_: &Parts| true).parameter(name).unwrap_err().is_config());
    }
}

/// Guards: layers, services, futures and bodies can be used wherever a server wants them.
#[test]
fn layers_and_futures_are_send_and_sync() {
    fn check<T: Send + Sync + Clone + 'static>() {}
    fn send<T: Send + 'static>() {}
    check::<ProfileLayer>();
    check::<heeler::profile::ProfileService<Strict>>();
    check::<heeler::profile::ProfileStore>();
    send::<<heeler::profile::ProfileService<Strict> as Service<Request<Full<Bytes>>>>::Future>();
    send::<heeler::profile::ResponseBody<Full<Bytes>>>();
}
