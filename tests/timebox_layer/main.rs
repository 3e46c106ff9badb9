//! `TimeboxLayer`: on real servers and clients, over TCP.
#![cfg(all(feature = "watchdog", feature = "timebox"))]

#[path = "../common/mod.rs"]
mod common;

mod beside;
mod body;
mod deadlines;
mod ends;
mod grpc;
mod http1;
mod kinds;
mod layer_order;
mod shared;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use heeler::report::{Kind, Verdict};
use heeler::{Report, TimeboxLayer, WatchdogLayer};

use common::{Collected, Driven, FOREVER, PATIENCE, collect, ms};

/// Long enough that a busy machine polls what was woken within a quarter of it.
const LIMIT: Duration = ms(300);

/// A server on a runtime of its own, and a client's runtime beside it.
struct Server {
    address: SocketAddr,
    /// Its connections end with this.
    _server: Driven,
    client: Driven,
}

impl Server {
    fn start(router: Router) -> Self {
        // With a threshold longer than any that a test's own watchdog has.
        let router = if within_watchdog() { router.layer(WatchdogLayer::new(4 * FOREVER)) } else { router };
        let server = Driven::new(2);
        let listener = block_on(server.spawn(tokio::net::TcpListener::bind("127.0.0.1:0"))).unwrap();
        let address = listener.local_addr().unwrap();
        server.spawn(async { axum::serve(listener, router).await });
        Self { address, _server: server, client: Driven::new(1) }
    }

    /// Sends a request and reads all of the answer.
    fn ask(&self, request: impl FnOnce(reqwest::Client, String) -> reqwest::RequestBuilder) -> Answer {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = request(http, format!("http://{}", self.address)).timeout(PATIENCE);
        block_on(self.client.spawn(async {
            let begun = Instant::now();
            let response = request.send().await.unwrap();
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            let body = response.bytes().await.map(|body| body.to_vec());
            Answer { status, headers, body, took: begun.elapsed() }
        }))
    }

    fn get(&self, path: &'static str) -> Answer {
        self.ask(|http, at| http.get(at + path))
    }
}

/// A box within a watched request shares its row.
fn within_watchdog() -> bool {
    std::env::var_os(WITHIN_WATCHDOG).is_some()
}

const WITHIN_WATCHDOG: &str = "HEELER_TEST_WITHIN_WATCHDOG";

/// Guards: all that is tested here is true of boxes that share the row of their request.
#[test]
fn the_same_holds_within_a_watchdog() {
    if within_watchdog() {
        return;
    }
    let this = std::env::current_exe().unwrap();
    let output = std::process::Command::new(this).env(WITHIN_WATCHDOG, "1").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

struct Answer {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: Result<Vec<u8>, reqwest::Error>,
    took: Duration,
}

impl Answer {
    #[track_caller]
    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(self.body.as_ref().unwrap()).unwrap()
    }
}

#[track_caller]
fn block_on<T>(task: tokio::task::JoinHandle<T>) -> T {
    futures::executor::block_on(task).unwrap()
}

fn layer() -> (Collected, heeler::Reports, TimeboxLayer) {
    let (seen, reports) = collect();
    (seen, reports.clone(), TimeboxLayer::new(LIMIT).reports(reports))
}

/// The first report of an interruption.
#[track_caller]
fn interrupted(seen: &Collected) -> Report {
    let report = seen.wait("an interruption", |report| report.kind == Kind::Interrupted);
    assert_eq!(report.verdict, Verdict::Interrupted, "{}", report.to_text());
    report
}

/// How many reports there are, when all that was due has been delivered.
#[track_caller]
fn reports_in(seen: &Collected, reports: &heeler::Reports) -> usize {
    assert!(reports.blocking_flush(PATIENCE));
    seen.all().len()
}

/// Tells that it was dropped.
#[derive(Debug, Clone, Default)]
struct Dropped(Arc<AtomicBool>);

impl Dropped {
    fn guard(&self) -> DropGuard {
        DropGuard(self.clone())
    }

    fn is(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

#[derive(Debug)]
struct DropGuard(Dropped);

impl Drop for DropGuard {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::SeqCst);
    }
}

async fn forever() {
    tokio::time::sleep(FOREVER).await;
}
