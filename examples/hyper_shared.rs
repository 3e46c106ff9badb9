//! A hyper service that is not `Clone`, with all three layers around it.
//!
//! ```text
//! cargo run --example hyper_shared
//! curl 127.0.0.1:3000/slow                     # then look at what the service has printed
//! curl '127.0.0.1:3000/?__geordi__=20x,json'   # twenty runs in one profile: in a debug build, everybody on this host may
//! ```
//!
//! hyper calls a service by reference, and a service behind an [`Arc`] is a service, too, so it need not be `Clone`.
//! The layers go around a [`tower::service_fn`] that calls it. That function is cloned for each connection, and for
//! each profile.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use heeler::{ProfileLayer, Reports, TimeboxLayer, WatchdogLayer, authorize};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tower::{ServiceBuilder, service_fn};

/// A request's body. hyper's `Incoming` belongs to a connection and cannot be created. A boxed one can be made from
/// anything.
type Body = BoxBody<Bytes, hyper::Error>;

fn boxed(request: Request<Incoming>) -> Request<Body> {
    request.map(BodyExt::boxed)
}

fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}

/// Counts its requests: it is one service, not one per connection.
#[derive(Debug, Default)]
struct Counter {
    requests: AtomicU64,
}

impl Service<Request<Body>> for Counter {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Body>) -> Self::Future {
        let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        Box::pin(async move {
            if request.uri().path() == "/slow" {
                wait().await;
            }
            Ok(Response::new(Full::from(format!("request {number}\n"))))
        })
    }
}

async fn wait() {
    tokio::time::sleep(Duration::from_secs(3)).await;
}

/// Serves until accepting fails.
pub(crate) async fn serve(listener: TcpListener, reports: Reports) -> std::io::Result<()> {
    let counter = Arc::new(Counter::default());
    let shared = move |request: Request<Body>| {
        let counter = Arc::clone(&counter);
        async move { counter.call(request).await }
    };
    let service = ServiceBuilder::new()
        // Outside the profile layer, which then knows a body that can be created.
        .map_request(boxed)
        .layer(WatchdogLayer::new(Duration::from_secs(1)).reports(reports.clone()))
        .layer(ProfileLayer::new(authorize::debug_builds()).empty_body(empty))
        .layer(TimeboxLayer::new(Duration::from_secs(30)).reports(reports))
        .service(service_fn(shared));
    loop {
        let (stream, _) = listener.accept().await?;
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(async move {
            let connection = auto::Builder::new(TokioExecutor::new());
            if let Err(error) = connection.serve_connection(TokioIo::new(stream), service).await {
                eprintln!("connection: {error}");
            }
        });
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().init();
    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    serve(listener, Reports::default()).await?;
    Ok(())
}
