//! A small service on the oldest dependencies: what waits, blocks and is starved is reported as with the newest.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use heeler::report::{Sink, Verdict};
use heeler::{Report, Reports, SpanLayer, TimeboxExt as _, WatchdogLayer};
use tracing::Instrument as _;
use tracing_subscriber::prelude::*;

const PATIENCE: Duration = Duration::from_secs(30);
const THRESHOLD: Duration = Duration::from_millis(200);

/// One test at a time: they are about the workers of a runtime.
static ALONE: Mutex<()> = Mutex::new(());

struct Collected(Mutex<Sender<Report>>);

impl Sink for Collected {
    fn name(&self) -> &str {
        "collected"
    }

    fn deliver(&self, report: &Report) -> Result<(), heeler::SinkError> {
        let _ = self.0.lock().unwrap().send(report.clone());
        Ok(())
    }
}

async fn waits(Path(user): Path<u32>) -> String {
    naps().instrument(tracing::info_span!("shop", user)).await;
    user.to_string()
}

async fn naps() {
    tokio::time::sleep(Duration::from_secs(3)).await;
}

async fn blocks() -> &'static str {
    std::thread::sleep(Duration::from_secs(2));
    "done"
}

async fn limited() -> String {
    let error = naps().timebox(Duration::from_millis(50)).await.unwrap_err();
    error.to_string()
}

/// A service with one worker, and the reports of it.
fn serve() -> (tokio::runtime::Runtime, SocketAddr, Receiver<Report>) {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| tracing_subscriber::registry().with(SpanLayer::new()).init());
    let (sender, reports) = channel();
    let sink = Reports::builder().without_log().repeat_after(Duration::ZERO).sink(Collected(Mutex::new(sender)));
    let watchdog = WatchdogLayer::new(THRESHOLD).reports(sink.build().unwrap());
    let app = Router::new()
        .route("/users/{id}", get(waits))
        .route("/blocks", get(blocks))
        .route("/limited", get(limited))
        .layer(watchdog);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async { axum::serve(listener, app).await });
    (runtime, address, reports)
}

fn ask(address: SocketAddr, path: &str) -> std::thread::JoinHandle<String> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    std::thread::spawn(move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    })
}

fn first(reports: &Receiver<Report>, verdict: Verdict) -> Report {
    loop {
        let report = reports.recv_timeout(PATIENCE).expect("a report");
        if report.verdict == verdict {
            return report;
        }
    }
}

fn place(report: &Report) -> &str {
    report.location.as_ref().and_then(|location| location.function.as_deref()).unwrap_or("nowhere")
}

/// Guards: the report says where it waits, its route, and the spans that it is in.
#[test]
fn a_request_that_waits_is_reported() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (_runtime, address, reports) = serve();
    let _answer = ask(address, "/users/6");
    let report = first(&reports, Verdict::Waiting);
    let text = report.to_text();
    assert_eq!(place(&report), "oldest::naps", "{text}");
    assert!(text.contains("/users/{id}") && text.contains("shop user=6"), "{text}");
}

/// Guards: a thread's stack can be captured, and the poll that holds the only worker is recognised.
#[test]
fn a_blocking_request_is_reported_with_what_it_starves() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (_runtime, address, reports) = serve();
    let starved = ask(address, "/users/7");
    std::thread::sleep(THRESHOLD / 4);
    let _blocked = ask(address, "/blocks");
    let (mut blocking, mut starving) = (None, None);
    while blocking.is_none() || starving.is_none() {
        let report = reports.recv_timeout(PATIENCE).expect("a report");
        match report.verdict {
            Verdict::Blocking => blocking = Some(report),
            Verdict::Starved => starving = Some(report),
            _ => {}
        }
    }
    let (blocking, starving) = (blocking.unwrap(), starving.unwrap());
    assert_eq!(place(&blocking), "oldest::blocks", "{}", blocking.to_text());
    assert!(starving.to_text().contains("oldest::blocks"), "{}", starving.to_text());
    assert!(starved.join().unwrap().ends_with('7'));
}

/// Guards: a timebox ends the work inside it, and says where that was.
#[test]
fn a_timebox_says_where_it_was() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (_runtime, address, _reports) = serve();
    let answer = ask(address, "/limited").join().unwrap();
    assert!(answer.contains("50ms was up") && answer.contains("oldest::naps"), "{answer}");
}
