//! One warning where a box leaves a watchdog nothing to see.

use std::convert::Infallible;
use std::time::Duration;

use heeler::{TimeboxLayer, WatchdogLayer};
use http::{Request, Response};
use tower::{Layer as _, ServiceExt as _};

use super::common::in_own_process;
use super::common::log::Log;

async fn fine(_: Request<()>) -> Result<Response<String>, Infallible> {
    Ok(Response::new(String::new()))
}

/// What is logged of two requests through two new layers, the watchdog outside or inside.
fn logged(log: &Log, outside: bool, timebox: TimeboxLayer, watchdog: WatchdogLayer) -> String {
    log.clear();
    for _ in 0..2 {
        let request = Request::new(());
        if outside {
            let service = watchdog.layer(timebox.layer(tower::service_fn(fine)));
            futures::executor::block_on(service.oneshot(request)).unwrap();
        } else {
            let service = timebox.layer(watchdog.layer(tower::service_fn(fine)));
            futures::executor::block_on(service.oneshot(request)).unwrap();
        }
    }
    let lines: Vec<String> =
        log.text().lines().filter(|line| line.contains("never sees a slow request")).map(str::to_owned).collect();
    lines.join("\n")
}

fn timebox(seconds: u64) -> TimeboxLayer {
    TimeboxLayer::new(Duration::from_secs(seconds))
}

fn watchdog(seconds: u64) -> WatchdogLayer {
    WatchdogLayer::new(Duration::from_secs(seconds))
}

/// Guards: the warning comes with the first request, once. It does not come if the watchdog has less time, nor if a rule may
/// give it that.
#[test]
fn warns_of_a_threshold_that_is_never_reached() {
    in_own_process("layer_order::warns_of_a_threshold_that_is_never_reached", || {
        let log = Log::start();
        for outside in [true, false] {
            for limit in [5, 25] {
                let said = logged(&log, outside, timebox(limit), watchdog(25));
                let times = format!("threshold_ms=25000 limit_ms={limit}000");
                assert!(said.lines().count() == 1 && said.contains("WARN") && said.contains(&times), "{said}");
            }
            assert_eq!(logged(&log, outside, timebox(25), watchdog(5)), "");
            assert_eq!(logged(&log, outside, timebox(5), watchdog(25).threshold_for(|_| None)), "");
            assert_eq!(logged(&log, outside, timebox(5).limit_for(|_| None), watchdog(25)), "");
        }
    });
}
