//! Calls ask no peer for a profile, whatever was passed on to the client.

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::Router;
use axum::http::{HeaderMap, Uri};
use heeler::DeadlineLayer;
use http::{HeaderName, Request};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::sync::mpsc;
use tonic::service::Routes;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::common::{FLAGGED, FOREVER};
use crate::server::{next, serve};

/// A peer that tells what it is asked for, and whether that has the header.
async fn peer() -> (SocketAddr, mpsc::UnboundedReceiver<(String, bool)>) {
    let (tell, told) = mpsc::unbounded_channel();
    let app = Router::new().fallback(async move |uri: Uri, headers: HeaderMap| {
        tell.send((uri.to_string(), headers.contains_key("x-geordi"))).unwrap();
    });
    (serve(app).await, told)
}

/// Guards: the client of hyper-util sends neither the parameter, in any spelling, nor the header. Everything else is
/// unchanged.
#[tokio::test]
async fn hyper_sends_no_flag() {
    let (address, mut told) = peer().await;
    for (uri, arrives) in FLAGGED {
        let client = Client::builder(TokioExecutor::new()).build_http::<String>();
        let request = Request::get(format!("http://{address}{uri}")).header("x-geordi", "20x").header("X-GEORDI", "1");
        DeadlineLayer::new(FOREVER).layer(client).oneshot(request.body(String::new()).unwrap()).await.unwrap();
        assert_eq!(next(&mut told).await, (arrives.to_owned(), false), "{uri}");
    }
}

/// Guards: the same for reqwest.
#[cfg(feature = "reqwest")]
#[tokio::test]
async fn reqwest_sends_no_flag() {
    let (address, mut told) = peer().await;
    for (uri, arrives) in FLAGGED {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client.get(format!("http://{address}{uri}")).header("x-geordi", "1").build().unwrap();
        DeadlineLayer::new(FOREVER).layer(client).oneshot(request).await.unwrap();
        assert_eq!(next(&mut told).await, (arrives.to_owned(), false), "{uri}");
    }
}

/// Guards: the same for tonic, whose calls have nothing but the header.
#[tokio::test]
async fn tonic_sends_no_flag() {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("", tonic_health::ServingStatus::Serving).await;
    let (tell, mut told) = mpsc::unbounded_channel();
    let app = Routes::new(health).into_axum_router().layer(axum::middleware::map_request(
        move |request: axum::extract::Request| {
            tell.send((request.headers().contains_key("x-geordi"), request.headers().contains_key("x-kept"))).unwrap();
            std::future::ready(request)
        },
    ));
    let address = serve(app).await;
    let channel = Endpoint::new(format!("http://{address}")).unwrap().connect_lazy();
    let mut client = HealthClient::new(DeadlineLayer::new(FOREVER).layer(channel));
    let mut request = tonic::Request::new(HealthCheckRequest { service: String::new() });
    request.metadata_mut().insert("x-geordi", "1".parse().unwrap());
    request.metadata_mut().insert("x-kept", "1".parse().unwrap());
    client.check(request).await.unwrap();
    assert_eq!(next(&mut told).await, (false, true));
}

/// Guards: the peer's own names are removed as well as heeler's. Impossible names are errors.
#[tokio::test]
async fn custom_names_are_removed_as_well() {
    let echo = service_fn(|request: Request<()>| async move {
        let names: Vec<_> = request.headers().keys().map(ToString::to_string).collect();
        Ok::<_, Infallible>(format!("{} {names:?}", request.uri()))
    });
    let layer = DeadlineLayer::new(FOREVER).strip_profile_parameter("profile").unwrap();
    let layer = layer.strip_profile_header(HeaderName::from_static("x-profile"));
    let request = Request::get("http://b.example/?profile=svg&a&__geordi__&profiles");
    let request = request.header("x-profile", "1").header("x-geordi", "1").header("x-own", "1").body(()).unwrap();
    let sent = layer.layer(echo).oneshot(request).await.unwrap();
    assert_eq!(sent, "http://b.example/?a&profiles [\"x-own\"]");
    assert!(DeadlineLayer::new(FOREVER).strip_profile_parameter("a b").unwrap_err().is_config());
}
