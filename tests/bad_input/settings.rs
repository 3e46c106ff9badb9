//! Thresholds of nothing and of for ever, and directories that go away.

use std::time::Duration;

use heeler::{Reports, WatchdogLayer};

use super::common::{PATIENCE, at_most, collect, ms};
use super::{ask, ask_until_reported, get};

/// Guards: a threshold of zero counts as the shortest possible, everywhere that one can be set.
#[test]
fn a_threshold_of_zero_is_a_millisecond() {
    let (seen, reports) = collect();
    let layer = WatchdogLayer::new(Duration::ZERO).reports(reports.clone());
    assert_eq!(layer.handle().threshold(), ms(1));
    assert_eq!(ask(&layer, get("/new"), ms(300)), "answered");
    let layer = WatchdogLayer::new(Duration::MAX).threshold_for(|_| Some(Duration::ZERO)).reports(reports.clone());
    assert_eq!(ask(&layer, get("/for"), ms(300)), "answered");
    let layer = WatchdogLayer::new(Duration::MAX).blocking_after(Duration::ZERO).reports(reports.clone());
    layer.handle().set_threshold(Duration::ZERO);
    assert_eq!(ask(&layer, get("/set"), ms(300)), "answered");
    let job = async { heeler::watch("job", Duration::ZERO, tokio::time::sleep(ms(300))).reports(reports).await };
    super::common::runtime(0).block_on(job);
    for uri in ["/new", "/for", "/set"] {
        let is = |report: &heeler::Report| report.request.as_ref().is_some_and(|request| request.uri == uri);
        let report = seen.wait(uri, is);
        assert_eq!(report.threshold, Some(ms(1)), "{uri}");
    }
    assert_eq!(seen.wait("the job", |report| report.job.is_some()).threshold, Some(ms(1)));
}

/// Guards: forever, and anything close to it, neither reports nor overflows anywhere. Other work is watched as before.
#[test]
fn a_limit_of_forever_never_reports() {
    let (seen, reports) = collect();
    let nanos = Duration::from_nanos;
    let long =
        [Duration::MAX, Duration::from_secs(u64::MAX), nanos(u64::MAX), nanos(u64::MAX - 1), nanos(u64::MAX / 2)];
    for threshold in long {
        let layer = WatchdogLayer::new(threshold).blocking_after(threshold).reports(reports.clone());
        assert_eq!(ask(&layer, get("/long"), ms(30)), "answered");
        layer.handle().set_threshold(threshold);
        let layer = layer.threshold_for(move |_| Some(threshold));
        assert_eq!(ask(&layer, get("/long"), ms(30)), "answered");
        let reports = reports.clone();
        let job = async { heeler::watch("job", threshold, tokio::time::sleep(ms(30))).reports(reports).await };
        super::common::runtime(0).block_on(job);
    }
    assert!(reports.blocking_flush(PATIENCE));
    assert!(seen.all().is_empty());
    assert_eq!(ask(&WatchdogLayer::new(ms(20)).reports(reports), get("/short"), ms(200)), "answered");
    assert_eq!(seen.first().request.unwrap().uri, "/short");
}

/// Guards: fractions that are not between zero and one.
#[test]
fn odd_fractions_of_the_threshold_are_accepted() {
    for fraction in [f64::NAN, -1.0, f64::INFINITY, f64::MAX, f64::MIN_POSITIVE] {
        let (seen, reports) = collect();
        let layer =
            WatchdogLayer::new(Duration::from_secs(60)).abandoned_at_fraction(fraction).reports(reports.clone());
        let began = std::time::Instant::now();
        super::common::runtime(0).block_on(async {
            use tower::{Layer as _, ServiceExt as _};
            let service = layer.layer(tower::service_fn(|_: http::Request<()>| async {
                std::future::pending::<Result<http::Response<String>, std::convert::Infallible>>().await
            }));
            assert!(tokio::time::timeout(ms(5), service.oneshot(get("/"))).await.is_err());
        });
        let took = at_most(began.elapsed());
        assert_eq!(layer.handle().in_flight(), 0);
        let never = fraction > 1.0;
        if never {
            assert!(reports.blocking_flush(PATIENCE));
            assert!(seen.all().is_empty(), "{fraction}");
        } else {
            assert!(seen.first().elapsed <= took, "{fraction}");
        }
    }
}

/// Guards: a directory that becomes unusable while the service runs costs reports, which are counted, and nothing else. Once
/// it is usable again, reports arrive again.
#[test]
fn an_unusable_directory_only_costs_reports() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("slow");
    let reports = Reports::builder().without_log().directory(&path).repeat_after(Duration::ZERO).build().unwrap();
    let layer = WatchdogLayer::new(ms(5)).reports(reports.clone());
    std::fs::remove_dir(&path).unwrap();
    std::fs::write(&path, "a file now").unwrap();
    ask_until_reported(&layer, &reports, || get("/"));
    assert!(reports.stats().failed_deliveries > 0);
    std::fs::remove_file(&path).unwrap();
    assert!(reports.blocking_flush(super::common::PATIENCE), "the reports that failed before are written now");
    let stats = reports.stats();
    assert_eq!((stats.delivered, stats.queued), (stats.made, 0));
    assert!(std::fs::read_dir(&path).unwrap().count() >= 3, "a report's files");
}

/// Guards: a program that makes a layer for each request is told so, once, and its requests are watched all the same.
#[test]
fn a_layer_per_request_is_logged_once() {
    super::common::in_own_process("settings::a_layer_per_request_is_logged_once", || {
        let log = super::common::log::Log::start();
        let (seen, reports) = collect();
        let layer = || WatchdogLayer::new(ms(20)).reports(reports.clone());
        for _ in 0..2_500 {
            // What it is around does not matter.
            let _ = tower::Layer::layer(&layer(), ());
        }
        assert_eq!(log.lines_with("make a layer once").len(), 1, "{}", log.text());
        assert_eq!(ask(&layer(), get("/watched"), ms(200)), "answered");
        assert_eq!(seen.first().request.unwrap().uri, "/watched");
    });
}
