//! Who keeps a request waiting: named for certain where the application says what it shares, likely where it is clear,
//! and not at all where it isn't.
#![cfg(all(feature = "watchdog", feature = "timebox", feature = "profile"))]

#[path = "../common/mod.rs"]
mod common;

mod actors;
mod certain;
mod likely;
mod nobody;
mod starved;

use std::sync::{Arc, RwLockWriteGuard};
use std::time::Duration;

use heeler::report::Report;
use heeler::{Reports, WatchdogLayer};

use common::{Collected, Driven, collect, ms};

/// Long enough that a busy machine polls what was woken within a quarter of it.
const THRESHOLD: Duration = ms(300);

/// A runtime with requests that are watched.
struct Service {
    driven: Driven,
    seen: Collected,
    reports: Reports,
    layer: WatchdogLayer,
    /// What is in flight is that of one test.
    _alone: RwLockWriteGuard<'static, ()>,
}

impl Service {
    fn new(workers: usize) -> Self {
        let _alone = common::alone_at_rest();
        let (seen, reports) = collect();
        let layer = WatchdogLayer::new(THRESHOLD).reports(reports.clone());
        Self { driven: Driven::new(workers), seen, reports, layer, _alone }
    }

    /// Sends a request that is answered after the future.
    fn request<F>(&self, path: &str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        common::send(&self.driven, &self.layer, path, future);
    }

    /// Waits for the first report about that path.
    fn report(&self, path: &str) -> Report {
        let uri = |report: &Report| report.request.as_ref().is_some_and(|request| request.uri == path);
        let mut found = None;
        common::until(&format!("{path} is reported"), || {
            found = self.seen.all().into_iter().find(uri);
            found.is_some()
        });
        found.expect("it was found")
    }

    fn sentence(&self, path: &str) -> String {
        let report = self.report(path);
        let sentence = report.sentence();
        println!("{sentence}\n");
        // For those who want to read them as a person would.
        if let Some(folder) = std::env::var_os("HEELER_SHOW") {
            println!("{}\n{}", report.to_text(), serde_json::to_string_pretty(&report.others).unwrap());
            let name = std::thread::current().name().unwrap_or_default().replace("::", "_");
            let page = std::path::Path::new(&folder).join(format!("{name}{}.html", path.replace('/', "_")));
            std::fs::write(page, report.to_html()).unwrap();
        }
        sentence
    }
}

/// Waits until something has happened, on a runtime.
async fn is(happened: impl Fn() -> bool) {
    while !happened() {
        tokio::time::sleep(ms(1)).await;
    }
}

/// An answer from outside that never comes.
async fn fetch_rates() {
    let (_keep, silent) = silence().await;
    let mut byte = [0];
    let _ = tokio::io::AsyncReadExt::read(&mut { silent }, &mut byte).await;
}

/// A connection on which nothing arrives, with its other end.
async fn silence() -> (tokio::net::TcpStream, tokio::net::TcpStream) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (server, client)
}

fn shared<T>(value: T) -> Arc<T> {
    Arc::new(value)
}
