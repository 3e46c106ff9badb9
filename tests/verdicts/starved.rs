//! Starved: woken, not polled, and the report names who holds the workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use heeler::report::{StackKind, Verdict};
use heeler::{Report, WatchdogLayer};
use tower::{Layer as _, ServiceExt as _};

use super::common::{FOREVER, PORTABLE, beside_others, collect, own_functions, place, until};
use super::{Driven, THRESHOLD, get, service_of};

fn hogs_the_worker(release: &Receiver<()>) {
    let _ = release.recv();
}

async fn innocent(stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(THRESHOLD).await;
    }
}

/// A profiled request that blocks its own thread until the other end is dropped.
fn profiled(driven: &Driven) -> Sender<()> {
    let (release, wait) = channel::<()>();
    let (blocks, is_blocked) = channel();
    let wait = Arc::new(std::sync::Mutex::new(wait));
    let service = tower::service_fn(move |_: http::Request<String>| {
        let (wait, blocks) = (Arc::clone(&wait), blocks.clone());
        async move {
            blocks.send(()).unwrap();
            let _ = wait.lock().unwrap().recv();
            Ok::<_, std::convert::Infallible>(http::Response::new(String::new()))
        }
    });
    let service = heeler::ProfileLayer::new(|_: &http::request::Parts| true).layer(service);
    driven.spawn(service.oneshot(http::Request::get("/?__geordi__=json").body(String::new()).unwrap()));
    is_blocked.recv().unwrap();
    release
}

/// A request that is woken while every worker is held by watched work.
fn starved(workers: usize) -> Report {
    starved_on(&Driven::new(workers), workers)
}

fn starved_on(driven: &Driven, workers: usize) -> Report {
    let (seen, reports) = collect();
    let (hogs_seen, hogs_reports) = collect();
    let running = Arc::new(AtomicUsize::new(0));
    let layer = WatchdogLayer::new(THRESHOLD).reports(reports);
    let stop = Arc::new(AtomicBool::new(false));
    let innocent = driven.spawn(layer.layer(service_of(innocent(stop.clone()))).oneshot(get("/innocent")));
    until("the innocent request sleeps", || layer.handle().in_flight() == 1);
    let hold = WatchdogLayer::new(FOREVER).without_blocking_reports().reports(hogs_reports);
    let hogs: Vec<(Sender<()>, _)> = (0..workers.max(1))
        .map(|_| {
            let (release, wait) = channel();
            let running = running.clone();
            let hog = service_of(async move {
                running.fetch_add(1, Ordering::Relaxed);
                hogs_the_worker(&wait);
            });
            (release, driven.spawn(hold.layer(hog).oneshot(get("/hog"))))
        })
        .collect();
    until("every worker is held", || running.load(Ordering::Relaxed) == workers.max(1));
    // On a busy machine they may hold them only after the first report.
    let report = seen.wait("one who is starved", |report| report.verdict == Verdict::Starved);
    stop.store(true, Ordering::Relaxed);
    for (release, hog) in hogs {
        drop(release);
        assert!(futures::executor::block_on(hog).unwrap().is_ok());
    }
    assert!(futures::executor::block_on(innocent).unwrap().is_ok());
    assert!(hogs_seen.all().is_empty());
    report
}

#[track_caller]
fn assert_starved(report: &Report, holders: usize) {
    let text = report.to_text();
    assert_eq!(report.verdict, Verdict::Starved, "{text}");
    assert_eq!(report.request.as_ref().unwrap().uri, "/innocent");
    let culprits: Vec<_> = report.stacks.iter().filter(|stack| stack.kind == StackKind::Culprit).collect();
    assert_eq!(culprits.len(), holders, "{text}");
    for culprit in &culprits {
        assert_eq!(culprit.work.as_deref(), Some("GET /hog"), "{text}");
        assert!(culprit.thread.is_some() && !culprit.truncated, "{text}");
    }
    if PORTABLE {
        return;
    }
    assert_eq!(own_functions(report, StackKind::Culprit, None), vec!["hogs_the_worker"; holders]);
    assert_eq!(place(report), "hogs_the_worker", "{text}");
}

#[test]
fn a_held_current_thread_runtime_starves() {
    let _guard = beside_others();
    assert_starved(&starved(0), 1);
}

#[test]
fn every_held_worker_is_a_culprit() {
    let _guard = beside_others();
    assert_starved(&starved(2), 2);
}

/// Guards: a profile thread is not a worker, and what blocks there starves nobody.
#[test]
fn a_blocking_profile_starves_nobody() {
    let _guard = beside_others();
    for workers in [0, 1] {
        let driven = Driven::new(workers);
        let release = profiled(&driven);
        assert_starved(&starved_on(&driven, workers), 1);
        drop(release);
    }
}
