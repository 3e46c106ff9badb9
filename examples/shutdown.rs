//! A graceful shutdown that loses no report:
//!
//! ```sh
//! cargo run --example shutdown --features axum
//! curl http://127.0.0.1:3000/slow   # in another terminal; then Ctrl-C in the first, while it hangs
//! ```
//!
//! The service stops accepting, answers open requests, and then sends the reports that are on their way. Reports that
//! are not sent in time stay in the spool, and the next process sends them. The same holds for everything after a
//! `kill -9`.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use heeler::{Reports, WatchdogLayer};

/// How long this process may take to send its last reports.
const LAST_REPORTS: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().init();
    let reports = Reports::builder().directory("target/slow").spool("target/spool").build()?;

    let app = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/slow", get(slow))
        .layer(WatchdogLayer::new(Duration::from_secs(1)).reports(reports.clone()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);

    axum::serve(listener, app).with_graceful_shutdown(stop()).await?;

    let all = reports.flush(LAST_REPORTS).await;
    let stats = reports.stats();
    if all {
        println!("{} reports were made, none is left", stats.made);
    } else {
        println!("{} reports are left to the next process", stats.queued);
    }
    Ok(())
}

async fn slow() -> &'static str {
    tokio::time::sleep(Duration::from_secs(5)).await;
    "at last"
}

/// Ends when the process is asked to.
async fn stop() {
    #[cfg(unix)]
    {
        let terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
        if let Ok(mut terminate) = terminate {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}
