//! An axum service that profiles single requests for those who know a token.
//!
//! ```text
//! ADMIN_TOKEN=correct-horse-battery-staple cargo run --release --all-features --example profile
//! curl -H 'authorization: Bearer correct-horse-battery-staple' '127.0.0.1:3000/orders/7?__geordi__' > profile.svg
//! curl -H 'authorization: Bearer correct-horse-battery-staple' '127.0.0.1:3000/orders/7?__geordi__=pprof' > profile.pb.gz
//! curl -H 'authorization: Bearer correct-horse-battery-staple' -H 'x-geordi: 1' -i 127.0.0.1:3000/orders/7
//! ```
//!
//! In a browser, set the cookie `heeler_token` to the token (in the console: `document.cookie = "heeler_token=…;samesite=strict"`)
//! and append `?__geordi__` to any address: a page shows how far the request is, and then where it spent its time.

use std::time::Duration;

use axum::extract::Path;
use axum::{Router, routing::get};
use heeler::{ProfileLayer, authorize};
use tokio::time::sleep;

async fn order(Path(number): Path<u64>) -> String {
    let (customer, price) = tokio::join!(customer(number), price(number));
    let checked = tokio::task::spawn_blocking(move || checksum(number)).await.unwrap_or_default();
    format!("order {number} of {customer}: {price} ({checked:x})\n")
}

/// Waits, as for a database.
async fn customer(number: u64) -> String {
    sleep(Duration::from_millis(120)).await;
    format!("customer {}", number % 10)
}

/// Waits, and computes.
async fn price(number: u64) -> u64 {
    sleep(Duration::from_millis(40)).await;
    checksum(number) % 1_000
}

fn checksum(number: u64) -> u64 {
    (0..30_000_000).fold(number, |sum, at| sum.rotate_left(5) ^ at)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().init();
    let token = std::env::var("ADMIN_TOKEN").map_err(|_| "set ADMIN_TOKEN to a secret of 16 characters or more")?;
    let app = Router::new().route("/orders/{number}", get(order)).layer(ProfileLayer::new(authorize::bearer(token)?));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}
