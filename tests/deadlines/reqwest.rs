//! The client of reqwest.

use std::net::SocketAddr;
use std::time::Duration;

use heeler::DeadlineLayer;
use heeler::timebox::deadline::DeadlineService;
use reqwest::{Client, Method, Request};
use tower::{Layer as _, ServiceExt as _};

use crate::common::{FOREVER, ms};
use crate::server::{NAMED, agree, next, relay, slow};
use crate::{BoxError, interrupted};

fn client(layer: DeadlineLayer) -> DeadlineService<Client> {
    layer.layer(Client::builder().no_proxy().build().unwrap())
}

fn to(address: SocketAddr, timeout: Option<Duration>) -> Request {
    let mut request = Request::new(Method::GET, format!("http://user:secret@{address}/?secret").parse().unwrap());
    *request.timeout_mut() = timeout;
    request
}

async fn get(client: DeadlineService<Client>, request: Request) -> Result<String, BoxError> {
    Ok(client.oneshot(request).await?.status().to_string())
}

/// Guards: over two hops, each service has what is left of its caller's time, and is stopped when that is up.
#[tokio::test]
async fn reqwest_calls_pass_the_remaining_time_on() {
    let (b, mut stopped) = slow().await;
    let to_b = client(DeadlineLayer::new(FOREVER).header(NAMED));
    let (a, mut fronts) = relay(move || get(to_b.clone(), to(b, None))).await;
    let answer = get(client(DeadlineLayer::new(FOREVER)), to(a, None)).await.unwrap();
    assert_eq!(answer, "503 Service Unavailable");
    agree(&next(&mut fronts).await, &next(&mut stopped).await);
}

/// Guards: the timeout of a request limits its call and what its peer is told. A longer one does not affect the layer.
#[tokio::test]
async fn the_requests_own_timeout_is_respected() {
    let (b, mut told) = slow().await;
    let client = client(DeadlineLayer::new(ms(200)).header(NAMED));
    for (timeout, expected) in [(None, ms(200)), (Some(FOREVER), ms(200)), (Some(ms(100)), ms(100))] {
        let error = get(client.clone(), to(b, timeout)).await.unwrap_err();
        let interrupted = interrupted(&*error);
        assert_eq!((interrupted.label(), interrupted.limit()), (Some("call to 127.0.0.1"), expected));
        assert!(!format!("{error} {error:?}").contains("secret"));
        assert_eq!(next(&mut told).await.left, expected);
    }
}
