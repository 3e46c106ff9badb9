//! The channel of tonic, which reads `grpc-timeout`, too, and so gives up at the same time as the box.

use std::net::SocketAddr;
use std::time::Duration;

use futures::future::join_all;
use futures::stream;
use heeler::timebox::deadline::DeadlineService;
use heeler::{DeadlineLayer, Interrupted, TimeboxExt as _};
use tokio::sync::mpsc;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::common::{FOREVER, ms};
use crate::interrupted;
use crate::server::{self, Front, Stopped, agree, next, silent};

/// One of the services.
#[derive(Debug)]
enum Service {
    /// Calls B.
    A {
        b: SocketAddr,
        tell: mpsc::UnboundedSender<Front>,
    },
    B {
        tell: mpsc::UnboundedSender<Stopped>,
    },
}

#[tonic::async_trait]
impl Health for Service {
    type WatchStream = stream::Pending<Result<HealthCheckResponse, Status>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        match self {
            Self::A { b, tell } => {
                let mut to_b = client(DeadlineLayer::new(FOREVER), *b);
                let front = server::front(async { Ok(format!("{:?}", to_b.check(ask()).await?)) }).await;
                tell.send(front).unwrap();
            }
            Self::B { tell } => server::work(left(&request), tell.clone()).await,
        }
        Err(Status::unavailable("later"))
    }

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("nobody asks"))
    }
}

/// What the call's header says; the layer writes microseconds for less than 100 s.
fn left(request: &Request<HealthCheckRequest>) -> Option<Duration> {
    let value = request.metadata().get("grpc-timeout")?.to_str().unwrap();
    Some(Duration::from_micros(value.strip_suffix('u').unwrap().parse().unwrap()))
}

fn ask() -> HealthCheckRequest {
    HealthCheckRequest { service: String::new() }
}

fn client(layer: DeadlineLayer, address: SocketAddr) -> HealthClient<DeadlineService<Channel>> {
    let channel = Endpoint::new(format!("http://{address}")).unwrap().connect_lazy();
    HealthClient::new(tower::Layer::layer(&layer, channel))
}

/// Not tonic's own server: it stops calls by `grpc-timeout` itself.
async fn serve(service: Service) -> SocketAddr {
    server::serve(Routes::new(HealthServer::new(service)).into_axum_router()).await
}

/// Guards: over two hops, each service has what is left of its caller's time, and is stopped when that is up.
#[tokio::test]
async fn grpc_calls_pass_the_remaining_time_on() {
    let (tell, mut stopped) = mpsc::unbounded_channel();
    let b = serve(Service::B { tell }).await;
    let (tell, mut fronts) = mpsc::unbounded_channel();
    let a = serve(Service::A { b, tell }).await;
    let answer = client(DeadlineLayer::new(FOREVER), a).check(ask()).await.unwrap_err();
    assert_eq!((answer.code(), answer.message()), (Code::Unavailable, "later"));
    agree(&next(&mut fronts).await, &next(&mut stopped).await);
}

/// Guards: if the channel gives up at the same time, the status still contains the interruption of the call's own timebox. An
/// outer timebox still drops all of its work.
#[tokio::test]
async fn a_channel_that_gives_up_keeps_the_interruption() {
    let address = silent().await;
    let calls = (0..50).map(|at| {
        tokio::spawn(async move {
            let limit = ms(40 + at % 10);
            let own = client(DeadlineLayer::new(limit), address).check(ask()).await.unwrap_err();
            let interrupted = interrupted(&own);
            let label = interrupted.label().unwrap().to_owned();
            assert_eq!((label.as_str(), interrupted.limit()), ("call to /grpc.health.v1.Health/Check", limit));

            let mut others = client(DeadlineLayer::new(FOREVER), address);
            let around = others.check(ask()).timebox(limit).label("around").await;
            assert!(around.is_err_and(|interrupted| interrupted.is_from("around")));
        })
    });
    for outcome in join_all(calls).await {
        outcome.unwrap();
    }
}

/// Guards: a deadline that the caller has given its request by tonic's means is kept.
#[tokio::test]
async fn tonics_own_timeout_is_kept() {
    let (tell, mut stopped) = mpsc::unbounded_channel();
    let b = serve(Service::B { tell }).await;
    let mut request = Request::new(ask());
    request.set_timeout(ms(100));
    let status = client(DeadlineLayer::new(FOREVER), b).check(request).await.unwrap_err();
    assert_eq!(Interrupted::find(&status).map(Interrupted::limit), Some(ms(100)));
    assert_eq!(next(&mut stopped).await.left, ms(100));
}
