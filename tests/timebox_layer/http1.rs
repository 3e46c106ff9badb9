//! What an HTTP client is told, what the report says, and what happens to the handler.

use std::io::{Read as _, Write as _};

use axum::Router;
use axum::routing::{get, post};
use bytes::Bytes;
use heeler::TimeboxLayer;
use heeler::report::StackKind;
use http::{Response, StatusCode};

use super::common::{at_least, beside_others, collect, line_of, ms, own_functions, place};
use super::{Dropped, LIMIT, Server, forever, interrupted, layer, reports_in};

async fn stuck() {
    tokio::time::sleep(ms(10)).await;
    waits_for_long().await; // where the handler is
}

#[inline(never)]
async fn waits_for_long() {
    forever().await; // where it waits
}

/// Guards: a stuck handler leads to a 503 with a problem document that names the limit, but nothing of the request or its
/// stacks, after the limit and not before. The report says where it was, and its times add up.
#[test]
fn a_stuck_handler_gets_503_and_a_report() {
    let _guard = beside_others();
    let (seen, reports, layer) = layer();
    let server = Server::start(Router::new().route("/albums/{id}", get(stuck)).layer(layer));
    let answer = server.get("/albums/secret-album?key=hush");
    assert_eq!((answer.status, &answer.headers["content-type"]), (503, &"application/problem+json".parse().unwrap()));
    assert!(answer.took >= at_least(LIMIT), "{:?}", answer.took);
    assert_eq!(
        answer.json(),
        serde_json::json!({
            "type": "about:blank",
            "title": "Service Unavailable",
            "status": 503,
            "detail": "The request was stopped after its limit of 300 ms.",
        })
    );

    let report = interrupted(&seen);
    let text = report.to_text();
    let request = report.request.as_ref().expect("the request");
    assert_eq!((&*request.method, &*request.uri), ("GET", "/albums/secret-album?key=[redacted]"), "{text}");
    assert_eq!(report.threshold, Some(ms(300)), "{text}");
    assert!(report.elapsed >= ms(300), "{text}");
    assert_eq!(place(&report), "forever", "{text}");
    let source = include_str!("http1.rs");
    let frames: Vec<(&str, u32)> = report
        .stacks
        .iter()
        .filter(|stack| stack.current && stack.kind == StackKind::Await)
        .flat_map(|stack| &stack.frames)
        .filter_map(|frame| Some((frame.file.as_deref()?, frame.line?)))
        .collect();
    for mark in ["where it waits", "where the handler is"] {
        let line = line_of(source, mark);
        assert!(frames.iter().any(|(file, at)| file.ends_with("http1.rs") && *at == line), "line {line} in {text}");
    }
    assert_eq!(
        report.timeline.iter().map(|interval| interval.time).sum::<std::time::Duration>(),
        report.elapsed,
        "{text}"
    );
    assert_eq!(reports_in(&seen, &reports), 1);
}

/// Guards: a handler that responds in time is left alone: the same status, headers and bytes as without the layer.
#[test]
fn a_handler_in_time_is_left_alone() {
    let _guard = beside_others();
    let (seen, reports, layer) = layer();
    let bytes: Vec<u8> = (0..200_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let answer = bytes.clone();
    let router = Router::new()
        .route(
            "/echo",
            post(async |body: Bytes| {
                tokio::time::sleep(ms(20)).await;
                ([("x-photo", "7")], body)
            }),
        )
        .route("/bytes", get(move || async { (StatusCode::ACCEPTED, answer) }));
    let plain = Server::start(router.clone());
    let boxed = Server::start(router.layer(layer.limit_bodies()));
    for path in ["/bytes", "/nowhere"] {
        let (plain, boxed) = (plain.get(path), boxed.get(path));
        assert_eq!(
            (plain.status, plain.headers.get("content-length")),
            (boxed.status, boxed.headers.get("content-length"))
        );
        assert!(plain.body.unwrap() == boxed.body.unwrap());
    }
    let echoed = boxed.ask(|http, at| http.post(at + "/echo").body(bytes.clone()));
    assert_eq!((echoed.status, &echoed.headers["x-photo"]), (200, &"7".parse().unwrap()));
    assert!(echoed.body.unwrap() == bytes);
    assert_eq!(reports_in(&seen, &reports), 0);
}

/// Guards: the handler is dropped, with what it holds, before the client has its response. Nothing runs on by itself.
#[test]
fn the_handler_is_dropped_before_the_response() {
    let _guard = beside_others();
    let (_seen, _reports, layer) = layer();
    let dropped = Dropped::default();
    let theirs = dropped.clone();
    let router = Router::new().route(
        "/",
        get(async move || {
            let _guard = theirs.guard();
            forever().await;
        }),
    );
    let server = Server::start(router.layer(layer));
    assert!(!dropped.is());
    assert_eq!(server.get("/").status, 503);
    assert!(dropped.is());
}

/// Guards: the response can be set, by its status or as a whole. A closure sees the request's head.
#[test]
fn the_response_at_the_limit_is_configurable() {
    let _guard = beside_others();
    let limit =
        |status: u16| TimeboxLayer::new(ms(50)).reports(collect().1).status(StatusCode::from_u16(status).unwrap());
    let server = Server::start(Router::new().route("/", get(stuck)).layer(limit(504)));
    let answer = server.get("/");
    assert_eq!((answer.status, &answer.json()["title"]), (504, &"Gateway Timeout".into()));

    let layer = limit(504).respond(|interrupted, request| {
        assert!(interrupted.is_from("pages") && request.extensions.is_empty());
        let page =
            format!("{} {}: {:?}", request.method, request.headers["x-who"].to_str().unwrap(), interrupted.limit());
        Response::builder().status(408).header("x-page", "sorry").body(page.into()).unwrap()
    });
    let server = Server::start(Router::new().route("/page", get(stuck)).layer(layer.label("pages")));
    let answer = server.ask(|http, at| http.get(at + "/page").header("x-who", "guest"));
    assert_eq!((answer.status, &answer.headers["x-page"]), (408, &"sorry".parse().unwrap()));
    assert_eq!(answer.body.unwrap(), b"GET guest: 50ms");
}

/// Guards: what a service does in `call` itself is inside the timebox, too. Here it finds the limit there.
#[test]
fn the_call_itself_is_inside_the_timebox() {
    use tower::{Layer as _, Service as _};
    let (_seen, _reports, layer) = layer();
    let mut service = layer.layer(tower::service_fn(|_: http::Request<()>| {
        let left = heeler::timebox::remaining().expect("a limit");
        std::future::ready(Ok::<_, std::convert::Infallible>(Response::new(format!("{}", left <= LIMIT))))
    }));
    let answer = service.call(http::Request::new(()));
    assert!(heeler::timebox::remaining().is_none(), "the timebox is only around the call");
    let answer = futures::executor::block_on(answer).unwrap();
    let body = futures::executor::block_on(http_body_util::BodyExt::collect(answer.into_body())).unwrap().to_bytes();
    assert_eq!(body, "true");
}

/// Guards: layers further out can tell a response of the timebox from one of the service.
#[test]
fn the_interruption_is_in_the_extensions() {
    use tower::{Layer as _, ServiceExt as _};
    let _guard = beside_others();
    let (_seen, _reports, layer) = layer();
    let service = layer.layer(tower::service_fn(async |request: http::Request<bool>| {
        if *request.body() {
            stuck().await;
        }
        Ok::<_, std::convert::Infallible>(Response::new(String::new()))
    }));
    for slow in [false, true] {
        let answer = super::common::runtime(0).block_on(service.clone().oneshot(http::Request::new(slow))).unwrap();
        let interrupted = answer.extensions().get::<heeler::Interrupted>();
        assert_eq!(interrupted.map(heeler::Interrupted::limit), slow.then_some(LIMIT));
    }
}

/// Guards: a client that does not send what it announced gets a response in time, and is not waited for. The report says that
/// it was waited for.
#[test]
fn a_slow_upload_gets_a_response_in_time() {
    let _guard = beside_others();
    let (seen, _reports, layer) = layer();
    async fn upload(body: Bytes) -> String {
        format!("{} bytes", body.len())
    }
    let server = Server::start(Router::new().route("/", post(upload)).layer(layer));
    let mut connection = std::net::TcpStream::connect(server.address).unwrap();
    connection.set_read_timeout(Some(super::common::PATIENCE)).unwrap();
    connection.write_all(b"POST / HTTP/1.1\r\nhost: photos\r\ncontent-length: 100\r\n\r\nabc").unwrap();
    let mut head = [0; 12];
    connection.read_exact(&mut head).unwrap();
    assert_eq!(std::str::from_utf8(&head).unwrap(), "HTTP/1.1 503");
    let report = interrupted(&seen);
    let waits_for_body = |name: &str| name.contains("Incoming") || name.contains("collect");
    let functions = report.stacks.iter().flat_map(|stack| &stack.frames).filter_map(|frame| frame.function.as_deref());
    assert!(functions.into_iter().any(waits_for_body), "{}", report.to_text());
}

/// Guards: the connection of a request that was stopped can be used as before.
#[test]
fn the_connection_stays_usable() {
    let _guard = beside_others();
    let (_seen, _reports, layer) = layer();
    let server =
        Server::start(Router::new().route("/slow", get(stuck)).route("/fast", get(async || "fine")).layer(layer));
    let mut connection = std::net::TcpStream::connect(server.address).unwrap();
    connection.set_read_timeout(Some(super::common::PATIENCE)).unwrap();
    connection.write_all(b"GET /slow HTTP/1.1\r\nhost: photos\r\n\r\n").unwrap();
    connection.write_all(b"GET /fast HTTP/1.1\r\nhost: photos\r\nconnection: close\r\n\r\n").unwrap();
    let mut answers = String::new();
    connection.read_to_string(&mut answers).unwrap();
    let statuses: Vec<&str> = answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!((statuses, answers.ends_with("fine")), (vec!["503", "200"], true), "{answers}");
}

#[test]
fn a_disabled_layer_does_nothing() {
    super::common::in_own_process("http1::a_disabled_layer_does_nothing", || {
        let (seen, reports, layer) = layer();
        heeler::timebox::set_enabled(false);
        let slow = get(async || tokio::time::sleep(LIMIT + ms(100)).await);
        let server = Server::start(Router::new().route("/", slow).layer(layer.limit_bodies()));
        assert_eq!(server.get("/").status, 200);
        heeler::timebox::set_enabled(true);
        assert_eq!(server.get("/").status, 503);
        assert_eq!(reports_in(&seen, &reports), 1);
    });
}

/// Guards: each branch of a wait has a name of its own.
#[test]
fn each_waiting_branch_is_named() {
    let _guard = beside_others();
    let (seen, _reports, layer) = layer();
    async fn left() {
        forever().await;
    }
    async fn right() {
        std::future::pending::<()>().await;
        forever().await;
    }
    async fn both() {
        tokio::join!(left(), async { forever().await });
        right().await;
    }
    let server = Server::start(Router::new().route("/", get(both)).layer(layer));
    assert_eq!(server.get("/").status, 503);
    let report = interrupted(&seen);
    assert_eq!(own_functions(&report, StackKind::Await, None), ["forever", "forever"], "{}", report.to_text());
}
