//! Deadlines of calls while boxes are switched off: a switch of the whole process, so a test binary of its own.
#![cfg(feature = "timebox")]

use std::convert::Infallible;
use std::time::Duration;

use heeler::{DeadlineLayer, timebox};
use http::Request;
use http::header::CONTENT_TYPE;
use tower::{Layer as _, ServiceExt as _, service_fn};

/// Guards: while somebody steps through a program, no call is refused or cut off, here or at the peer.
#[tokio::test]
async fn calls_pass_unchanged_when_disabled() {
    timebox::set_enabled(false);
    let echo = service_fn(|request: Request<()>| async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok::<_, Infallible>(request.headers().clone())
    });
    let grpc = |caller: Option<&str>| {
        let request = Request::post("http://photos.example/").header(CONTENT_TYPE, "application/grpc");
        caller.into_iter().fold(request, |request, value| request.header("grpc-timeout", value)).body(()).unwrap()
    };
    for limit in [Duration::ZERO, Duration::from_millis(1)] {
        for caller in [None, Some("1n"), Some("junk")] {
            let mut request = grpc(caller);
            let before = request.headers().clone();
            // Not a limit's business: never sent.
            request.headers_mut().insert("x-geordi", "1".parse().unwrap());
            let service = DeadlineLayer::new(limit).layer(echo);
            let after = timebox::timebox(Duration::from_millis(1), service.oneshot(request)).await;
            assert_eq!(after.unwrap().unwrap(), before);
        }
    }
    timebox::set_enabled(true);
    let service = DeadlineLayer::new(Duration::from_millis(1)).layer(echo);
    assert!(service.oneshot(grpc(None)).await.is_err());
}
