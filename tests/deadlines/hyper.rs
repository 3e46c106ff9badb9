//! The client of hyper-util.

use std::net::SocketAddr;

use heeler::DeadlineLayer;
use heeler::timebox::deadline::DeadlineService;
use http::Request;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tower::{Layer as _, ServiceExt as _};

use crate::common::{FOREVER, ms};
use crate::server::{NAMED, agree, next, relay, silent, slow};
use crate::{BoxError, interrupted};

fn client(layer: DeadlineLayer) -> DeadlineService<Client<HttpConnector, String>> {
    layer.layer(Client::builder(TokioExecutor::new()).build_http())
}

async fn get(client: DeadlineService<Client<HttpConnector, String>>, address: SocketAddr) -> Result<String, BoxError> {
    let request = Request::get(format!("http://{address}/")).body(String::new())?;
    Ok(client.oneshot(request).await?.status().to_string())
}

/// Guards: over two hops, each service has what is left of its caller's time, and is stopped when that is up.
#[tokio::test]
async fn hyper_calls_pass_the_remaining_time_on() {
    let (b, mut stopped) = slow().await;
    let to_b = client(DeadlineLayer::new(FOREVER).header(NAMED));
    let (a, mut fronts) = relay(move || get(to_b.clone(), b)).await;
    let answer = get(client(DeadlineLayer::new(FOREVER)), a).await.unwrap();
    assert_eq!(answer, "503 Service Unavailable");
    agree(&next(&mut fronts).await, &next(&mut stopped).await);
}

/// Guards: a call outside any timebox has the default limit over a socket, too, and its peer is told about it.
#[tokio::test]
async fn a_call_outside_any_timebox_gets_the_default() {
    let (b, mut stopped) = slow().await;
    let error = get(client(DeadlineLayer::new(ms(200)).header(NAMED)), b).await.unwrap_err();
    let interrupted = interrupted(&*error);
    assert_eq!((interrupted.label(), interrupted.limit()), (Some("call to 127.0.0.1"), ms(200)));
    let stopped = next(&mut stopped).await;
    assert_eq!((stopped.left, stopped.interrupted.limit()), (ms(200), ms(200)));
}

/// Guards: a peer that never says anything holds a call no longer than its limit, including the connection.
#[tokio::test]
async fn a_silent_peer_delays_only_until_the_limit() {
    let address = silent().await;
    let error = get(client(DeadlineLayer::new(ms(50))), address).await.unwrap_err();
    assert_eq!(interrupted(&*error).limit(), ms(50));
}
