//! Which limit counts: the layer's, one for the request, or what its caller says.

use std::time::Duration;

use heeler::TimeboxLayer;
use http::{HeaderName, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use tower::{Layer as _, ServiceExt as _};

use super::common::{FOREVER, collect, ms, runtime};

/// What the service saw of its limit: the time that it has left, rounded up to whole seconds.
async fn left(layer: TimeboxLayer, request: Request<()>) -> Option<u64> {
    let service = layer.layer(tower::service_fn(async |_: Request<()>| {
        let left = heeler::timebox::remaining().map(|left| left.as_secs_f64().ceil());
        Ok::<_, std::convert::Infallible>(Response::new(format!("{}", left.unwrap_or(-1.0))))
    }));
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    std::str::from_utf8(&body).unwrap().parse::<f64>().ok().filter(|left| *left >= 0.0).map(|left| left as u64)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const HEADER: HeaderName = HeaderName::from_static("x-deadline-ms");

/// The content type, the headers, and the seconds that are left of the box.
type Case<'a> = (Option<&'a str>, &'a [(&'a str, &'a str)], u64);

/// Guards: for each header a caller may send, in each protocol, the smallest limit counts, and an invalid one counts as
/// missing.
#[test]
fn the_callers_smallest_deadline_counts() {
    const GRPC: Option<&str> = Some("application/grpc+proto");
    let limit = 100;
    let table: &[Case<'_>] = &[
        (None, &[], limit),
        // a named header, in any protocol
        (None, &[("x-deadline-ms", "20000")], 20),
        (None, &[("x-deadline-ms", "100000")], limit),
        (None, &[("x-deadline-ms", "3600000")], limit),
        (GRPC, &[("x-deadline-ms", "20000")], 20),
        (None, &[("x-deadline-ms", "20000"), ("x-deadline-ms", "30000")], 20),
        // gRPC's, in gRPC alone
        (GRPC, &[("grpc-timeout", "20S")], 20),
        (GRPC, &[("grpc-timeout", "20000m")], 20),
        (GRPC, &[("grpc-timeout", "1M")], 60),
        (GRPC, &[("grpc-timeout", "99999999H")], limit),
        (Some("application/grpc-web-text"), &[("grpc-timeout", "20S")], 20),
        (None, &[("grpc-timeout", "20S")], limit),
        (Some("application/json"), &[("grpc-timeout", "20S")], limit),
        // both
        (GRPC, &[("grpc-timeout", "20S"), ("x-deadline-ms", "10000")], 10),
        (GRPC, &[("grpc-timeout", "10S"), ("x-deadline-ms", "20000")], 10),
        // garbage
        (None, &[("x-deadline-ms", "")], limit),
        (None, &[("x-deadline-ms", "-1")], limit),
        (None, &[("x-deadline-ms", "1.5")], limit),
        (None, &[("x-deadline-ms", "soon")], limit),
        (None, &[("x-deadline-ms", "99999999999999999999999999")], limit),
        (None, &[("x-deadline-ms", "18446744073709551615")], limit),
        (GRPC, &[("grpc-timeout", "")], limit),
        (GRPC, &[("grpc-timeout", "20")], limit),
        (GRPC, &[("grpc-timeout", "20s")], limit),
        (GRPC, &[("grpc-timeout", "-20S")], limit),
        (GRPC, &[("grpc-timeout", "123456789S")], limit),
        (GRPC, &[("grpc-timeout", "S")], limit),
        (GRPC, &[("grpc-timeout", "junk"), ("x-deadline-ms", "20000")], 20),
    ];
    let layer = TimeboxLayer::new(seconds(limit)).deadline_header(HEADER);
    for (content_type, headers, expected) in table {
        let mut request = Request::post("/");
        if let Some(content_type) = content_type {
            request = request.header("content-type", *content_type);
        }
        for (name, value) in *headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        let seen = futures::executor::block_on(left(layer.clone(), request));
        assert_eq!(seen, Some(*expected), "{content_type:?} {headers:?}");
    }
    let unnamed = TimeboxLayer::new(seconds(limit));
    let request = Request::get("/").header(HEADER, "20000").body(()).unwrap();
    assert_eq!(futures::executor::block_on(left(unnamed, request)), Some(limit), "a header that was not configured");
}

/// Guards: a caller that has no time left gets one poll: a response that is there at once, or none.
#[test]
fn a_caller_without_time_gets_one_poll() {
    let layer = TimeboxLayer::new(seconds(60)).deadline_header(HEADER).reports(collect().1);
    runtime(0).block_on(async {
        let nothing = || Request::get("/").header(HEADER, "0").body(()).unwrap();
        assert_eq!(left(layer.clone(), nothing()).await, Some(0));
        let stuck = layer.layer(tower::service_fn(async |_: Request<()>| {
            tokio::time::sleep(FOREVER).await;
            Ok::<_, std::convert::Infallible>(Response::new(String::new()))
        }));
        assert_eq!(stuck.oneshot(nothing()).await.unwrap().status(), 503);
        let zero = TimeboxLayer::new(Duration::ZERO).reports(collect().1);
        assert_eq!(left(zero, Request::new(())).await, Some(0));
    });
}

/// Guards: some requests have a limit of their own, longer or shorter, and those that are meant to run forever have none. The
/// caller's deadline still counts.
#[test]
fn some_requests_can_have_their_own_limit() {
    let layer = TimeboxLayer::new(seconds(60)).deadline_header(HEADER).limit_for(|parts| match parts.uri.path() {
        "/export" => Some(seconds(600)),
        "/ping" => Some(seconds(1)),
        "/events" => Some(Duration::MAX),
        _ => None,
    });
    for (path, said, expected) in [
        ("/", None, Some(60)),
        ("/export", None, Some(600)),
        ("/ping", None, Some(1)),
        ("/events", None, None),
        ("/export", Some("5000"), Some(5)),
        ("/events", Some("5000"), Some(5)),
    ] {
        let mut request = Request::get(path);
        if let Some(said) = said {
            request = request.header(HEADER, said);
        }
        let seen = futures::executor::block_on(left(layer.clone(), request.body(()).unwrap()));
        assert_eq!(seen, expected, "{path} {said:?}");
    }
    let never = TimeboxLayer::new(Duration::MAX);
    assert_eq!(futures::executor::block_on(left(never, Request::new(()))), None);
}

/// Guards: changing a clone of the layer does not change the services made before.
#[test]
fn changing_a_clone_leaves_earlier_services_alone() {
    let layer = TimeboxLayer::new(seconds(60)).reports(collect().1);
    let before = layer.layer(tower::service_fn(async |_: Request<()>| {
        tokio::time::sleep(ms(20)).await;
        Ok::<_, std::convert::Infallible>(Response::new(String::new()))
    }));
    let zero = layer.limit_for(|_| Some(Duration::ZERO));
    assert_eq!(runtime(0).block_on(before.oneshot(Request::new(()))).unwrap().status(), 200);
    assert_eq!(futures::executor::block_on(left(zero, Request::new(()))), Some(0));
}
