//! Bad settings, bad requests, bad luck: a clear error or a counted drop each, and the service never harmed.
#![cfg(feature = "watchdog")]

#[path = "../common/mod.rs"]
mod common;

mod flood;
mod requests;
mod settings;
#[cfg(target_os = "linux")]
mod signals;
mod sinks;

use std::convert::Infallible;
use std::time::Duration;

use heeler::{Reports, WatchdogLayer};
use http::{Request, Response};
use tower::{Layer as _, ServiceExt as _};

/// Sends a request that takes so long, on a runtime of its own, and returns the answer.
fn ask(layer: &WatchdogLayer, request: Request<()>, takes: Duration) -> String {
    let service = layer.layer(tower::service_fn(move |_: Request<()>| async move {
        tokio::time::sleep(takes).await;
        Ok::<_, Infallible>(Response::new("answered".to_owned()))
    }));
    let answer = common::runtime(0).block_on(async {
        use http_body_util::BodyExt as _;
        service.oneshot(request).await.unwrap().into_body().collect().await.unwrap()
    });
    String::from_utf8(answer.to_bytes().to_vec()).unwrap()
}

/// Sends such requests until one has been reported: on a busy machine, one may be over before anybody looks.
fn ask_until_reported(layer: &WatchdogLayer, reports: &Reports, request: impl Fn() -> Request<()>) {
    let before = reports.stats().made;
    common::until("it is reported", || {
        assert_eq!(ask(layer, request(), common::ms(50)), "answered");
        // A sink that fails holds it for as long as it may.
        let _ = reports.blocking_flush(common::ms(500));
        reports.stats().made > before
    });
}

fn get(uri: &str) -> Request<()> {
    Request::get(uri).body(()).unwrap()
}
