//! Two services on loopback: A, which has two seconds for a request and calls B, and B, which works until it is stopped.

use std::future::pending;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use heeler::timebox::timebox;
use heeler::{Interrupted, TimeboxExt as _};
use http::{HeaderMap, HeaderName, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::BoxError;
use crate::common::{PATIENCE, at_most, ms};

/// What A has for a request.
pub(crate) const LIMIT: Duration = ms(2_000);

/// What A does before it calls B.
const WORK: Duration = ms(100);

/// Where others are told how much time is left.
pub(crate) const NAMED: HeaderName = HeaderName::from_static("x-left-ms");

/// Serves HTTP/1 and HTTP/2 on a port of its own, as long as the runtime lives.
pub(crate) async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(app.clone());
            tokio::spawn(async move {
                // Clients leave when they please.
                let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

/// Takes connections and whatever is sent, and says nothing.
pub(crate) async fn silent() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut taken = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            taken.push(stream);
        }
    });
    address
}

/// What B had of a call.
#[derive(Debug)]
pub(crate) struct Stopped {
    pub(crate) called: Instant,
    /// What its header said.
    pub(crate) left: Duration,
    pub(crate) interrupted: Interrupted,
}

/// B's work on a call: stopped when the caller's time is up, whether or not the caller still listens. Never answers.
pub(crate) async fn work(left: Option<Duration>, tell: mpsc::UnboundedSender<Stopped>) {
    let called = Instant::now();
    let left = left.expect("calls say what is left");
    // In a task of its own: else B would be dropped as soon as A has gone.
    tokio::spawn(async move {
        let interrupted = pending::<()>().timebox(left).label("B").await.unwrap_err();
        tell.send(Stopped { called, left, interrupted }).unwrap();
    });
    pending().await
}

/// B for plain HTTP.
pub(crate) async fn slow() -> (SocketAddr, mpsc::UnboundedReceiver<Stopped>) {
    let (tell, told) = mpsc::unbounded_channel();
    let app = Router::new().fallback(async move |headers: HeaderMap| {
        let millis = headers.get(NAMED).map(|value| value.to_str().unwrap().parse().unwrap());
        work(millis.map(Duration::from_millis), tell).await;
    });
    (serve(app).await, told)
}

/// How A's box around a request ended.
#[derive(Debug)]
pub(crate) struct Front {
    /// Before the box was opened.
    before: Instant,
    /// When it had been.
    begun: Instant,
    /// Just before the call.
    called: Instant,
    outcome: Result<String, Interrupted>,
}

/// A's work on a request.
pub(crate) async fn front(call: impl Future<Output = Result<String, BoxError>>) -> Front {
    let before = Instant::now();
    let (mut begun, mut called) = (before, before);
    let outcome = timebox(LIMIT, async {
        begun = Instant::now();
        tokio::time::sleep(WORK).await;
        called = Instant::now();
        match call.await {
            Ok(answer) => answer,
            Err(error) => error.to_string(),
        }
    });
    let outcome = outcome.label("A").await;
    Front { before, begun, called, outcome }
}

/// A for plain HTTP, over a client that calls B.
pub(crate) async fn relay<F>(
    call: impl Fn() -> F + Clone + Send + Sync + 'static,
) -> (SocketAddr, mpsc::UnboundedReceiver<Front>)
where
    F: Future<Output = Result<String, BoxError>> + Send + 'static,
{
    let (tell, told) = mpsc::unbounded_channel();
    let app = Router::new().fallback(async move || {
        tell.send(front(call()).await).unwrap();
        StatusCode::SERVICE_UNAVAILABLE
    });
    (serve(app).await, told)
}

/// A message, within the patience that a test has.
pub(crate) async fn next<T>(messages: &mut mpsc::UnboundedReceiver<T>) -> T {
    tokio::time::timeout(PATIENCE, messages.recv()).await.expect("a message in time").expect("a sender")
}

/// A's box and B's agree: B had what was left of A's when it was called, no more, and both were stopped when that was up.
#[track_caller]
pub(crate) fn agree(front: &Front, stopped: &Stopped) {
    let a = front.outcome.as_ref().unwrap_err();
    let b = &stopped.interrupted;
    assert!(a.is_from("A") && b.is_from("B"), "{a:?} {b:?}");
    assert_eq!((a.limit(), b.limit()), (LIMIT, stopped.left));
    let most = LIMIT - (front.called - front.begun);
    let least = LIMIT.saturating_sub(stopped.called - front.before + ms(2));
    assert!((least..=at_most(most)).contains(&b.limit()), "{b:?}: {least:?} to {most:?}");
    assert!(most <= LIMIT - WORK);
    // not much later, even on a busy machine
    for (which, interrupted) in [("A", a), ("B", b)] {
        let late = interrupted.elapsed().checked_sub(interrupted.limit());
        assert!(late.is_some_and(|late| late < ms(5_000)), "{which}: {interrupted:?}");
    }
}
