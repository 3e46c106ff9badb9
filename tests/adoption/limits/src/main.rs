//! Rate limits in Redis: tonic on a runtime of one thread, with a limit of its own before heeler's layers.

use std::path::Path;
use std::time::Duration;

use heeler::{Reports, SpanLayer, WatchdogLayer};
use redis::aio::MultiplexedConnection;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tower::limit::ConcurrencyLimitLayer;
use tracing_subscriber::prelude::*;

/// Says whether a name has hits left.
#[derive(Debug)]
struct Limits {
    client: redis::Client,
    shared: MultiplexedConnection,
}

impl Limits {
    async fn take_token(&self, name: &str) -> redis::RedisResult<i64> {
        let mut connection = self.shared.clone();
        redis::cmd("DECR").arg(name).query_async(&mut connection).await
    }

    /// Waits until somebody gives a token back.
    async fn wait_for_token(&self, name: &str) -> redis::RedisResult<()> {
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(Duration::from_secs(20));
        let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        redis::cmd("BLPOP").arg(name).arg(10).query_async(&mut connection).await
    }

    /// The same by a client that knows nothing of tasks.
    fn wait_without_await(&self, name: &str) -> redis::RedisResult<()> {
        let mut connection = self.client.get_connection()?;
        redis::cmd("BLPOP").arg(name).arg(10).query(&mut connection)
    }
}

type Watch = tokio_stream::Empty<Result<HealthCheckResponse, Status>>;

#[tonic::async_trait]
impl Health for Limits {
    type WatchStream = Watch;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let name = request.into_inner().service;
        let done = match name.as_str() {
            "burst" => self.wait_for_token("tokens:burst").await,
            "legacy" => self.wait_without_await("tokens:legacy"),
            name => self.take_token(name).await.map(drop),
        };
        done.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(HealthCheckResponse { status: ServingStatus::Serving.into() }))
    }

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Watch>, Status> {
        Err(Status::unimplemented("watch"))
    }
}

async fn serve(listener: tokio::net::TcpListener, limits: Limits, directory: &Path) {
    let reports = Reports::builder().directory(directory).repeat_after(Duration::ZERO).build().expect("reports");
    let server = Server::builder()
        .layer(ConcurrencyLimitLayer::new(64))
        .layer(WatchdogLayer::new(Duration::from_millis(300)).reports(reports))
        .add_service(HealthServer::new(limits));
    server.serve_with_incoming(TcpListenerStream::new(listener)).await.expect("a server");
}

fn main() {
    tracing_subscriber::registry().with(tracing_subscriber::fmt::layer()).with(SpanLayer::new()).init();
    let url = std::env::var("REDIS_URL").expect("REDIS_URL");
    let client = redis::Client::open(url).expect("a URL");
    let directory = check::directory("limits");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().expect("an address");
    let (server_client, reports) = (client.clone(), directory.clone());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let shared = server_client.get_multiplexed_async_connection().await.expect("a connection");
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            serve(listener, Limits { client: server_client, shared }, &reports).await;
        });
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(ask_for_everything(&format!("http://{address}"), &client, &directory));
    check::done(&directory);
}

async fn ask_for_everything(url: &str, client: &redis::Client, directory: &Path) {
    let channel = Channel::from_shared(url.to_owned()).unwrap().connect_lazy();
    let ask = |service: &str| {
        let (mut client, service) = (HealthClient::new(channel.clone()), service.to_owned());
        tokio::spawn(async move { client.check(HealthCheckRequest { service }).await.map(drop) })
    };
    let expect = |verdict: &'static str, function: &'static str| {
        let directory = directory.to_owned();
        let uri = "/grpc.health.v1.Health/Check";
        async move { tokio::task::spawn_blocking(move || check::expect(&directory, verdict, uri, function)).await.unwrap() }
    };
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut push = async |name: &str| {
        redis::cmd("RPUSH").arg(name).arg(1).query_async::<()>(&mut connection).await.unwrap();
    };
    ask("tokens:each").await.unwrap().unwrap();

    let waits = ask("burst");
    expect("waiting", "limits::Limits::wait_for_token").await;
    push("tokens:burst").await;
    waits.await.unwrap().unwrap();

    let blocks = ask("legacy");
    expect("blocking", "limits::Limits::wait_without_await").await;
    push("tokens:legacy").await;
    blocks.await.unwrap().unwrap();
}
