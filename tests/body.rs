//! `.watch_bodies()`: a response body that stalls is reported; one that nobody asks for a frame is not.
#![cfg(feature = "watchdog")]

mod common;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use heeler::WatchdogLayer;
use heeler::report::{Kind, StackKind, Verdict};
use heeler::watchdog::ResponseBody;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::sync::{Semaphore, mpsc};
use tower::{Layer as _, ServiceExt as _};

use common::{
    Driven, FOREVER, PATIENCE, at_most, beside_others, collect, goes_through, ms, own_functions, place, runtime, until,
};

const THRESHOLD: std::time::Duration = ms(200);

/// A body of the frames that come through a channel.
struct Channel(mpsc::UnboundedReceiver<Result<Frame<Bytes>, &'static str>>);

type Sender = mpsc::UnboundedSender<Result<Frame<Bytes>, &'static str>>;

impl Body for Channel {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        next_chunk(&mut self.0, cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_closed() && self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = SizeHint::new();
        hint.set_lower(self.0.len() as u64);
        hint.set_upper(777);
        hint
    }
}

#[inline(never)]
fn next_chunk<T>(receiver: &mut mpsc::UnboundedReceiver<T>, cx: &mut Context<'_>) -> Poll<Option<T>> {
    receiver.poll_recv(cx)
}

fn channel() -> (Sender, Channel) {
    let (send, receive) = mpsc::unbounded_channel();
    (send, Channel(receive))
}

fn data(text: &'static str) -> Result<Frame<Bytes>, &'static str> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

/// The answer of a watched service that has this body, and answers at once.
async fn answer<B: Body>(layer: &WatchdogLayer, body: B) -> ResponseBody<B> {
    let body = std::sync::Mutex::new(Some(body));
    let service = layer.layer(tower::service_fn(|_: Request<()>| {
        let body = body.lock().unwrap().take().unwrap();
        async { Ok::<_, Infallible>(Response::new(body)) }
    }));
    service.oneshot(Request::get("/export").body(()).unwrap()).await.unwrap().into_body()
}

fn layer() -> (common::Collected, heeler::Reports, WatchdogLayer) {
    let (seen, reports) = collect();
    (seen, reports.clone(), WatchdogLayer::new(THRESHOLD).watch_bodies().reports(reports))
}

async fn reads_all<B: Body + Unpin>(mut body: B) -> usize {
    let mut frames = 0;
    while let Some(frame) = body.frame().await {
        frames += usize::from(frame.is_ok());
    }
    frames
}

/// Guards: the stack is that of the body's `poll_frame`, and the clock that of the stall.
#[test]
fn a_stalled_body_is_reported() {
    let _guard = beside_others();
    let (seen, _reports, layer) = layer();
    let driven = Driven::new(1);
    let (send, body) = channel();
    let handle = layer.handle();
    let reading = driven.spawn(async move { reads_all(answer(&layer, body).await).await });
    send.send(data("half")).unwrap();
    let report = seen.first();
    let text = report.to_text();
    assert_eq!((report.kind, report.verdict), (Kind::SlowBody, Verdict::Waiting), "{text}");
    assert_eq!(report.request.as_ref().unwrap().uri, "/export");
    assert_eq!(own_functions(&report, StackKind::Await, None), ["next_chunk"], "{text}");
    assert!(goes_through(&report, StackKind::Await, "poll_frame"), "{text}");
    assert!(report.elapsed >= ms(200), "{text}");
    assert_eq!(handle.in_flight(), 1);
    send.send(data("the rest")).unwrap();
    drop(send);
    assert_eq!(futures::executor::block_on(reading).unwrap(), 2);
    assert_eq!(handle.in_flight(), 0, "the row is free at the end of the body");
}

/// Guards: each stall counts by itself, even after one that lasted through all four captures, and after a slow response: it
/// is found at its threshold, as the first of its kind.
#[test]
fn each_stall_is_reported_separately() {
    let _guard = beside_others();
    let (seen, reports) = collect();
    let layer = WatchdogLayer::new(ms(100)).watch_bodies().reports(reports);
    let driven = Driven::new(1);
    let (send, body) = channel();
    let body = std::sync::Mutex::new(Some(body));
    let gate = Arc::new(Semaphore::new(0));
    let theirs = gate.clone();
    let service = layer.layer(tower::service_fn(move |_: Request<()>| {
        let (body, gate) = (body.lock().unwrap().take().unwrap(), theirs.clone());
        async move {
            let _permit = gate.acquire().await;
            Ok::<_, Infallible>(Response::new(body))
        }
    }));
    let request = Request::get("/export").body(()).unwrap();
    let reading = driven.spawn(async { reads_all(service.oneshot(request).await.unwrap().into_body()).await });
    assert_eq!(seen.first().kind, Kind::SlowRequest);
    let began = Instant::now();
    gate.add_permits(1);
    let of_stall = |update| move |report: &heeler::Report| report.kind == Kind::SlowBody && report.update == update;
    seen.wait("the first stall", of_stall(0));
    let first = at_most(began.elapsed());
    seen.wait("the last capture of the first stall", of_stall(3));
    assert_eq!(seen.all().iter().filter(|report| of_stall(0)(report)).count(), 1);
    let began = Instant::now();
    send.send(data("some")).unwrap();
    until("the second stall is found", || seen.all().iter().filter(|report| of_stall(0)(report)).count() == 2);
    let second = at_most(began.elapsed());
    for (report, most) in seen.all().iter().filter(|report| of_stall(0)(report)).zip([first, second]) {
        assert!((ms(100)..most).contains(&report.elapsed), "{}", report.to_text());
        assert_eq!(place(report), "next_chunk");
    }
    drop(send);
    assert_eq!(futures::executor::block_on(reading).unwrap(), 1);
}

/// Guards: a slow client is not the service's fault. While nobody asks for a frame, no clock runs.
#[test]
fn a_slow_client_is_not_reported() {
    let _guard = beside_others();
    let (seen, reports, layer) = layer();
    runtime(0).block_on(async {
        let (send, body) = channel();
        let mut body = answer(&layer, body).await;
        for part in ["a", "b", "c"] {
            tokio::time::sleep(THRESHOLD + ms(50)).await;
            send.send(data(part)).unwrap();
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), part);
        }
        tokio::time::sleep(THRESHOLD + ms(50)).await;
        assert_eq!(layer.handle().in_flight(), 1);
        drop(send);
        assert!(body.frame().await.is_none());
        assert_eq!(layer.handle().in_flight(), 0);
    });
    assert!(reports.blocking_flush(PATIENCE));
    assert!(seen.all().is_empty(), "{}", seen.all()[0].to_text());
}

/// Guards: everything that a body says passes through: size, end, data, trailers, errors.
#[test]
fn frames_and_hints_pass_through() {
    for watched in [true, false] {
        let layer = WatchdogLayer::new(FOREVER);
        let layer = if watched { layer.watch_bodies() } else { layer };
        runtime(0).block_on(async {
            let (send, body) = channel();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            send.send(data("payload")).unwrap();
            send.send(Ok(Frame::trailers(trailers.clone()))).unwrap();
            let mut body = answer(&layer, body).await;
            assert_eq!((body.size_hint().lower(), body.size_hint().upper()), (2, Some(777)));
            assert!(!body.is_end_stream());
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "payload");
            assert_eq!(body.frame().await.unwrap().unwrap().into_trailers().unwrap(), trailers);
            send.send(Err("broken pipe")).unwrap();
            assert_eq!(body.frame().await.unwrap().unwrap_err(), "broken pipe");
            assert_eq!(layer.handle().in_flight(), 0, "a body that failed has ended");
            drop(send);
            assert!(body.is_end_stream() && body.frame().await.is_none());
            let empty = answer(&layer, http_body_util::Empty::<Bytes>::new()).await;
            assert!(empty.is_end_stream() && empty.size_hint().exact() == Some(0));
        });
        assert_eq!(layer.handle().in_flight(), 0);
    }
}

/// Guards: a body that is dropped halfway frees its row, whether it was waited for or not.
#[test]
fn a_body_dropped_halfway_frees_its_row() {
    let (_seen, _reports, layer) = layer();
    runtime(0).block_on(async {
        let (_send, body) = channel();
        let body = answer(&layer, body).await;
        assert_eq!(layer.handle().in_flight(), 1);
        drop(body);
        assert_eq!(layer.handle().in_flight(), 0);
        let (_send, body) = channel();
        let mut body = answer(&layer, body).await;
        assert!(tokio::time::timeout(ms(5), body.frame()).await.is_err());
        assert_eq!(layer.handle().in_flight(), 1);
        drop(body);
        assert_eq!(layer.handle().in_flight(), 0);
    });
}

/// Guards: a client that leaves in the middle of a stall, after half the threshold.
#[test]
fn leaving_in_a_stall_is_reported_as_abandoned() {
    let _guard = beside_others();
    let (seen, reports) = collect();
    let layer = WatchdogLayer::new(ms(4_000)).watch_bodies().abandoned_at_fraction(0.05).reports(reports);
    runtime(0).block_on(async {
        let (_send, body) = channel();
        let mut body = answer(&layer, body).await;
        assert!(tokio::time::timeout(ms(700), body.frame()).await.is_err());
    });
    let report = seen.first();
    assert_eq!((report.kind, report.verdict), (Kind::Abandoned, Verdict::Abandoned));
    assert_eq!(place(&report), "next_chunk", "{}", report.to_text());
}

/// Guards: without `.watch_bodies()` the row is free with the response.
#[test]
fn bodies_are_not_watched_by_default() {
    let layer = WatchdogLayer::new(FOREVER);
    runtime(0).block_on(async {
        let (_send, body) = channel();
        let body = answer(&layer, body).await;
        assert_eq!(layer.handle().in_flight(), 0);
        drop(body);
    });
}

/// Guards: of two layers on one service, it is enough that one asks for the body to be watched.
#[test]
fn one_layer_of_two_is_enough_to_watch_bodies() {
    let _guard = beside_others();
    for (outer, inner) in [(true, false), (false, true), (true, true)] {
        let (seen, reports) = collect();
        let [outer, inner] = [outer, inner].map(|watched| {
            let layer = WatchdogLayer::new(THRESHOLD).reports(reports.clone());
            if watched { layer.watch_bodies() } else { layer }
        });
        let driven = Driven::new(1);
        let (send, body) = channel();
        let body = std::sync::Mutex::new(Some(body));
        let service = outer.layer(inner.layer(tower::service_fn(move |_: Request<()>| {
            let body = body.lock().unwrap().take().unwrap();
            async { Ok::<_, Infallible>(Response::new(body)) }
        })));
        let request = Request::get("/export").body(()).unwrap();
        driven.spawn(async { reads_all(service.oneshot(request).await.unwrap().into_body()).await });
        let report = seen.first();
        assert_eq!((report.kind, &*place(&report)), (Kind::SlowBody, "next_chunk"), "{}", report.to_text());
        assert_eq!(outer.handle().in_flight() + inner.handle().in_flight(), 1);
        drop(send);
    }
}
