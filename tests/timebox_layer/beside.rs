//! Beside other layers: a watchdog around or within, and another box.

use axum::Router;
use axum::routing::get;
use heeler::report::{Kind, Verdict};
use heeler::{Report, TimeboxLayer, WatchdogLayer};

use super::common::{FOREVER, PATIENCE, PORTABLE, beside_others, collect, ms, place, until};
use super::{LIMIT, Server, forever, interrupted, layer, reports_in};

async fn stuck() {
    forever().await;
}

fn router() -> Router {
    Router::new().route("/albums/{id}", get(stuck))
}

/// Guards: inside a watchdog, the timebox's report is about the request that the watchdog knows. The watchdog, whose time has
/// not come, reports nothing.
#[test]
fn an_outer_watchdog_leaves_the_report_to_the_timebox() {
    let _guard = beside_others();
    let (seen, reports, layer) = layer();
    let watchdog = WatchdogLayer::new(FOREVER).reports(reports.clone());
    let server = Server::start(router().layer(layer.label("pages")).layer(watchdog.clone()));
    assert_eq!(server.get("/albums/7").status, 503);
    let report = interrupted(&seen);
    let text = report.to_text();
    assert_eq!(report.request.as_ref().unwrap().uri, "/albums/7", "{text}");
    assert_eq!(place(&report), "forever", "{text}");
    assert!(report.notes.iter().any(|note| note.contains("pages")), "{text}");
    assert_eq!(reports_in(&seen, &reports), 1);
    until("the rows are free", || watchdog.handle().in_flight() == 0);
}

/// Guards: an outer watchdog with less time reports first that the request is late, and then the timebox ends it. Each makes
/// one report.
#[test]
fn an_outer_watchdog_with_less_time_reports_first() {
    let _guard = beside_others();
    let (seen, reports) = collect();
    let watchdog = WatchdogLayer::new(ms(150)).reports(reports.clone());
    let timebox = TimeboxLayer::new(ms(600)).reports(reports.clone());
    let server = Server::start(router().layer(timebox).layer(watchdog));
    assert_eq!(server.get("/albums/7").status, 503);
    let late = seen.wait("it is late", |report| report.verdict == Verdict::Waiting);
    assert_eq!((late.kind, &*place(&late)), (Kind::SlowRequest, "forever"));
    let stopped = interrupted(&seen);
    assert_eq!(stopped.request.unwrap().id, late.request.unwrap().id, "the same request");
    assert!(reports.blocking_flush(PATIENCE));
    assert_eq!(seen.all().iter().filter(|report| report.kind == Kind::Interrupted).count(), 1);
}

/// Guards: a watchdog inside a timebox has a row of its own. That its request was stopped is reported once, by the timebox.
#[test]
fn an_inner_watchdog_does_not_report_the_interruption() {
    let _guard = beside_others();
    let (seen, reports, layer) = layer();
    let watchdog = WatchdogLayer::new(LIMIT * 3 / 2).reports(reports.clone());
    let server = Server::start(router().layer(watchdog.clone()).layer(layer));
    assert_eq!(server.get("/albums/7").status, 503);
    let report = interrupted(&seen);
    assert_eq!(report.request.as_ref().unwrap().uri, "/albums/7", "{}", report.to_text());
    assert_eq!(reports_in(&seen, &reports), 1);
    until("the rows are free", || watchdog.handle().in_flight() == 0);
}

/// Guards: of two timeboxes the shorter counts, wherever it is, and reports once.
#[test]
fn the_shorter_of_two_timeboxes_counts() {
    let _guard = beside_others();
    for (inner, outer) in [(200, 60_000), (60_000, 200)] {
        let (seen, reports) = collect();
        let timebox = |millis| TimeboxLayer::new(ms(millis)).reports(reports.clone());
        let server = Server::start(
            router().layer(timebox(inner).status(inner_status())).layer(timebox(outer).status(outer_status())),
        );
        let expected = if inner < outer { inner_status() } else { outer_status() };
        assert_eq!(server.get("/albums/7").status, expected.as_u16());
        assert_eq!(interrupted(&seen).threshold, Some(ms(200)));
        assert_eq!(reports_in(&seen, &reports), 1);
    }
}

fn inner_status() -> http::StatusCode {
    http::StatusCode::GATEWAY_TIMEOUT
}

fn outer_status() -> http::StatusCode {
    http::StatusCode::REQUEST_TIMEOUT
}

/// Guards: a handler that holds its thread past the limit is reported with the thread's stack, once. When it returns, it is
/// stopped.
#[test]
fn a_blocking_handler_is_reported_with_its_thread() {
    let _guard = beside_others();
    #[inline(never)]
    fn blocks() {
        std::thread::sleep(ms(1_500));
    }
    let (seen, reports) = collect();
    let router = Router::new().route(
        "/",
        get(async || {
            tokio::time::sleep(ms(5)).await;
            blocks();
            forever().await;
        }),
    );
    let server = Server::start(router.layer(TimeboxLayer::new(ms(100)).reports(reports.clone())));
    assert_eq!(server.get("/").status, 503);
    let report = seen.wait("an interruption", |report| report.kind == Kind::Interrupted);
    if !PORTABLE {
        assert_eq!((report.verdict, &*place(&report)), (Verdict::Blocking, "blocks"), "{}", report.to_text());
    }
    assert_eq!(reports_in(&seen, &reports), 1);
}

/// The only report of a request that waits for a moment and then blocks its thread, in a box within the watchdog.
fn of_a_blocking_request(watchdog: WatchdogLayer, holds: fn()) -> Report {
    let (seen, reports) = collect();
    let router = Router::new().route(
        "/",
        get(async move || {
            tokio::time::sleep(ms(5)).await;
            holds();
        }),
    );
    let server = Server::start(router.layer(TimeboxLayer::new(FOREVER)).layer(watchdog.reports(reports)));
    assert_eq!(server.get("/").status, 200);
    seen.first()
}

/// Guards: the watchdog finds single long polls inside a timebox.
#[test]
fn a_long_poll_inside_a_timebox_is_reported() {
    if PORTABLE {
        return;
    }
    let _guard = beside_others();
    #[inline(never)]
    fn holds() {
        std::thread::sleep(ms(1_200));
    }
    let report = of_a_blocking_request(WatchdogLayer::new(2 * FOREVER).blocking_after(ms(200)), holds);
    assert_eq!((report.kind, report.verdict, &*place(&report)), (Kind::BlockingPoll, Verdict::Blocking, "holds"));
}

/// Guards: an outer watchdog finds the thread of a request that blocks inside a timebox.
#[test]
fn a_blocking_request_inside_a_timebox_is_found() {
    if PORTABLE {
        return;
    }
    let _guard = beside_others();
    #[inline(never)]
    fn stands() {
        std::thread::sleep(ms(1_500));
    }
    let report = of_a_blocking_request(WatchdogLayer::new(ms(300)), stands);
    assert_eq!((report.kind, report.verdict, &*place(&report)), (Kind::SlowRequest, Verdict::Blocking, "stands"));
}

/// Guards: a body is named by its request even if the row of the outer watchdog has ended with the response.
#[test]
fn a_body_keeps_its_requests_name() {
    let _guard = beside_others();
    let (seen, _reports, layer) = layer();
    let handler = async || {
        axum::body::Body::from_stream(futures::stream::once(async {
            forever().await;
            Ok::<_, &str>("never")
        }))
    };
    let router = Router::new().route("/export", get(handler));
    let server = Server::start(router.layer(layer.limit_bodies()).layer(WatchdogLayer::new(FOREVER)));
    assert!(server.get("/export").body.is_err());
    assert_eq!(interrupted(&seen).request.unwrap().uri, "/export");
}

/// Guards: work on another thread, which nobody can drop, is reported to the layer's reports even if its request is gone.
#[test]
fn blocking_work_that_outlives_its_request_is_reported() {
    if PORTABLE {
        return;
    }
    let _guard = beside_others();
    #[inline(never)]
    fn resizes() {
        std::thread::sleep(ms(3_000));
    }
    // Long enough that the thread has begun by then, also on a busy machine.
    for around in [false, true] {
        let (seen, reports) = collect();
        let router = Router::new().route("/", get(async || drop(heeler::spawn_blocking(resizes).await)));
        let mut router = router.layer(TimeboxLayer::new(ms(600)).reports(reports));
        if around {
            router = router.layer(WatchdogLayer::new(FOREVER));
        }
        let server = Server::start(router);
        assert_eq!(server.get("/").status, 503);
        let report = seen.wait("the thread", |report| report.verdict == Verdict::Blocking);
        let text = report.to_text();
        assert_eq!((report.kind, &*place(&report)), (Kind::Interrupted, "resizes"), "{text}");
        assert_eq!(report.job.as_deref(), Some("spawn_blocking in a timebox"), "{text}");
    }
}
