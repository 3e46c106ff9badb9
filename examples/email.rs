//! Sends mails about slow requests of an axum service, and shuts down without losing one.
//!
//! ```text
//! cargo run --release --features axum,email --example email       # the mail lies in a file, and the program says where
//!
//! export HEELER_SMTP_URL=smtps://user:password@smtp.example.com HEELER_MAIL_FROM=a@example.com HEELER_MAIL_TO=b@example.com
//! cargo run --release --features axum,email --example email       # the mail leaves
//! ```
//!
//! `curl 127.0.0.1:3000/slow` makes a slow request. Ctrl-C ends the service.

use std::path::PathBuf;
use std::time::Duration;

use axum::{Router, routing::get};
use heeler::{Email, Reports, WatchdogLayer};

async fn slow() -> &'static str {
    tokio::time::sleep(Duration::from_secs(3)).await;
    "at last\n"
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().init();
    let directory = std::env::temp_dir().join("heeler-mail");
    let (mail, files) = match std::env::var_os("HEELER_SMTP_URL") {
        Some(_) => (Email::from_env()?, None),
        None => (Email::files(&directory), Some(directory)),
    };
    let reports = Reports::builder().email(mail.subject_prefix("[example] ")).build()?;
    let app = Router::new()
        .route("/slow", get(slow))
        .layer(WatchdogLayer::new(Duration::from_secs(1)).reports(reports.clone()));

    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    let ctrl_c = async { drop(tokio::signal::ctrl_c().await) };
    axum::serve(listener, app).with_graceful_shutdown(ctrl_c).await?;

    let sent = reports.flush(Duration::from_secs(10)).await;
    println!("{}", if sent { "every mail has left" } else { "some mails have not left in time" });
    if let Some(directory) = files {
        mails(directory)?.iter().for_each(|path| println!("a mail lies in {}", path.display()));
    }
    Ok(())
}

fn mails(directory: PathBuf) -> std::io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        paths.push(entry?.path());
    }
    paths.sort();
    Ok(paths)
}
