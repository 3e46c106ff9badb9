//! Blocking: the poll does not return, and the report shows its thread.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use heeler::report::{Kind, StackKind, Verdict};
use heeler::{Report, WatchdogLayer};
use tower::{Layer as _, ServiceExt as _};

use super::common::{FOREVER, PORTABLE, alone, beside_others, collect, goes_through, line_of, ms, place, short};
use super::{Driven, THRESHOLD, get, service_of};

const SOURCE: &str = include_str!("blocking.rs");

/// The first report of a request whose poll blocks until `release` is called.
fn caught(workers: usize, block: impl FnOnce() + Send + 'static, release: impl FnOnce()) -> Report {
    let (seen, reports) = collect();
    let layer = WatchdogLayer::new(THRESHOLD).without_blocking_reports().reports(reports);
    let driven = Driven::new(workers);
    let answer = driven.spawn(layer.layer(service_of(async move { block() })).oneshot(get("/")));
    let report = seen.first();
    release();
    let answer = futures::executor::block_on(answer).unwrap().unwrap();
    assert_eq!(answer.into_body_string(), "done");
    report
}

trait IntoBodyString {
    fn into_body_string(self) -> String;
}

impl IntoBodyString for http::Response<heeler::watchdog::ResponseBody<String>> {
    fn into_body_string(self) -> String {
        use http_body_util::BodyExt as _;
        let bytes = futures::executor::block_on(self.into_body().collect()).unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }
}

#[track_caller]
fn assert_blocks(report: &Report, function: &str) {
    let text = report.to_text();
    assert_eq!((report.verdict, report.kind), (Verdict::Blocking, Kind::SlowRequest), "{text}");
    if PORTABLE {
        assert!(report.notes.iter().any(|note| note.contains("no thread stacks")), "{text}");
        return;
    }
    assert_eq!(place(report), function, "{text}");
    let current: Vec<_> = report.stacks.iter().filter(|stack| stack.current).collect();
    assert_eq!(current.len(), 1, "{text}");
    assert_eq!((current[0].kind, current[0].truncated), (StackKind::Thread, false), "{text}");
    assert!(report.thread.as_ref().is_some_and(|thread| thread.id > 0 && thread.name.starts_with("tokio")), "{text}");
}

fn reads_from_pipe(mut pipe: std::io::PipeReader) {
    let mut byte = [0];
    pipe.read_exact(&mut byte).unwrap(); // stuck: read
}

/// Guards: the report has the system call's name and the line, and the call goes on afterwards.
#[test]
fn names_the_blocking_system_call() {
    let _guard = beside_others();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let release = move || std::io::Write::write_all(&mut writer, b"x").unwrap();
    let report = caught(1, move || reads_from_pipe(reader), release);
    assert_blocks(&report, "reads_from_pipe");
    if PORTABLE {
        return;
    }
    let thread = report.thread.as_ref().unwrap();
    assert_eq!((thread.syscall.as_deref(), thread.on_cpu), (Some("read"), Some(false)));
    assert_eq!(report.location.as_ref().unwrap().line, Some(line_of(SOURCE, "stuck: read")));
}

fn sleeps_until(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(3 * THRESHOLD);
    }
}

#[test]
fn names_a_sleep_that_blocks() {
    let _guard = beside_others();
    let stop = Arc::new(AtomicBool::new(false));
    let theirs = stop.clone();
    let report = caught(1, move || sleeps_until(&theirs), || stop.store(true, Ordering::Relaxed));
    assert_blocks(&report, "sleeps_until");
    if !PORTABLE {
        assert_eq!(report.thread.unwrap().syscall.as_deref(), Some("clock_nanosleep"));
    }
}

fn waits_for_thread_lock(lock: &std::sync::Mutex<()>) {
    drop(lock.lock());
}

#[test]
fn names_a_thread_lock_that_blocks() {
    let _guard = beside_others();
    let lock = Arc::new(std::sync::Mutex::new(()));
    let (theirs, ours) = (lock.clone(), lock.lock().unwrap());
    let report = caught(1, move || waits_for_thread_lock(&theirs), || drop(ours));
    assert_blocks(&report, "waits_for_thread_lock");
    if !PORTABLE {
        assert_eq!(report.thread.unwrap().syscall.as_deref(), Some("futex"));
    }
}

fn computes(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        std::hint::black_box(7_u64.wrapping_mul(11));
    }
}

#[test]
fn reports_a_thread_that_computes() {
    let _guard = alone();
    let stop = Arc::new(AtomicBool::new(false));
    let theirs = stop.clone();
    let report = caught(1, move || computes(&theirs), || stop.store(true, Ordering::Relaxed));
    assert_blocks(&report, "computes");
    if !PORTABLE {
        let thread = report.thread.unwrap();
        assert_eq!((thread.on_cpu, thread.state.as_deref()), (Some(true), Some("running")));
    }
}

/// Guards: on a current-thread runtime, the thread that drives it is shown.
#[test]
fn shows_the_thread_of_a_current_thread_runtime() {
    let _guard = beside_others();
    let (seen, reports) = collect();
    let (reader, writer) = std::io::pipe().unwrap();
    let thread = std::thread::Builder::new().name("tokio-alone".into()).spawn(move || {
        let job = async move { reads_from_pipe(reader) };
        super::common::runtime(0).block_on(heeler::watch("job", THRESHOLD, job).reports(reports));
    });
    let report = seen.first();
    std::io::Write::write_all(&mut &writer, b"x").unwrap();
    thread.unwrap().join().unwrap();
    assert_eq!(report.verdict, Verdict::Blocking);
    if !PORTABLE {
        assert_eq!(report.thread.as_ref().unwrap().name, "tokio-alone");
        assert_eq!(place(&report), "reads_from_pipe", "{}", report.to_text());
    }
}

/// Guards: a poll that holds its thread is reported although its request is far from slow, once per poll, with the deep
/// frames of what it called.
#[test]
fn a_long_poll_is_reported_before_the_threshold() {
    let _guard = beside_others();
    let (seen, reports) = collect();
    let layer = WatchdogLayer::new(FOREVER).blocking_after(ms(100)).reports(reports.clone());
    let driven = Driven::new(1);
    let (reader, mut writer) = std::io::pipe().unwrap();
    let service = layer.layer(service_of(async move { reads_from_pipe(reader) }));
    let answer = driven.spawn(service.oneshot(get("/fast")));
    if PORTABLE {
        std::thread::sleep(ms(300));
        std::io::Write::write_all(&mut writer, b"x").unwrap();
        assert!(futures::executor::block_on(answer).unwrap().is_ok());
        return;
    }
    let report = seen.first();
    // Four times as long again: it is the same poll, and has been reported.
    std::thread::sleep(ms(400));
    std::io::Write::write_all(&mut writer, b"x").unwrap();
    assert!(futures::executor::block_on(answer).unwrap().is_ok());
    assert!(reports.blocking_flush(super::common::PATIENCE));
    assert_eq!(seen.all().len(), 1);
    assert_eq!((report.kind, report.verdict, report.threshold), (Kind::BlockingPoll, Verdict::Blocking, None));
    assert_eq!(place(&report), "reads_from_pipe", "{}", report.to_text());
    assert!(report.longest_poll >= ms(99) && report.elapsed < FOREVER);
    assert!(goes_through(&report, StackKind::Thread, "read_exact"), "{}", report.to_text());
    let leaf = short(report.stacks[0].frames[0].function.as_deref());
    assert!(leaf.contains("read"), "{leaf}");
}

/// Guards: a thread of `spawn_blocking` may block for any time.
#[test]
fn blocking_threads_may_block() {
    let _guard = beside_others();
    let (seen, reports) = collect();
    let layer = WatchdogLayer::new(FOREVER).blocking_after(ms(50)).reports(reports.clone());
    let driven = Driven::new(1);
    let service = layer.layer(service_of(async {
        heeler::spawn_blocking(|| std::thread::sleep(ms(300))).await.unwrap();
    }));
    assert!(futures::executor::block_on(driven.spawn(service.oneshot(get("/")))).unwrap().is_ok());
    super::nothing_in(&seen, &reports);
}
