//! Other ends than an answer in time or a limit: panics, errors, clients that leave; and what is left behind.

use std::convert::Infallible;
use std::io::Write as _;
use std::net::TcpStream;

use axum::Router;
use axum::routing::get;
use heeler::TimeboxLayer;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use tower::{Layer as _, ServiceExt as _};

use super::common::{beside_others, collect, ms, until};
use super::{Dropped, Server, forever, layer, reports_in};

/// Guards: a panic of the handler passes through the layer unchanged: the connection ends, the server goes on, and no
/// interruption is reported.
#[test]
fn a_panic_passes_through_the_layer() {
    let _guard = beside_others();
    let (seen, reports, layer) = layer();
    async fn bad() -> &'static str {
        tokio::time::sleep(ms(5)).await;
        // Without a message, whose backtrace may take longer than the box.
        std::panic::resume_unwind(Box::new("out of film"))
    }
    let router = Router::new().route("/bad", get(bad)).route("/good", get(async || "fine"));
    let server = Server::start(router.layer(layer.clone()));
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}/bad", server.address);
    let error = super::block_on(server.client.spawn(async move { http.get(url).send().await })).unwrap_err();
    assert!(error.is_request(), "{error:?}");
    assert_eq!(server.get("/good").status, 200);
    assert_eq!(reports_in(&seen, &reports), 0);

    // Its payload arrives as it was thrown.
    let service = layer.layer(tower::service_fn(async |_: Request<()>| -> Result<Response<String>, Infallible> {
        std::panic::panic_any(7_u8)
    }));
    let call = service.oneshot(Request::new(()));
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| futures::executor::block_on(call)));
    assert_eq!(caught.unwrap_err().downcast_ref::<u8>(), Some(&7));
}

#[test]
fn an_error_passes_through_the_layer() {
    let (_seen, _reports, layer) = layer();
    let service = layer.layer(tower::service_fn(async |_: Request<()>| Err::<Response<String>, _>("no film")));
    assert_eq!(futures::executor::block_on(service.oneshot(Request::new(()))).unwrap_err(), "no film");
}

/// Guards: a client that leaves before the limit ends its request at once, and no interruption is reported later.
#[test]
fn a_client_that_leaves_is_not_an_interruption() {
    let _guard = beside_others();
    let (seen, reports) = collect();
    let (entered, dropped) = (Dropped::default(), Dropped::default());
    let (enter, theirs) = (entered.clone(), dropped.clone());
    let router = Router::new().route(
        "/",
        get(async move || {
            drop(enter.guard());
            let _guard = theirs.guard();
            forever().await;
        }),
    );
    // Long enough to leave before, even on a busy machine; and it is over when the test looks again.
    let limit = ms(2_000);
    let server = Server::start(router.layer(TimeboxLayer::new(limit).reports(reports.clone())));
    let begun = std::time::Instant::now();
    let mut connection = TcpStream::connect(server.address).unwrap();
    connection.write_all(b"GET / HTTP/1.1\r\nhost: photos\r\n\r\n").unwrap();
    until("the handler runs", || entered.is());
    drop(connection);
    until("the handler is dropped", || dropped.is());
    if begun.elapsed() < limit {
        until("the limit would have passed", || begun.elapsed() > limit + ms(100));
        assert_eq!(reports_in(&seen, &reports), 0);
    }
}

/// Guards: the timebox ends with the response. What the caller does with the rest of its time is not inside, and a service
/// can be called any number of times at once.
#[test]
fn concurrent_requests_have_separate_limits() {
    let _guard = beside_others();
    let (seen, reports) = collect();
    let layer = TimeboxLayer::new(ms(400)).reports(reports.clone());
    let service = layer.layer(tower::service_fn(async |request: Request<u64>| {
        let millis = *request.body();
        tokio::time::sleep(ms(millis)).await;
        Ok::<_, Infallible>(Response::new(millis.to_string()))
    }));
    super::common::runtime(2).block_on(async {
        let calls = (0..200).map(|number| {
            // Every fifth is never ready in time.
            let millis = if number % 5 == 0 { 3_600_000 } else { number % 20 };
            let service = service.clone();
            async move { (millis, service.oneshot(Request::new(millis)).await.unwrap()) }
        });
        for (millis, response) in futures::future::join_all(calls).await {
            let status = response.status();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            match millis {
                3_600_000 => assert_eq!(status, 503),
                _ => assert_eq!((status.as_u16(), &*body), (200, millis.to_string().as_bytes())),
            }
        }
    });
    assert_eq!(reports_in(&seen, &reports), 40);
}
