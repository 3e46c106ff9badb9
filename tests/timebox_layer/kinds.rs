//! What the compiler has to say: the layer fits where layers go.

use std::convert::Infallible;
use std::fmt::Debug;
use std::time::Duration;

use axum::body::Body;
use heeler::TimeboxLayer;
use heeler::timebox::layer::{ResponseBody, ResponseFuture, TimeboxService};
use http::{Request, Response};
use tower::{Layer, Service, ServiceBuilder};

type Inner = tower::util::BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

fn shared<T: Send + Sync + Clone + Debug + 'static>() {}
fn sent<T: Send + Debug + 'static>() {}

/// Guards: layer, service, future and body can be shared and sent as far as what they wrap can.
#[test]
fn layers_can_be_shared_and_sent() {
    shared::<TimeboxLayer>();
    shared::<TimeboxService<Inner>>();
    sent::<ResponseFuture<<Inner as Service<Request<Body>>>::Future>>();
    sent::<ResponseBody<Body>>();
    fn both<T: Send + Sync>() {}
    both::<ResponseFuture<std::future::Ready<Result<Response<String>, Infallible>>>>();
    both::<ResponseBody<String>>();
}

/// Guards: a service in a timebox meets what axum, tonic and hyper require, also with two layers around each other.
#[test]
fn layers_fit_axum_tonic_and_hyper() {
    let layer = TimeboxLayer::new(Duration::from_secs(1)).limit_bodies();
    let router = axum::Router::new().route("/", axum::routing::get(async || "fine"));
    let _: axum::Router = router.route_layer(layer.clone()).layer(layer.clone()).layer(layer.clone());
    let routes = tonic::service::Routes::default();
    let server = tonic::transport::Server::builder().layer(layer.clone()).layer(layer.clone()).add_routes(routes);
    drop(server.serve("127.0.0.1:0".parse().unwrap()));

    fn hyper<S, R>(_: S)
    where
        S: hyper::service::Service<Request<hyper::body::Incoming>, Response = Response<R>, Error: std::error::Error>,
        R: hyper::body::Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
    {
    }
    async fn answer(_: Request<hyper::body::Incoming>) -> Result<Response<String>, Infallible> {
        Ok(Response::new(String::new()))
    }
    hyper(hyper_util::service::TowerToHyperService::new(layer.layer(tower::service_fn(answer))));
    let _ = ServiceBuilder::new().layer(layer).service_fn(answer);
}

/// Guards: `{:?}` prints no secrets.
#[test]
fn debug_output_contains_no_secrets() {
    let layer = TimeboxLayer::new(Duration::from_secs(5)).label("pages");
    let text = format!("{layer:?}");
    assert!(text.starts_with("TimeboxLayer { limit: 5s, reports: Reports"), "{text}");
    let service = layer.layer(7_u8);
    assert_eq!(format!("{service:?}"), "TimeboxService { inner: 7, .. }");
    assert_eq!((*service.get_ref(), service.clone().into_inner()), (7, 7));
}
