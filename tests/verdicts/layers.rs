//! Several layers on one service share one row.

use heeler::WatchdogLayer;
use tower::{Layer as _, ServiceExt as _};

use super::common::{FOREVER, beside_others, collect, ms, place, until};
use super::{Driven, get, nothing_in, service_of};

async fn stuck() {
    tokio::time::sleep(FOREVER).await;
}

/// Guards: there is one row and one report, by the layer with the shorter threshold, wherever that is.
#[test]
fn the_shorter_threshold_wins() {
    let _guard = beside_others();
    for (outer_ms, inner_ms) in [(150, 60_000), (60_000, 150)] {
        let (outer_seen, outer_reports) = collect();
        let (inner_seen, inner_reports) = collect();
        let outer = WatchdogLayer::new(ms(outer_ms)).reports(outer_reports.clone());
        let inner = WatchdogLayer::new(ms(inner_ms)).reports(inner_reports.clone());
        let driven = Driven::new(1);
        driven.spawn(outer.layer(inner.layer(service_of(stuck()))).oneshot(get("/twice")));
        let (winner, loser, reports) = match outer_ms < inner_ms {
            true => (outer_seen, inner_seen, inner_reports),
            false => (inner_seen, outer_seen, outer_reports),
        };
        let report = winner.first();
        assert_eq!((report.threshold, &*place(&report)), (Some(ms(150)), "stuck"));
        nothing_in(&loser, &reports);
        assert_eq!(winner.all().iter().filter(|report| report.update == 0).count(), 1);
        assert_eq!(outer.handle().in_flight() + inner.handle().in_flight(), 1);
        drop(driven);
        until("the row is free", || outer.handle().in_flight() + inner.handle().in_flight() == 0);
    }
}

/// Guards: the inner layer also joins if it is called from a future, after an await.
#[test]
fn layers_join_across_an_await() {
    let _guard = beside_others();
    let (seen, reports) = collect();
    let outer = WatchdogLayer::new(FOREVER).reports(reports.clone());
    let inner = WatchdogLayer::new(ms(150)).reports(reports);
    let driven = Driven::new(2);
    let shared = inner.clone();
    driven.spawn(
        outer
            .layer(service_of(async move {
                tokio::task::yield_now().await;
                let _ = shared.layer(service_of(stuck())).oneshot(get("/inner")).await;
            }))
            .oneshot(get("/outer")),
    );
    let report = seen.first();
    assert_eq!(report.request.as_ref().unwrap().uri, "/outer");
    assert_eq!(outer.handle().in_flight() + inner.handle().in_flight(), 1);
}

/// Guards: a job inside a request, and a request inside a job, have rows of their own.
#[test]
fn jobs_are_not_joined() {
    let _guard = beside_others();
    let (seen, reports) = collect();
    let (job_seen, job_reports) = collect();
    let layer = WatchdogLayer::new(ms(150)).reports(reports);
    let driven = Driven::new(1);
    let service = layer.layer(service_of(stuck()));
    let job = async { drop(service.oneshot(get("/in-job")).await) };
    driven.spawn(heeler::watch("job", ms(250), job).reports(job_reports));
    assert_eq!(seen.first().request.unwrap().uri, "/in-job");
    assert_eq!(job_seen.first().job.as_deref(), Some("job"));
    assert_eq!(layer.handle().in_flight(), 1);
}

/// Guards: the row of a request ends with it, even if an inner layer's threshold had replaced the outer one's.
#[test]
fn a_joined_row_ends_with_its_request() {
    let outer = WatchdogLayer::new(FOREVER);
    let inner = WatchdogLayer::new(ms(60_000)).watch_bodies();
    let answer =
        super::common::runtime(0).block_on(outer.layer(inner.layer(service_of(async {}))).oneshot(get("/"))).unwrap();
    // The inner layer wants the body watched, and it is not read yet.
    assert_eq!(outer.handle().in_flight() + inner.handle().in_flight(), 1);
    drop(answer);
    assert_eq!(outer.handle().in_flight() + inner.handle().in_flight(), 0);
}
