//! Workers that are held by what nobody watches.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use heeler::WatchdogLayer;
use heeler::report::{StackKind, Verdict};
use http::{Request, Response};
use tower::{Layer as _, ServiceExt as _};

use super::common::{self, PORTABLE, collect, ms};

#[inline(never)]
fn recompute_rates(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        std::hint::spin_loop();
    }
}

/// Guards: a plain task that computes on every worker is named, though heeler does not watch it.
#[test]
fn a_plain_task_that_holds_the_workers_is_named() {
    if PORTABLE {
        return;
    }
    let _alone = common::alone();
    let (seen, reports) = collect();
    let layer = WatchdogLayer::new(super::THRESHOLD).reports(reports);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .on_thread_start(heeler::register_thread)
        .build()
        .unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (has_begun, is_over) = (Arc::new(AtomicBool::new(false)), Arc::clone(&stop));
    let begun = Arc::clone(&has_begun);
    let service = tower::service_fn(move |_: Request<()>| {
        let (begun, is_over) = (Arc::clone(&begun), Arc::clone(&is_over));
        async move {
            while !is_over.load(Ordering::Relaxed) {
                begun.store(true, Ordering::Relaxed);
                tokio::time::sleep(ms(100)).await;
            }
            Ok::<_, std::convert::Infallible>(Response::new(String::new()))
        }
    });
    runtime.spawn(layer.layer(service).oneshot(Request::get("/innocent").body(()).unwrap()));
    common::until("the innocent request has begun", || has_begun.load(Ordering::Relaxed));
    let stopped = Arc::clone(&stop);
    runtime.spawn(async move { recompute_rates(&stopped) });
    // On a busy machine the thread may not answer the first time.
    let held = "the runtime's threads are held in causes::starved::recompute_rates at";
    let report = seen.wait("a report that names what holds the worker", |report| report.sentence().contains(held));
    stop.store(true, Ordering::Relaxed);
    println!("{}", report.to_text());
    assert_eq!(report.verdict, Verdict::Starved);
    let held = report.stacks.iter().find(|stack| stack.kind == StackKind::Culprit).unwrap();
    assert!(!held.truncated && held.work.is_none());
    assert!(!report.notes.iter().any(|note| note.contains("fiber")), "{:?}", report.notes);
    runtime.shutdown_background();
}

#[inline(never)]
fn flush_audit_log(end: &std::sync::Mutex<std::sync::mpsc::Receiver<()>>) {
    let _ = end.lock().unwrap().recv();
    std::hint::black_box(end);
}

/// Guards: what every thread of the blocking pool is busy with is named to those who wait for one, whatever needs it.
#[test]
fn what_keeps_the_blocking_pool_busy_is_named() {
    if PORTABLE {
        return;
    }
    // On a slow machine, reports share a look at the pools for seconds: with those of other tests, too.
    common::in_own_process("starved::what_keeps_the_blocking_pool_busy_is_named", || {
        let (seen, reports) = collect();
        let layer = WatchdogLayer::new(super::THRESHOLD).reports(reports);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let mut keep = Vec::new();
        for _ in 0..2 {
            let (end, ended) = std::sync::mpsc::channel();
            keep.push(end);
            runtime.spawn_blocking(move || flush_audit_log(&std::sync::Mutex::new(ended)));
        }
        let service = tower::service_fn(|request: Request<()>| async move {
            match request.uri().path() {
                "/file" => drop(tokio::fs::metadata("/").await),
                "/name" => drop(tokio::net::lookup_host("localhost:80").await),
                "/plain" => tokio::task::spawn_blocking(|| {}).await.unwrap(),
                _ => heeler::spawn_blocking(|| {}).await.unwrap(),
            }
            Ok::<_, std::convert::Infallible>(Response::new(String::new()))
        });
        for path in ["/file", "/name", "/plain", "/watched"] {
            runtime.spawn(layer.layer(service).oneshot(Request::get(path).body(()).unwrap()));
        }
        let named = "; all 2 threads of the blocking pool are busy: 2 in causes::starved::flush_audit_log at ";
        for path in ["/file", "/name", "/plain", "/watched"] {
            let uri = |report: &heeler::Report| report.request.as_ref().is_some_and(|request| request.uri == path);
            let report = seen.wait(path, uri);
            println!("{}", report.to_text());
            // A task in place of a job would wait likewise.
            assert_eq!(report.sentence().contains(named), path != "/plain", "{}", report.sentence());
            assert!(report.to_text().contains("all 2 threads of the blocking pool are busy"), "{}", report.to_text());
            let pool = report.others.unwrap().blocking_pool.unwrap();
            assert_eq!((pool.threads, pool.idle, pool.busy.len()), (2, 0, 1));
            assert!(pool.busy[0].calls.as_ref().unwrap().contains("recv"), "{:?}", pool.busy[0]);
            let not_begun = report.notes.iter().any(|note| note.contains("of child work has not begun"));
            assert_eq!(not_begun, path == "/watched", "{:?}", report.notes);
        }
        drop(keep);
        runtime.shutdown_background();
    });
}
