//! Abandoned: dropped without an answer, after a share of the threshold.

use std::time::Duration;

use heeler::WatchdogLayer;
use heeler::report::{Kind, StackKind, Verdict};
use tower::{Layer as _, ServiceExt as _};

use super::common::{FOREVER, PORTABLE, beside_others, collect, own_functions, place, until};
use super::{Driven, get, ms, nothing_in, service_of};

async fn asks_upstream() {
    tokio::time::sleep(FOREVER).await;
}

/// Drops a request that has been running for `after`.
fn leave(layer: &WatchdogLayer, after: Duration) {
    let driven = Driven::new(1);
    let service = layer.layer(service_of(asks_upstream()));
    let answer = driven.spawn(async move { tokio::time::timeout(after, service.oneshot(get("/left"))).await });
    assert!(futures::executor::block_on(answer).unwrap().is_err());
    until("the row is free", || layer.handle().in_flight() == 0);
}

/// Guards: half the threshold is the default, and the report has the stacks that were last seen.
#[test]
fn leaving_after_half_the_threshold_is_reported() {
    let _guard = beside_others();
    let (seen, reports) = collect();
    let layer = WatchdogLayer::new(ms(4_000)).reports(reports);
    leave(&layer, ms(2_100));
    let report = seen.first();
    let text = report.to_text();
    assert_eq!((report.kind, report.verdict), (Kind::Abandoned, Verdict::Abandoned), "{text}");
    assert_eq!(own_functions(&report, StackKind::Await, None), ["asks_upstream"], "{text}");
    assert_eq!(place(&report), "asks_upstream");
    assert!((ms(2_000)..ms(4_000)).contains(&report.elapsed), "{text}");
    assert!(!PORTABLE || report.stacks.iter().all(|stack| stack.kind == StackKind::Await));
}

#[test]
fn leaving_before_half_the_threshold_is_not_reported() {
    let _guard = beside_others();
    let (seen, reports) = collect();
    leave(&WatchdogLayer::new(ms(10_000)).reports(reports.clone()), ms(1_500));
    nothing_in(&seen, &reports);
}

#[test]
fn leaving_after_a_duration_is_reported_whatever_the_threshold() {
    let _guard = beside_others();
    let (seen, reports) = collect();
    let layer = WatchdogLayer::new(FOREVER).abandoned_after(ms(100)).reports(reports);
    leave(&layer, ms(1));
    leave(&layer, ms(150));
    let report = seen.first();
    assert_eq!(report.verdict, Verdict::Abandoned);
    assert!(report.elapsed >= ms(100), "{}", report.to_text());
}

#[test]
fn the_fraction_of_the_threshold_is_configurable() {
    let _guard = beside_others();
    let (seen, reports) = collect();
    // An eighth has to pass before there are stacks; a share of nothing reports everybody who leaves.
    leave(&WatchdogLayer::new(FOREVER).abandoned_at_fraction(0.0).reports(reports), ms(1));
    assert_eq!(seen.first().verdict, Verdict::Abandoned);
}

#[test]
fn leaving_is_never_reported_without_abandoned_reports() {
    let _guard = beside_others();
    let (seen, reports) = collect();
    let layer = WatchdogLayer::new(FOREVER).abandoned_after(ms(1)).without_abandoned_reports();
    leave(&layer.reports(reports.clone()), ms(100));
    nothing_in(&seen, &reports);
}

/// Guards: a request that was reported as slow is not reported once more when its client leaves.
#[test]
fn a_reported_request_is_not_abandoned_as_well() {
    let _guard = beside_others();
    let (seen, reports) = collect();
    let layer = WatchdogLayer::new(ms(200)).reports(reports.clone());
    let driven = Driven::new(1);
    let answer = driven.spawn(layer.layer(service_of(asks_upstream())).oneshot(get("/left")));
    seen.first();
    answer.abort();
    until("the row is free", || layer.handle().in_flight() == 0);
    assert!(reports.blocking_flush(super::common::PATIENCE));
    assert!(seen.all().iter().all(|report| report.kind == Kind::SlowRequest));
}

/// Guards: a response is an outcome, however late it is dropped.
#[test]
fn an_answered_request_is_not_abandoned() {
    let _guard = beside_others();
    let (seen, reports) = collect();
    let layer = WatchdogLayer::new(FOREVER).abandoned_at_fraction(0.0).watch_bodies().reports(reports.clone());
    let driven = Driven::new(1);
    let answer = driven.spawn(layer.layer(service_of(async {})).oneshot(get("/")));
    drop(futures::executor::block_on(answer).unwrap().unwrap());
    assert_eq!(layer.handle().in_flight(), 0);
    nothing_in(&seen, &reports);
}
