//! The two layers against each other: what `DeadlineLayer` writes, `TimeboxLayer` reads.

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use bytes::Bytes;
use heeler::timebox::deadline::DeadlineService;
use heeler::{DeadlineLayer, Interrupted, TimeboxLayer};
use http::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::mpsc;
use tower::{Layer as _, ServiceExt as _};

use crate::common::{FOREVER, at_least, ms};
use crate::server::{LIMIT, NAMED, next, serve};

/// A service whose requests take for ever, but for its layer; and the ends of its boxes.
async fn slow(layer: TimeboxLayer) -> (std::net::SocketAddr, mpsc::UnboundedReceiver<Interrupted>) {
    let (tell, told) = mpsc::unbounded_channel();
    let layer = layer.deadline_header(NAMED).respond(move |interrupted, _| {
        tell.send(interrupted.clone()).unwrap();
        Response::new(Bytes::from_static(b"stopped"))
    });
    let boxed = layer.layer(Router::new().fallback(async || pending::<()>().await));
    // In a task of its own: else it would be dropped as soon as the caller has gone.
    let app = Router::new().fallback(async move |request: axum::extract::Request| {
        tokio::spawn(boxed.oneshot(request)).await.unwrap().unwrap()
    });
    (serve(app).await, told)
}

fn client(layer: DeadlineLayer) -> DeadlineService<Client<HttpConnector, String>> {
    layer.header(NAMED).layer(Client::builder(TokioExecutor::new()).build_http())
}

/// Guards: a service with two seconds passes what is left of them to the next one by the layers alone. That one stops in
/// time, although its own limit is far longer.
#[tokio::test]
async fn layers_alone_pass_the_remaining_time_on() {
    let (b, mut of_b) = slow(TimeboxLayer::new(FOREVER)).await;
    let to_b = client(DeadlineLayer::new(FOREVER));
    let left = Arc::new(Mutex::new(None));
    let told = Arc::clone(&left);
    let a = Router::new().fallback(async move || {
        tokio::time::sleep(ms(100)).await;
        *told.lock().unwrap() = heeler::timebox::remaining();
        let request = Request::get(format!("http://{b}/")).body(String::new()).unwrap();
        // The answer of B, which was stopped, or nothing, as A was: whichever is first.
        match to_b.oneshot(request).await {
            Ok(answer) => answer.status().to_string(),
            Err(error) => error.to_string(),
        }
    });
    let a = serve(Router::new().fallback_service(TimeboxLayer::new(LIMIT).layer(a))).await;
    let begun = Instant::now();
    let request = Request::get(format!("http://{a}/")).body(String::new()).unwrap();
    let answer = client(DeadlineLayer::new(FOREVER)).oneshot(request).await.unwrap();
    assert!([200, 503].contains(&answer.status().as_u16()), "{answer:?}");

    let b = next(&mut of_b).await;
    let left = left.lock().unwrap().expect("A is inside its timebox");
    assert!(left <= LIMIT - at_least(ms(100)) && b.limit() <= left, "{left:?} {b:?}");
    // B was called after `begun`, and A's timebox opened after that
    assert!(b.limit() + ms(2) >= LIMIT.saturating_sub(begun.elapsed()), "{b:?}");
    assert!(b.elapsed() >= b.limit() && b.elapsed() < b.limit() + ms(5_000), "{b:?}");
}

/// Guards: what one layer writes the other reads as that, or as a little less.
#[tokio::test]
async fn one_layer_reads_what_another_writes() {
    let (b, mut of_b) = slow(TimeboxLayer::new(FOREVER)).await;
    for (limit, expected) in [(Duration::from_micros(400_900), ms(400)), (ms(700), ms(700))] {
        let request = Request::get(format!("http://{b}/")).body(String::new()).unwrap();
        // Its answer, or nothing in time: whichever is first.
        let _ = client(DeadlineLayer::new(limit)).oneshot(request).await;
        assert_eq!(next(&mut of_b).await.limit(), expected);
    }
}
