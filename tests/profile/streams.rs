//! A response that was started by the header comes as it is made.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use reqwest::Method;
use tower::{Layer as _, ServiceExt as _, service_fn};

use super::common::until;
use super::{Gate, Server, anybody, block_on, frames, layer, profile_at};

/// Guards: a frame arrives before the next one is made, and the profile lasts until the last one.
#[test]
fn frames_arrive_as_they_are_made() {
    let gate = Gate::new();
    let handler = {
        let gate = gate.clone();
        async move || frames(3, 0, &gate)
    };
    let server = Server::start(Router::new().route("/", get(handler)).layer(layer()));
    let request = server.request(Method::GET, "/").header("x-geordi", "1");
    let mut response = block_on(server.send_later(request)).unwrap();
    let id = response.headers()["x-geordi-id"].to_str().unwrap().to_owned();
    for at in 0..3 {
        gate.until_waiting(1);
        assert_eq!(server.status(&id)["phase"], "running");
        gate.open(1);
        let (frame, rest) = block_on(server.client.spawn(async {
            let frame = response.chunk().await.unwrap().unwrap();
            (frame, response)
        }));
        response = rest;
        assert_eq!(frame, format!("{at};"));
    }
    assert_eq!(block_on(server.client.spawn(async move { response.chunk().await })).unwrap(), None);
    let profile = server.profile(&id);
    assert_eq!((&profile["outcome"], &profile["response"]["body_bytes"]), (&"finished".into(), &6.into()));
}

/// Guards: a reader who does not read holds up the handler. The profiled request does not run ahead into memory.
#[test]
fn a_slow_reader_slows_the_handler() {
    let made = Arc::new(AtomicUsize::new(0));
    let service = {
        let made = Arc::clone(&made);
        service_fn(move |_: Request<String>| {
            let made = Arc::clone(&made);
            let frames = stream::iter(0..1_000).map(move |_| {
                made.fetch_add(1, Ordering::SeqCst);
                Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"x")))
            });
            async { Ok::<_, Infallible>(Response::new(StreamBody::new(frames))) }
        })
    };
    let service = anybody().layer(service);
    super::common::runtime(1).block_on(async {
        let request = Request::get("/").header("x-geordi", "1").body(String::new()).unwrap();
        let mut response = service.oneshot(request).await.unwrap();
        for read in 1..=10 {
            let frame = response.body_mut().frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), "x");
            until("the request runs ahead", || made.load(Ordering::SeqCst) > read);
            // A few are on their way.
            assert!(made.load(Ordering::SeqCst) <= read + 4, "{} of {read}", made.load(Ordering::SeqCst));
        }
        let rest = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(rest.len(), 990);
    });
}

/// Guards: trailers and a body's error arrive unchanged, and the profile says how the body ended.
#[test]
fn trailers_and_errors_arrive_unchanged() {
    let service = service_fn(|request: Request<String>| async move {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "7".parse().unwrap());
        let last = match request.uri().path() {
            "/trailers" => Ok(Frame::trailers(trailers)),
            _ => Err(io::Error::other("the disk is gone")),
        };
        let frames = stream::iter([Ok(Frame::data(Bytes::from_static(b"data"))), last]);
        Ok::<_, Infallible>(Response::new(StreamBody::new(frames)))
    });
    let service = anybody().layer(service);
    super::common::runtime(1).block_on(async {
        for path in ["/trailers", "/error"] {
            let request = Request::get(path).header("x-geordi", "1").body(String::new()).unwrap();
            let response = service.clone().oneshot(request).await.unwrap();
            let id = response.headers()["x-geordi-id"].to_str().unwrap().to_owned();
            let collected = response.into_body().collect().await;
            let outcome = match collected {
                Ok(body) => {
                    assert_eq!((path, &body.trailers().unwrap()["x-sum"]), ("/trailers", &"7".parse().unwrap()));
                    serde_json::json!("finished")
                }
                Err(error) => {
                    assert_eq!((path, error.to_string()), ("/error", "the disk is gone".to_owned()));
                    assert!(error.downcast_ref::<io::Error>().is_some());
                    serde_json::json!({ "failed": "the disk is gone" })
                }
            };
            let profile = profile_at(&service, &id).await;
            assert_eq!((&profile["outcome"], &profile["response"]["body_bytes"]), (&outcome, &4.into()));
        }
    });
}

/// Guards: if a reader leaves in the middle, the request is dropped.
#[test]
fn a_reader_who_leaves_cancels_the_request() {
    let gate = Gate::new();
    let handler = {
        let gate = gate.clone();
        async move || frames(2, 1, &gate)
    };
    let server = Server::start(Router::new().route("/", get(handler)).layer(layer()));
    let request = server.request(Method::GET, "/").header("x-geordi", "1");
    let response = block_on(server.client.spawn(async { request.send().await.unwrap() }));
    let id = response.headers()["x-geordi-id"].to_str().unwrap().to_owned();
    gate.until_waiting(1);
    drop(response);
    gate.until_waiting(0);
    let profile = server.profile(&id);
    assert_eq!((&profile["outcome"], &profile["response"]["body_bytes"]), (&"cancelled".into(), &2.into()));
}

/// Guards: a complete response is not taken for abandoned, even if its body is not sent or its length was promised.
#[test]
fn complete_bodies_are_not_abandoned() {
    let router = Router::new()
        .route("/full", get(async || "twelve bytes"))
        .route("/empty", get(async || ()))
        .route("/stream", get(async || Body::from_stream(stream::iter([Ok::<_, Infallible>("a"), Ok("b")]))))
        .route("/304", get(async || http::StatusCode::NOT_MODIFIED))
        .layer(layer());
    let server = Server::start(router);
    for path in ["/full", "/empty", "/stream", "/304"] {
        for method in [Method::GET, Method::HEAD] {
            let bare = server.send(server.request(method.clone(), path));
            let answer = server.send(server.request(method.clone(), path).header("x-geordi", "1"));
            assert_eq!((answer.status, answer.text()), (bare.status, bare.text()), "{method} {path}");
            for name in ["content-length", "transfer-encoding"] {
                assert_eq!(answer.headers.get(name), bare.headers.get(name), "{method} {path} {name}");
            }
            assert_eq!(server.profile(answer.id())["outcome"], "finished", "{method} {path}");
        }
    }
}

/// Guards: as much of a body is kept as is configured, and all of it is counted. What is kept cannot run in a browser.
#[test]
fn only_the_beginning_of_a_body_is_kept() {
    let router = Router::new()
        .route("/", get(async || axum::response::Html("<script>alert(1)</script>".repeat(1_000))))
        .route("/bytes", get(async || vec![0xff_u8; 10]))
        .layer(layer().max_body_bytes(50));
    let server = Server::start(router);
    let profile = server.get("/?__geordi__=json");
    assert_eq!(profile.json()["response"]["body_bytes"], 25_000);
    let kept = server.browse(&format!("/?__geordi__={}.response", profile.id()));
    assert_eq!(kept.text(), "<script>alert(1)</script>".repeat(2));
    assert_eq!(kept.header("content-type"), "text/plain; charset=utf-8");
    let bytes = server.get("/bytes?__geordi__=json").id().to_owned();
    let bytes = server.browse(&format!("/?__geordi__={bytes}.response"));
    assert_eq!((bytes.header("content-type"), bytes.body.as_ref().unwrap().len()), ("application/octet-stream", 10));
    for answer in [kept, bytes] {
        assert!(answer.header("content-security-policy").contains("sandbox"));
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
}
