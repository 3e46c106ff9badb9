//! `heeler::current()`: which request is this code running for?

use heeler::{Current, WatchdogLayer, current};
use tower::{Layer as _, ServiceExt as _};

use super::common::{FOREVER, at_least, ms, runtime};
use super::{get, service_of};

/// Guards: the request is current inside it and in its children, and not outside or in tasks that were spawned otherwise.
#[test]
fn the_request_is_current_only_inside() {
    assert!(current().is_none());
    for workers in [0, 2] {
        let runtime = runtime(workers);
        let layer = WatchdogLayer::new(FOREVER);
        let (send, receive) = std::sync::mpsc::channel::<Vec<(&str, Option<Current>)>>();
        let service = layer.layer(service_of(async move {
            let mut seen = vec![("at first", current())];
            tokio::time::sleep(ms(2)).await;
            seen.push(("after a wait", current()));
            seen.push(("in a child", heeler::spawn(async { current() }).await.unwrap()));
            seen.push(("on a thread", heeler::spawn_blocking(current).await.unwrap()));
            seen.push(("in a member", heeler::watch_child(async { current() }).await));
            let deeper = heeler::spawn(async { heeler::spawn(async { current() }).await.unwrap() });
            seen.push(("in a grandchild", deeper.await.unwrap()));
            assert_eq!(tokio::spawn(async { current() }).await.unwrap(), None);
            assert_eq!(tokio::task::spawn_blocking(current).await.unwrap(), None);
            send.send(seen).unwrap();
        }));
        runtime.block_on(async {
            service.oneshot(get("/")).await.unwrap();
            assert!(current().is_none());
        });
        let seen = receive.recv().unwrap();
        let request = seen[0].1.unwrap();
        for (place, found) in seen {
            assert_eq!(found, Some(request), "{place}");
        }
        assert_eq!(request.elapsed(), ms(0), "it is over");
    }
}

/// Guards: inside a request, a job is the current work, and the request is current again afterwards. Time passes for each.
#[test]
fn a_job_inside_a_request_is_current() {
    let layer = WatchdogLayer::new(FOREVER);
    let service = layer.layer(service_of(async {
        let request = current().unwrap();
        tokio::time::sleep(ms(5)).await;
        let job = heeler::watch("job", FOREVER, async {
            tokio::time::sleep(ms(2)).await;
            current().unwrap()
        });
        let job = job.await;
        assert_ne!(job, request);
        assert_eq!(current(), Some(request));
        assert!(request.elapsed() >= at_least(ms(7)), "{:?}", request.elapsed());
    }));
    runtime(0).block_on(service.oneshot(get("/"))).unwrap();
}

#[test]
fn the_current_id_is_that_of_the_report() {
    let _guard = super::common::beside_others();
    let (seen, reports) = super::collect();
    let layer = WatchdogLayer::new(ms(100)).reports(reports);
    let driven = super::Driven::new(1);
    let (send, receive) = std::sync::mpsc::channel();
    driven.spawn(
        layer
            .layer(service_of(async move {
                send.send(current().unwrap().id()).unwrap();
                tokio::time::sleep(FOREVER).await;
            }))
            .oneshot(get("/")),
    );
    assert_eq!(seen.first().request.unwrap().id, receive.recv().unwrap());
}
