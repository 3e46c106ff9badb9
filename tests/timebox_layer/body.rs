//! `.limit_bodies()`: the box covers the response's body.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::Router;
use axum::body::Body as AxumBody;
use axum::routing::get;
use bytes::Bytes;
use futures::StreamExt as _;
use heeler::timebox::layer::ResponseBody;
use heeler::{Interrupted, TimeboxLayer};
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tower::{Layer as _, ServiceExt as _};

use super::common::{FOREVER, at_least, beside_others, collect, ms, place, runtime};
use super::{Dropped, LIMIT, Server, forever, interrupted, layer, reports_in};

/// Guards: a body that stalls is cut off. The client gets what was sent and an error, not a short response that looks
/// complete. The rest of the body is dropped, and the report says where it was.
#[test]
fn a_stalled_body_is_cut_off() {
    let _guard = beside_others();
    let (seen, reports, layer) = layer();
    let dropped = Dropped::default();
    let theirs = dropped.clone();
    let handler = async move || {
        let first = futures::stream::iter([Ok::<_, Infallible>("the first half")]);
        let guard = theirs.guard();
        let second = futures::stream::once(async move {
            let _guard = guard;
            forever().await;
            Ok("the second")
        });
        AxumBody::from_stream(first.chain(second))
    };
    let server = Server::start(Router::new().route("/export", get(handler)).layer(layer.limit_bodies()));
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}/export", server.address);
    let (status, first, second, took) = super::block_on(server.client.spawn(async move {
        let begun = Instant::now();
        let mut response = http.get(url).send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.chunk().await, response.chunk().await, begun.elapsed())
    }));
    assert_eq!((status, &*first.unwrap().unwrap()), (200, &b"the first half"[..]));
    assert!(second.unwrap_err().is_decode() && took >= at_least(LIMIT), "{took:?}");
    assert!(dropped.is());
    let report = interrupted(&seen);
    assert_eq!((report.request.as_ref().unwrap().uri.as_str(), &*place(&report)), ("/export", "forever"));
    assert_eq!(reports_in(&seen, &reports), 1);
}

/// Frames that were made before, then silence.
struct Frames(Vec<Frame<Bytes>>, bool);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.0.pop() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None if self.1 => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty() && self.1
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = SizeHint::new();
        hint.set_lower(self.0.len() as u64);
        hint.set_upper(777);
        hint
    }
}

async fn answer<B: Body>(layer: &TimeboxLayer, body: B, before: std::time::Duration) -> ResponseBody<B> {
    let body = Mutex::new(Some(body));
    let service = layer.layer(tower::service_fn(|_: Request<()>| {
        let body = body.lock().unwrap().take().unwrap();
        async move {
            tokio::time::sleep(before).await;
            Ok::<_, Infallible>(Response::new(body))
        }
    }));
    service.oneshot(Request::get("/export").body(()).unwrap()).await.unwrap().into_body()
}

fn data(text: &'static str) -> Frame<Bytes> {
    Frame::data(Bytes::from_static(text.as_bytes()))
}

/// Guards: data, trailers, the size hint and the end of the stream are those of the inner body, inside the timebox or
/// outside.
#[test]
fn frames_are_forwarded() {
    for boxed in [false, true] {
        let layer = TimeboxLayer::new(FOREVER).reports(collect().1);
        let layer = if boxed { layer.limit_bodies() } else { layer };
        runtime(0).block_on(async {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", "7".parse().unwrap());
            let frames = Frames(vec![Frame::trailers(trailers), data("b"), data("a")], true);
            let mut body = answer(&layer, frames, ms(0)).await;
            assert_eq!((body.size_hint().lower(), body.size_hint().upper()), (3, Some(777)));
            assert!(!body.is_end_stream());
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "a");
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "b");
            assert_eq!(body.size_hint().lower(), 1);
            assert_eq!(body.frame().await.unwrap().unwrap().into_trailers().unwrap()["x-sum"], "7");
            assert!(body.is_end_stream());
            assert!(body.frame().await.is_none());
        });
    }
}

/// Guards: the limit is for the response and its body together, and the body does not have what the response has used up. The
/// error contains the interruption, and nothing comes after it.
#[test]
fn response_and_body_share_one_limit() {
    let _guard = beside_others();
    let (seen, reports) = collect();
    let layer = TimeboxLayer::new(LIMIT).limit_bodies().label("export").reports(reports.clone());
    runtime(0).block_on(async {
        let begun = Instant::now();
        let mut body = answer(&layer, Frames(vec![data("a")], false), LIMIT / 2).await;
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "a");
        let error = body.frame().await.unwrap().unwrap_err();
        assert!(begun.elapsed() >= at_least(LIMIT));
        let interrupted = Interrupted::find(&*error).expect("the interruption");
        assert!(interrupted.is_from("export") && interrupted.limit() == LIMIT);
        assert!(interrupted.elapsed() >= LIMIT);
        assert!(body.is_end_stream() && body.frame().await.is_none());
        assert_eq!(body.size_hint().exact(), Some(0));
    });
    assert_eq!(reports_in(&seen, &reports), 1);
}

/// Guards: a reader that comes back after the limit gets the frames that are ready, and no others.
#[test]
fn a_slow_reader_still_gets_ready_frames() {
    let _guard = beside_others();
    let (seen, reports) = collect();
    let layer = TimeboxLayer::new(ms(50)).limit_bodies().reports(reports.clone());
    runtime(0).block_on(async {
        let mut body = answer(&layer, Frames(vec![data("b"), data("a")], false), ms(0)).await;
        assert!(body.frame().await.unwrap().is_ok());
        tokio::time::sleep(ms(150)).await;
        assert!(body.frame().await.unwrap().is_ok(), "ready at once");
        assert!(body.frame().await.unwrap().is_err());
    });
    assert_eq!(reports_in(&seen, &reports), 1);
}

/// Guards: a body that is dropped halfway is over, and nothing is reported later.
#[test]
fn a_body_dropped_halfway_is_not_reported() {
    let _guard = beside_others();
    let (seen, reports) = collect();
    let layer = TimeboxLayer::new(ms(50)).limit_bodies().reports(reports.clone());
    runtime(0).block_on(async {
        let mut body = answer(&layer, Frames(vec![data("b"), data("a")], false), ms(0)).await;
        assert!(body.frame().await.unwrap().is_ok());
        drop(body);
        tokio::time::sleep(ms(150)).await;
    });
    assert_eq!(reports_in(&seen, &reports), 0);
}
