//! `HEELER_DISABLE=1`, which is read once: the test runs itself in a process that has it.
#![cfg(all(feature = "watchdog", feature = "timebox", feature = "profile"))]

use std::convert::Infallible;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use heeler::{DeadlineLayer, ProfileLayer, TimeboxExt as _, TimeboxLayer, WatchdogLayer, timebox};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::common::{collect, in_process_of, ms, runtime};

mod common;

/// Guards: with the switch set, requests, jobs and timeboxes run unchanged, nothing is reported or profiled, and heeler has
/// neither a thread nor a signal handler.
#[test]
fn the_switch_disables_everything() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env("HEELER_DISABLE", "1");
    in_process_of(command, "the_switch_disables_everything", || {
        runtime(0).block_on(off());
        assert!(!timebox::is_enabled());
        timebox::set_enabled(true);
        assert!(!timebox::is_enabled(), "the environment takes precedence");
        assert_eq!(heeler::metrics().watched.total(), 0);
        assert_eq!(heeler::metrics().unwatched, 0, "nothing was lost, because nothing was watched");
        #[cfg(target_os = "linux")]
        {
            assert_eq!(threads_of_heeler(), Vec::<String>::new());
            assert_eq!(real_time_handlers(), 0);
        }
    });
}

async fn off() {
    let (collected, reports) = collect();
    let watchdog = WatchdogLayer::new(ms(1)).reports(reports.clone());
    let handle = watchdog.handle();
    handle.set_enabled(true);
    assert!(!handle.is_enabled());
    let slow = service_fn(|request: Request<Full<Bytes>>| async move {
        tokio::time::sleep(ms(50)).await;
        let seen = format!("{} {:?}", request.uri(), request.headers().get("x-geordi"));
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(seen)))
    });
    let service = TimeboxLayer::new(ms(1)).reports(reports.clone()).layer(slow);
    let service = watchdog.layer(ProfileLayer::new(|_: &http::request::Parts| true).layer(service));
    let request = Request::get("/photos?__geordi__=svg").header("x-geordi", "json").body(Full::default()).unwrap();
    let response = service.oneshot(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, r#"/photos?__geordi__=svg Some("json")"#, "as without heeler");

    let echo = service_fn(|request: Request<()>| async move { Ok::<_, Infallible>(request.headers().clone()) });
    let call = Request::post("/").header("content-type", "application/grpc").body(()).unwrap();
    let sent = DeadlineLayer::new(ms(1)).layer(echo).oneshot(call).await.unwrap();
    assert!(!sent.contains_key("grpc-timeout"));

    let job = heeler::watch("job", ms(1), tokio::time::sleep(ms(50))).reports(reports.clone());
    assert!(job.timebox(ms(1)).await.is_ok());
    assert!(heeler::spawn(async { 7 }).await.is_ok_and(|value| value == 7));
    let checked = timebox::blocking(ms(1), || {
        std::thread::sleep(ms(20));
        heeler::checkpoint()
    });
    assert!(checked.is_ok());
    assert!(heeler::use_signal(40).is_ok(), "no signal is needed");
    assert!(reports.blocking_flush(Duration::from_secs(5)));
    assert!(collected.all().is_empty());
}

#[cfg(target_os = "linux")]
fn threads_of_heeler() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.map(|name| name.trim().to_owned()).filter(|name| name.starts_with("heeler")).collect()
}

/// Handlers that are installed on real-time signals, as a bit each. The C library's own have the first two.
#[cfg(target_os = "linux")]
fn real_time_handlers() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    u64::from_str_radix(caught.trim(), 16).unwrap() & !0 << 33
}
