//! What may be cloned, sent, shared, moved while pinned and kept across a panic may still be so behind heeler's layers. Checked by
//! the compiler.
#![cfg(all(feature = "watchdog", feature = "timebox", feature = "profile"))]

use std::convert::Infallible;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use heeler::{
    DeadlineLayer, Interrupted, ProfileLayer, Quota, Report, Reports, TimeboxExt as _, TimeboxLayer, WatchdogHandle,
    WatchdogLayer, authorize,
};
use http::{Request, Response};
use http_body_util::Full;
use tower::{Layer, Service};

type Answer = Response<Full<Bytes>>;

/// A service that is all of it.
#[derive(Clone)]
struct Plain;

impl Service<Request<Full<Bytes>>> for Plain {
    type Response = Answer;
    type Error = Infallible;
    type Future = Answers;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _request: Request<Full<Bytes>>) -> Self::Future {
        Answers
    }
}

/// A future that is all of it, which one that holds a response is not.
struct Answers;

impl Future for Answers {
    type Output = Result<Answer, Infallible>;

    fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(Response::default()))
    }
}

fn plain<T: Send + Sync + Unpin + UnwindSafe + RefUnwindSafe>(_: &T) {}
fn cloned<T: Clone + Send + Sync + Unpin + UnwindSafe + RefUnwindSafe>(_: &T) {}
fn future<T: Send + Sync + Unpin + UnwindSafe>(_: &T) {}

/// The layer, its service, its future, and the body of what that answers.
fn layer<L>(layer: L)
where
    L: Layer<Plain> + Clone + Send + Sync + Unpin + UnwindSafe + RefUnwindSafe,
    L::Service:
        Service<Request<Full<Bytes>>, Response: Parts> + Clone + Send + Sync + Unpin + UnwindSafe + RefUnwindSafe,
    <L::Service as Service<Request<Full<Bytes>>>>::Future: Send + Sync + Unpin + UnwindSafe,
{
    cloned(&layer);
    let mut service = layer.layer(Plain);
    cloned(&service);
    let request = Request::new(Full::default());
    future(&service.call(request));
}

/// A response whose body is all of it.
trait Parts {}

impl<B: Send + Sync + Unpin + UnwindSafe> Parts for Response<B> {}

/// Guards: layers, services, futures and bodies have the auto traits of what they wrap.
#[test]
fn layers_have_the_traits_of_what_they_wrap() {
    layer(WatchdogLayer::new(Duration::from_secs(1)));
    layer(TimeboxLayer::new(Duration::from_secs(1)));
    layer(DeadlineLayer::new(Duration::from_secs(1)));
    layer(ProfileLayer::new(authorize::bearer("correct-horse-battery-staple").unwrap()));
}

/// Guards: the same for futures around futures.
#[test]
fn futures_have_the_traits_of_what_they_wrap() {
    let quota = Quota::new(Duration::from_secs(1)).unwrap();
    cloned(&quota);
    future(&heeler::watch("job", Duration::from_secs(1), std::future::ready(())));
    future(&heeler::watch_child(std::future::ready(())));
    future(&std::future::ready(()).timebox(Duration::from_secs(1)));
    future(&std::future::ready(()).timebox(&quota).label("import").or_err(|_: Interrupted| ()));
    future(&heeler::timebox::exclusive("auto traits", Duration::from_secs(1), std::future::ready(())));
    plain(&heeler::timebox::Io::new(std::io::empty()));
}

/// Guards: the values that are passed around.
#[test]
fn values_can_be_sent_and_shared() {
    fn is<T: Clone + Send + Sync + Unpin + UnwindSafe + RefUnwindSafe + 'static>() {}
    is::<Reports>();
    is::<Report>();
    is::<Interrupted>();
    is::<WatchdogHandle>();
    is::<heeler::profile::ProfileStore>();
    fn may_go<T: Send + Sync + Unpin + 'static>() {}
    may_go::<heeler::Error>();
}
