//! The shortest axum service with a watchdog.
//!
//! ```text
//! cargo run --release --features axum --example axum
//! curl 127.0.0.1:3000/slow        # then look at what the service has printed
//! ```

use std::time::Duration;

use axum::{Router, routing::get};
use heeler::WatchdogLayer;

async fn slow() -> &'static str {
    tokio::time::sleep(Duration::from_secs(3)).await;
    "at last\n"
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().init();
    let app = Router::new()
        .route("/", get(|| async { "hello\n" }))
        .route("/slow", get(slow))
        .layer(WatchdogLayer::new(Duration::from_secs(1)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}
