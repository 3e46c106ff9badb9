//! What a handle and the layer's rules change.

use heeler::WatchdogLayer;
use tower::{Layer as _, ServiceExt as _};

use super::common::{FOREVER, beside_others, collect, ms, until};
use super::{Driven, get, service_of};

async fn stuck() {
    tokio::time::sleep(FOREVER).await;
}

#[test]
fn a_disabled_layer_watches_nothing() {
    let _guard = beside_others();
    let (seen, reports) = collect();
    let layer = WatchdogLayer::new(ms(100)).reports(reports);
    let handle = layer.handle();
    assert!(handle.is_enabled());
    let driven = Driven::new(1);
    handle.set_enabled(false);
    assert!(!handle.is_enabled());
    let (called, is_called) = std::sync::mpsc::channel();
    let off = layer.layer(service_of(async move {
        called.send(heeler::current()).unwrap();
        stuck().await;
    }));
    driven.spawn(off.oneshot(get("/off")));
    assert_eq!(is_called.recv().unwrap(), None);
    handle.set_enabled(true);
    driven.spawn(layer.layer(service_of(stuck())).oneshot(get("/on")));
    // The later request was found, so the earlier one would have been, too.
    seen.wait("a later capture", |report| report.update == 1);
    assert!(seen.all().iter().all(|report| report.request.as_ref().unwrap().uri == "/on"));
    assert_eq!(handle.in_flight(), 1);
}

/// Guards: a new threshold holds for what comes from now on, even if it is much shorter than any before.
#[test]
fn a_new_threshold_holds_for_later_requests() {
    let _guard = beside_others();
    let (seen, reports) = collect();
    let layer = WatchdogLayer::new(FOREVER).reports(reports);
    let handle = layer.handle();
    assert_eq!(handle.threshold(), FOREVER);
    let driven = Driven::new(1);
    driven.spawn(layer.layer(service_of(stuck())).oneshot(get("/before")));
    until("it is in flight", || handle.in_flight() == 1);
    handle.set_threshold(ms(100));
    assert_eq!(handle.threshold(), ms(100));
    driven.spawn(layer.layer(service_of(stuck())).oneshot(get("/after")));
    let report = seen.wait("a later capture", |report| report.update == 1);
    assert_eq!(report.threshold, Some(ms(100)));
    assert!(seen.all().iter().all(|report| report.request.as_ref().unwrap().uri == "/after"));
}

/// Guards: a request's own threshold may be shorter or longer than the layer's. The other requests keep the layer's.
#[test]
fn a_request_can_have_its_own_threshold() {
    let _guard = beside_others();
    let (seen, reports) = collect();
    let layer = WatchdogLayer::new(ms(200)).reports(reports).threshold_for(|parts| match parts.uri.path() {
        "/quick" => Some(ms(100)),
        "/export" => Some(FOREVER),
        _ => None,
    });
    let driven = Driven::new(1);
    for path in ["/quick", "/export", "/other"] {
        driven.spawn(layer.layer(service_of(stuck())).oneshot(get(path)));
    }
    let of = |path: &'static str| {
        seen.wait(path, |report| report.update == 0 && report.request.as_ref().unwrap().uri == path)
    };
    assert_eq!(of("/quick").threshold, Some(ms(100)));
    assert_eq!(of("/other").threshold, Some(ms(200)));
    seen.wait("a later capture", |report| report.update == 1 && report.request.as_ref().unwrap().uri == "/other");
    assert!(seen.all().iter().all(|report| report.request.as_ref().unwrap().uri != "/export"));
    assert_eq!(layer.handle().in_flight(), 3);
}

/// Guards: an ignored request has no row. Headers and extensions of the others pass through the rules untouched.
#[test]
fn ignored_requests_are_not_watched() {
    let _guard = beside_others();
    let (seen, reports) = collect();
    let layer = WatchdogLayer::new(ms(100)).reports(reports).ignore(|parts| parts.uri.path() == "/events");
    let driven = Driven::new(1);
    driven.spawn(layer.layer(service_of(stuck())).oneshot(get("/events")));
    let service = layer.layer(tower::service_fn(|request: http::Request<()>| async move {
        assert_eq!(request.headers()["host"], "photos.example");
        assert_eq!(request.extensions().get::<u32>(), Some(&7));
        assert!(heeler::current().is_some());
        stuck().await;
        Ok::<_, std::convert::Infallible>(http::Response::new(String::new()))
    }));
    let mut request = get("/other");
    request.extensions_mut().insert(7_u32);
    driven.spawn(service.oneshot(request));
    seen.wait("a later capture", |report| report.update == 1);
    assert!(seen.all().iter().all(|report| report.request.as_ref().unwrap().uri == "/other"));
    assert_eq!(layer.handle().in_flight(), 1);
}

/// Guards: a panic in a rule is the request's, and leaves no row behind.
#[test]
fn a_panicking_rule_leaves_no_row_behind() {
    let layer = WatchdogLayer::new(FOREVER).ignore(|_| panic!("on purpose"));
    let mut service = layer.layer(service_of(stuck()));
    let call = std::panic::AssertUnwindSafe(|| drop(tower::Service::call(&mut service, get("/"))));
    assert!(std::panic::catch_unwind(call).is_err());
    assert_eq!(layer.handle().in_flight(), 0);
}

/// Guards: layers, services and futures can be used where any others can.
#[test]
fn types_are_send_sync_and_clone() {
    fn shared<T: Send + Sync + Clone + 'static>() {}
    fn sent<T: Send + 'static>(_: &T) {}
    shared::<WatchdogLayer>();
    shared::<heeler::watchdog::WatchdogService<tower::util::BoxCloneSyncService<(), (), ()>>>();
    shared::<heeler::WatchdogHandle>();
    shared::<heeler::Reports>();
    shared::<heeler::Error>();
    sent(&heeler::watch("job", FOREVER, std::future::pending::<()>()));
    sent(&heeler::watch_child(std::future::pending::<()>()));
    sent(&WatchdogLayer::default().layer(service_of(std::future::pending())).oneshot(get("/")));
}
