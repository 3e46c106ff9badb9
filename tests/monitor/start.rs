//! A process that may not start threads for a while.

use std::time::Instant;

use heeler::{Interrupted, checkpoint, metrics, timebox};

use super::common::limits::{with_room_for, without_file_descriptors};
use super::common::log::Log;
use super::common::{PATIENCE, at_least, collect, in_process_of, ms, runtime, until};
use super::lateness;

/// A thread's stack.
const STACK: u64 = 2 << 20;

const MONITOR_FAILED: &str = "a thread of the monitor did not start";
const MONITOR_RUNS: &str = "the monitor's threads run now";
const REPORTER_FAILED: &str = "the reporter did not start";
const REPORTER_RUNS: &str = "the reporter runs now";

/// In a process of its own, whose threads have such stacks.
fn alone(test: &str, body: impl FnOnce()) {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.env("RUST_MIN_STACK", STACK.to_string());
    in_process_of(command, test, body);
}

/// Guards: without room for a thread's stack there is no monitor and no reporter, which is said; as soon as there is room, there
/// is one, and work that began before is watched. However much begins with the same limit, there is one try a second.
#[test]
fn a_failed_start_is_tried_until_it_runs() {
    alone("start::a_failed_start_is_tried_until_it_runs", || {
        let log = Log::start_with_threads();
        let first_try = Instant::now();
        let began_before = std::pin::pin!(timebox(ms(1), std::future::pending::<()>()));
        let mut began_before = tokio::task::unconstrained(began_before);
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        with_room_for(STACK / 2, || {
            let told: Result<(), Interrupted> = timebox::blocking(ms(1), || {
                std::thread::sleep(ms(50));
                checkpoint()
            });
            assert!(told.is_ok() && !metrics().monitor.running, "it started after all");
            assert!(Future::poll(std::pin::Pin::new(&mut began_before), &mut cx).is_pending());
        });
        // Whatever begins from now on has it tried again.
        until("the monitor runs", || {
            drop(timebox::blocking(ms(1), || Ok::<_, Interrupted>(())));
            metrics().monitor.running
        });
        assert!(first_try.elapsed() >= at_least(ms(1_000)), "{:?}", first_try.elapsed());
        assert!(lateness(3).iter().all(|late| *late < PATIENCE));
        until("the first timebox is told", || Future::poll(std::pin::Pin::new(&mut began_before), &mut cx).is_ready());
        until("the monitor has a heartbeat", || metrics().monitor.heartbeat_age < ms(2_000));
        until("that is logged", || {
            !log.lines_with(MONITOR_RUNS).is_empty() && !log.lines_with(REPORTER_RUNS).is_empty()
        });
        for words in [MONITOR_FAILED, MONITOR_RUNS, REPORTER_FAILED, REPORTER_RUNS] {
            assert_eq!(log.lines_with(words).len(), 1, "{words}: {}", log.text());
        }
    });
}

/// Guards: with room for the monitor but not for captures, timeboxes expire, and the monitor itself tries again until
/// captures run. It logs that on another thread, because logging runs other people's code.
#[test]
fn the_monitor_starts_what_is_missing() {
    alone("start::the_monitor_starts_what_is_missing", || {
        let log = Log::start_with_threads();
        // The reporter, and the monitor.
        with_room_for(STACK * 5 / 2, || {
            assert!(lateness(3).iter().all(|late| *late < PATIENCE));
            assert!(!metrics().monitor.running && log.lines_with(REPORTER_FAILED).is_empty(), "{}", log.text());
            assert_eq!(log.lines_with(MONITOR_FAILED).len(), 1, "{}", log.text());
        });
        until("every thread runs", || metrics().monitor.running);
        until("that is logged", || !log.lines_with(MONITOR_RUNS).is_empty());
        let said = log.lines_with(MONITOR_RUNS);
        assert!(said.len() == 1 && said[0].contains("heeler-capture"), "{said:?}");
        assert!(!log.text().contains("heeler-monitor"), "{}", log.text());
    });
}

/// Guards: a reporter that could not be started, for lack of file descriptors, is tried again until it runs. What was found
/// meanwhile is reported then.
#[test]
fn findings_wait_for_a_reporter_that_could_not_start() {
    alone("start::findings_wait_for_a_reporter_that_could_not_start", || {
        let log = Log::start_with_threads();
        let ((seen, reports), runtime) = (collect(), runtime(0));
        without_file_descriptors(|| {
            let watched = heeler::watch("waits", ms(20), std::future::pending::<()>()).reports(reports.clone());
            let is_found = async {
                while metrics().captures.taken == 0 {
                    tokio::time::sleep(ms(1)).await;
                }
            };
            let (watched, is_found) = (std::pin::pin!(watched), std::pin::pin!(is_found));
            let either = futures::future::select(watched, is_found);
            let found = runtime.block_on(async { tokio::time::timeout(PATIENCE, either).await });
            assert!(found.is_ok(), "nothing is found");
            assert!(metrics().monitor.running && seen.all().is_empty() && !reports.blocking_flush(PATIENCE));
            assert_eq!(log.lines_with(REPORTER_FAILED).len(), 1, "{}", log.text());
        });
        seen.wait("the report found meanwhile", |report| report.job.as_deref() == Some("waits"));
        assert_eq!((log.lines_with(REPORTER_FAILED).len(), log.lines_with(REPORTER_RUNS).len()), (1, 1));
        assert!(reports.blocking_flush(PATIENCE));
    });
}

/// Guards: a layer that is made, and work that begins, inside a runtime do not panic while no thread can be started.
#[test]
fn a_failed_start_inside_a_runtime_does_not_panic() {
    alone("start::a_failed_start_inside_a_runtime_does_not_panic", || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            with_room_for(STACK / 2, || {
                drop(heeler::WatchdogLayer::new(ms(100)));
                assert!(timebox::blocking(ms(1), || Ok::<_, Interrupted>(())).is_ok());
                assert!(!metrics().monitor.running, "it started after all");
            });
        });
    });
}
