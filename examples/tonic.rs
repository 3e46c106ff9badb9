//! The shortest tonic service with a watchdog: the health service, and a client that watches it.
//!
//! ```text
//! cargo run --release --example tonic
//! ```
//!
//! The client asks for a stream of health changes. Its first answer comes at once. Then the stream is silent, and the
//! watchdog, which also covers the body, says where it waits.

use std::time::Duration;

use heeler::WatchdogLayer;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().init();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (_reporter, health) = tonic_health::server::health_reporter();
    let server = tonic::transport::Server::builder()
        .layer(WatchdogLayer::new(Duration::from_secs(1)).watch_bodies())
        .add_service(health)
        .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener));
    tokio::spawn(server);

    let channel = tonic::transport::Endpoint::new(format!("http://{address}"))?.connect().await?;
    let mut client = HealthClient::new(channel);
    let mut changes = client.watch(HealthCheckRequest { service: String::new() }).await?.into_inner();
    println!("first: {:?}", changes.message().await?);
    println!("waiting for the next one ..");
    let silence = tokio::time::timeout(Duration::from_secs(3), changes.message()).await;
    println!("after three seconds: {silence:?}");
    Ok(())
}
