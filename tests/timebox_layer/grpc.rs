//! gRPC, with a real server and client of tonic's.

use std::pin::Pin;
use std::time::Duration;

use axum::routing::post;
use futures::{Stream, StreamExt as _};
use heeler::TimeboxLayer;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::common::{Collected, Driven, beside_others, collect, ms, place};
use super::{Dropped, LIMIT, block_on, forever, interrupted, reports_in};

/// A health service that is not well: whoever asks after "slow" never hears, and whoever watches hears once.
#[derive(Debug, Default)]
struct Sick {
    dropped: Dropped,
}

#[tonic::async_trait]
impl Health for Sick {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let _guard = self.dropped.guard();
        if request.get_ref().service == "slow" {
            forever().await;
        }
        Ok(Response::new(HealthCheckResponse { status: 1 }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let first = futures::stream::once(async { Ok(HealthCheckResponse { status: 1 }) });
        let guard = self.dropped.guard();
        let silence = futures::stream::once(async move {
            let _guard = guard;
            forever().await;
            Err(Status::internal("forever is over"))
        });
        Ok(Response::new(Box::pin(first.chain(silence))))
    }
}

struct Clinic {
    seen: Collected,
    reports: heeler::Reports,
    dropped: Dropped,
    client: HealthClient<Channel>,
    runtime: Driven,
}

impl Clinic {
    fn open(change: impl FnOnce(TimeboxLayer) -> TimeboxLayer) -> Self {
        let (seen, reports) = collect();
        let sick = Sick::default();
        let dropped = sick.dropped.clone();
        let layer = change(TimeboxLayer::new(LIMIT).reports(reports.clone()));
        let runtime = Driven::new(2);
        let client = block_on(runtime.spawn(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let server = Server::builder().layer(layer).add_service(HealthServer::new(sick));
            tokio::spawn(server.serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener)));
            HealthClient::new(Endpoint::new(format!("http://{address}")).unwrap().connect().await.unwrap())
        }));
        Self { seen, reports, dropped, client, runtime }
    }

    fn check(&self, service: &str) -> Result<i32, Status> {
        let mut client = self.client.clone();
        let request = HealthCheckRequest { service: service.to_owned() };
        block_on(self.runtime.spawn(async move { client.check(request).await })).map(|answer| answer.get_ref().status)
    }
}

/// Guards: a call that takes too long ends with the status that every gRPC client knows, its future is dropped, and the
/// report names it. Other calls are left alone.
#[test]
fn a_slow_call_ends_with_deadline_exceeded() {
    let _guard = beside_others();
    let clinic = Clinic::open(|layer| layer);
    assert_eq!(clinic.check("fast").unwrap(), 1);
    let status = clinic.check("slow").unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::DeadlineExceeded, "The request was stopped after its limit of 300 ms.")
    );
    assert!(clinic.dropped.is());
    let report = interrupted(&clinic.seen);
    assert!(report.request.as_ref().unwrap().uri.ends_with("/grpc.health.v1.Health/Check"), "{}", report.to_text());
    assert_eq!(place(&report), "forever", "{}", report.to_text());
    assert_eq!(clinic.check("fast").unwrap(), 1, "the connection is as good as before");
    assert_eq!(reports_in(&clinic.seen, &clinic.reports), 1);
}

/// Guards: the caller's own deadline counts if it is earlier, without any setting of the layer. Not with tonic, whose client
/// and server look at the clock themselves.
#[test]
fn the_callers_earlier_deadline_counts() {
    let _guard = beside_others();
    let (seen, reports) = collect();
    let layer = TimeboxLayer::new(Duration::from_secs(3_600)).reports(reports);
    let server = super::Server::start(axum::Router::new().route("/photos.Photos/Get", post(forever)).layer(layer));
    for content_type in ["application/grpc", "application/grpc-web"] {
        let answer = server.ask(|http, at| {
            let request = http.post(at + "/photos.Photos/Get").header("content-type", format!("{content_type}+proto"));
            request.header("grpc-timeout", "120m")
        });
        let headers = &answer.headers;
        assert_eq!((answer.status, &headers["content-type"]), (200, &content_type.parse().unwrap()));
        assert_eq!(headers["grpc-status"], "4");
        assert_eq!(headers["grpc-message"], "The request was stopped after its limit of 120 ms.");
        assert_eq!(answer.body.unwrap(), b"");
    }
    assert_eq!(interrupted(&seen).threshold, Some(ms(120)));
}

/// Guards: a stream that is cut off ends with the status in its trailers, after what was sent before. Its future is dropped.
#[test]
fn a_slow_stream_ends_with_deadline_exceeded() {
    let _guard = beside_others();
    let clinic = Clinic::open(|layer| layer.limit_bodies());
    let mut client = clinic.client.clone();
    let (first, end) = block_on(clinic.runtime.spawn(async move {
        let request = HealthCheckRequest { service: String::new() };
        let mut stream = client.watch(request).await.unwrap().into_inner();
        (stream.message().await, stream.message().await)
    }));
    assert_eq!(first.unwrap().unwrap().status, 1);
    let status = end.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::DeadlineExceeded, "The request was stopped after its limit of 300 ms.")
    );
    assert!(clinic.dropped.is());
    let report = interrupted(&clinic.seen);
    assert!(report.request.as_ref().unwrap().uri.ends_with("/grpc.health.v1.Health/Watch"), "{}", report.to_text());
    assert_eq!(place(&report), "forever", "{}", report.to_text());
    assert_eq!(reports_in(&clinic.seen, &clinic.reports), 1);
}

/// Guards: without `.limit_bodies()` a stream may take any time.
#[test]
fn a_stream_outside_the_timebox_is_not_limited() {
    let _guard = beside_others();
    let clinic = Clinic::open(|layer| layer);
    let mut client = clinic.client.clone();
    let silent = block_on(clinic.runtime.spawn(async move {
        let request = HealthCheckRequest { service: String::new() };
        let mut stream = client.watch(request).await.unwrap().into_inner();
        assert!(stream.message().await.unwrap().is_some());
        tokio::time::timeout(LIMIT + ms(200), stream.message()).await.is_err()
    }));
    assert!(silent);
    assert_eq!(reports_in(&clinic.seen, &clinic.reports), 0);
}
