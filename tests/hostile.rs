//! A process that makes it hard: its `tracing` subscriber panics outside of a runtime, and its workers mask every signal.
//!
//! In a binary of its own: subscriber and signal mask are the process's.
#![cfg(feature = "watchdog")]
#![allow(unsafe_code, reason = "masks signals, as programs do that wait for them with `sigwait`")]

mod common;

use std::convert::Infallible;
use std::sync::Once;
use std::time::{Duration, Instant};

use common::{Driven, FOREVER, PORTABLE, alone, collect, ms, until};
use heeler::report::{Kind, Verdict};
use heeler::{Reports, WatchdogLayer};
use http::{Request, Response};
use tower::{Layer, ServiceExt, service_fn};
use tracing_subscriber::prelude::*;

/// As layers do that export in batches: needs a runtime, and panics where there is none.
struct NeedsRuntime;

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for NeedsRuntime {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        if event.metadata().target().starts_with("heeler") {
            drop(tokio::runtime::Handle::current());
        }
    }
}

/// Before anything of heeler's starts.
fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing_subscriber::registry().with(NeedsRuntime).init());
}

/// Masks all signals of this thread, and of those that it makes.
fn mask_signals() {
    // SAFETY: fills a set and applies it to this thread alone.
    unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut());
    }
}

/// Signals that wait to be taken, in the whole process of this user.
fn queued_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("SigQ:")).unwrap_or("0/0");
    line.trim().split('/').next().unwrap().parse().unwrap()
}

type Answer = Result<Response<String>, Infallible>;

async fn spin(_: Request<()>) -> Answer {
    let began = Instant::now();
    while began.elapsed() < ms(2_500) {
        std::hint::spin_loop();
    }
    Ok(Response::new(String::new()))
}

async fn block(_: Request<()>) -> Answer {
    std::thread::sleep(ms(1_500));
    Ok(Response::new(String::new()))
}

async fn wait(_: Request<()>) -> Answer {
    std::future::pending::<()>().await;
    Ok(Response::new(String::new()))
}

/// Guards: a log line that panics costs that line, and not the reporter. Reports keep coming.
#[test]
fn a_panicking_subscriber_loses_only_its_own_line() {
    let _alone = alone();
    prepare();
    let (seen, reports) = collect();
    let driven = Driven::new(2);
    for _ in 0..3 {
        let layer = WatchdogLayer::new(ms(60)).reports(reports.clone());
        driven.spawn(layer.layer(service_fn(wait)).oneshot(Request::new(())));
    }
    until("three requests are reported", || seen.all().iter().filter(|report| report.update == 0).count() >= 3);
}

/// Guards: threads that never take their signal are reported without a stack, once each, and signals do not pile up.
#[test]
fn masked_signals_are_reported_and_do_not_pile_up() {
    let _alone = alone();
    prepare();
    if PORTABLE {
        return;
    }
    let before = queued_signals();
    let (seen, reports) = collect();
    let driven = std::thread::spawn(|| {
        mask_signals();
        Driven::new(2)
    });
    let driven = driven.join().unwrap();
    let layer = WatchdogLayer::new(FOREVER).blocking_after(ms(60)).reports(reports);
    for _ in 0..2 {
        driven.spawn(layer.clone().layer(service_fn(spin)).oneshot(Request::new(())));
    }
    let mut most = 0;
    until("both long polls are reported", || {
        most = most.max(queued_signals());
        seen.all().iter().filter(|report| report.kind == Kind::BlockingPoll).count() >= 2
    });
    assert!(most <= before + 2, "{most} signals are queued, {before} were before");
    for report in seen.all() {
        assert_eq!(report.verdict, Verdict::Blocking);
        assert!(report.notes.iter().any(|note| note.contains("did not answer")), "{:?}", report.notes);
        assert!(report.thread.as_ref().is_some_and(|thread| thread.state.as_deref() == Some("running")));
    }
}

/// Guards: the search for long polls begins with the first layer that wants it, even if jobs were watched before.
#[test]
fn long_polls_are_found_after_an_earlier_job() {
    let _alone = alone();
    prepare();
    let driven = Driven::new(2);
    driven
        .handle
        .block_on(heeler::watch("warm up", Duration::from_secs(60), async { tokio::time::sleep(ms(20)).await }));
    let (seen, reports) = collect();
    let layer = WatchdogLayer::new(FOREVER).blocking_after(ms(100)).reports(reports);
    driven.spawn(layer.layer(service_fn(block)).oneshot(Request::new(())));
    until("the long poll is reported", || seen.all().iter().any(|report| report.kind == Kind::BlockingPoll));
}

/// Guards: a layer that takes a row over shows headers under their own names, and only those that it allows itself.
#[test]
fn a_joined_layer_shows_only_its_own_headers() {
    let _alone = alone();
    prepare();
    let (seen, inner) = collect();
    let outer = Reports::builder().without_log().allow_headers(["x-tenant", "host"]).build().unwrap();
    let service = WatchdogLayer::new(ms(50)).reports(inner).layer(service_fn(wait));
    let service = WatchdogLayer::new(FOREVER).reports(outer).layer(service);
    let request = Request::get("/").header("host", "h.example").header("x-tenant", "acme-secret").body(()).unwrap();
    let driven = Driven::new(1);
    driven.spawn(service.oneshot(request));
    until("the request is reported", || !seen.all().is_empty());
    let headers = seen.all().remove(0).request.unwrap().headers;
    assert_eq!(headers, [("host".to_owned(), "h.example".to_owned())]);
}

/// Guards: the `{:?}` output of public types, shown to a user or in a log, contains nothing of the request.
#[test]
fn debug_output_shows_nothing_of_the_request() {
    let _alone = alone();
    prepare();
    let (_, reports) = collect();
    let layer = WatchdogLayer::new(ms(50)).watch_bodies().reports(reports);
    let answer = async |_: Request<()>| Ok::<_, Infallible>(Response::new(String::from("body")));
    let request = Request::get("/login?password=hunter2").header("host", "h.example").body(()).unwrap();
    let driven = Driven::new(1);
    let response = driven.handle.block_on(layer.clone().layer(service_fn(answer)).oneshot(request)).unwrap();
    let printed = format!("{layer:?} {response:?}");
    assert!(!printed.contains("hunter2") && !printed.contains("h.example"), "{printed}");
}
