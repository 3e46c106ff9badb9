//! Ten thousand requests that become slow at the same moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use heeler::WatchdogLayer;
use http::{Request, Response};
use tower::{Layer as _, ServiceExt as _};

use super::common::{PATIENCE, collect_with, in_own_process, ms, until};
use super::{ask, get};

const REQUESTS: usize = 10_000;

/// Guards: each request is in a report, held back, dropped or not captured, and counted once as such. The service answers all
/// of them, and stays watched.
#[test]
fn a_flood_is_counted_without_loss() {
    in_own_process("flood::a_flood_is_counted_without_loss", || {
        let threshold = ms(3_000);
        let (seen, reports) = collect_with(|builder| builder.repeat_after(Duration::from_secs(60)));
        let layer = WatchdogLayer::new(threshold).reports(reports.clone());
        let handle = layer.handle();
        let runtime = super::common::runtime(2);
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let running = Arc::new(AtomicUsize::new(0));
        let requests: Vec<_> = (0..REQUESTS)
            .map(|_| {
                let (gate, running) = (gate.clone(), running.clone());
                let service = layer.layer(tower::service_fn(move |_: Request<()>| {
                    let (gate, running) = (gate.clone(), running.clone());
                    async move {
                        running.fetch_add(1, Ordering::Relaxed);
                        let _permit = gate.acquire().await;
                        Ok::<_, std::convert::Infallible>(Response::new(String::new()))
                    }
                }));
                runtime.spawn(service.oneshot(get("/flood")))
            })
            .collect();
        until("all are running", || running.load(Ordering::Relaxed) == REQUESTS);
        assert_eq!(handle.in_flight(), REQUESTS);
        until("the first is reported", || reports.stats().made > 0);
        // All are past their threshold soon, and none is past twice that.
        std::thread::sleep(threshold / 4);
        gate.add_permits(REQUESTS);
        for request in requests {
            assert!(runtime.block_on(request).unwrap().is_ok());
        }
        assert_eq!(handle.in_flight(), 0);
        let counted = || {
            let stats = reports.stats();
            (stats.made + stats.dropped + stats.not_captured) as usize
        };
        until("each is counted", || counted() == REQUESTS);
        assert!(reports.blocking_flush(PATIENCE));
        let stats = reports.stats();
        assert_eq!(stats.made, stats.delivered + stats.suppressed);
        assert!(stats.made >= 100 && stats.not_captured > 0, "{stats:?}");
        // One place on one route, and at most one report for each verdict that so many at once may get.
        assert!(stats.delivered <= 3, "{stats:?}");
        // And then as ever.
        handle.set_threshold(ms(20));
        // This second's budget is used up.
        assert_eq!(ask(&layer, get("/after"), ms(2_500)), "answered");
        assert!(reports.blocking_flush(PATIENCE));
        assert!(seen.all().iter().any(|report| report.request.as_ref().unwrap().uri == "/after"));
    });
}
