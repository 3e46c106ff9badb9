//! A row is given back whatever becomes of its work.

use std::panic::{AssertUnwindSafe, resume_unwind};

use futures::FutureExt as _;
use heeler::WatchdogLayer;
use tower::{Layer as _, ServiceExt as _};

use super::common::{FOREVER, collect, ms, runtime, until};
use super::{get, nothing_in, service_of};

fn watched() -> (super::Collected, heeler::Reports, WatchdogLayer) {
    let (seen, reports) = collect();
    let layer = WatchdogLayer::new(FOREVER).abandoned_at_fraction(0.0).without_blocking_reports();
    let layer = layer.reports(reports.clone());
    (seen, reports, layer)
}

#[test]
fn a_finished_request_frees_its_row() {
    let (seen, reports, layer) = watched();
    let handle = layer.handle();
    runtime(0).block_on(async {
        let answer = layer.layer(service_of(async move {
            assert_eq!(handle.in_flight(), 1);
            tokio::time::sleep(ms(1)).await;
        }));
        answer.oneshot(get("/")).await.unwrap();
        assert_eq!(handle.in_flight(), 0);
    });
    nothing_in(&seen, &reports);
}

/// Guards: a request that panics is over, and is not abandoned.
#[test]
fn a_panicking_request_frees_its_row() {
    let (seen, reports, layer) = watched();
    for after in [ms(0), ms(5)] {
        runtime(0).block_on(async {
            let answer = layer.layer(service_of(async move {
                if !after.is_zero() {
                    tokio::time::sleep(after).await;
                }
                resume_unwind(Box::new("on purpose"));
            }));
            let outcome = AssertUnwindSafe(answer.oneshot(get("/"))).catch_unwind().await;
            assert!(outcome.is_err());
        });
        assert_eq!(layer.handle().in_flight(), 0);
    }
    nothing_in(&seen, &reports);
}

/// Guards: a panic inside the service's `call`, before there is a future.
#[test]
fn a_panic_in_the_call_frees_the_row() {
    let (_seen, _reports, layer) = watched();
    let panics = |_: http::Request<()>| -> std::future::Ready<super::Answer> { resume_unwind(Box::new("on purpose")) };
    let mut service = layer.layer(tower::service_fn(panics));
    let call = AssertUnwindSafe(|| tower::Service::call(&mut service, get("/")));
    assert!(std::panic::catch_unwind(|| call().now_or_never()).is_err());
    assert_eq!(layer.handle().in_flight(), 0);
    assert!(heeler::current().is_none(), "the thread is no longer inside the request");
}

#[test]
fn a_dropped_request_frees_its_row() {
    let (_seen, _reports, layer) = watched();
    let handle = layer.handle();
    // Not polled yet.
    let requests: Vec<_> = (0..100)
        .map(|_| {
            let mut service = layer.layer(service_of(std::future::pending()));
            tower::Service::call(&mut service, get("/"))
        })
        .collect();
    assert_eq!(handle.in_flight(), 100);
    drop(requests);
    assert_eq!(handle.in_flight(), 0);
    // Polled, and dropped with its runtime.
    let runtime = runtime(2);
    for _ in 0..100 {
        runtime.spawn(layer.layer(service_of(std::future::pending())).oneshot(get("/")));
    }
    until("all are in flight", || handle.in_flight() == 100);
    drop(runtime);
    assert_eq!(handle.in_flight(), 0);
}

/// Guards: children have rows of their own, which end with them and not with their parent.
#[test]
fn children_free_their_own_rows() {
    let (_seen, _reports, layer) = watched();
    let runtime = runtime(1);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let answer = layer.layer(service_of(async move {
        heeler::spawn(async move {
            let _ = stopped.await;
            heeler::current()
        });
    }));
    runtime.block_on(answer.oneshot(get("/"))).unwrap();
    assert_eq!(layer.handle().in_flight(), 0);
    drop(stop);
}

/// Guards: rows that come and go on many threads at once are never confused. Each request sees only its own.
#[test]
fn rows_on_many_threads_are_never_confused() {
    let (_seen, _reports, layer) = watched();
    let runtime = runtime(4);
    let ids = std::sync::Arc::new(std::sync::Mutex::new(std::collections::HashSet::new()));
    runtime.block_on(async {
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let (layer, ids) = (layer.clone(), ids.clone());
                tokio::spawn(async move {
                    for round in 0..500 {
                        let ids = ids.clone();
                        let service = layer.layer(service_of(async move {
                            let before = heeler::current().unwrap();
                            assert!(ids.lock().unwrap().insert(before.id()), "an id was given twice");
                            if round % 3 == 0 {
                                tokio::task::yield_now().await;
                            }
                            assert_eq!(heeler::current(), Some(before));
                        }));
                        service.oneshot(get("/")).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    assert_eq!(layer.handle().in_flight(), 0);
    assert_eq!(ids.lock().unwrap().len(), 8 * 500);
}
