//! One waiting, two blocking, one starved and two yielding requests, and a job that blocks the main thread: checks what their reports show.
//!
//! The argument says what the build has kept of names: `functions` (inlined ones too, with files and lines), `lines` (files and
//! lines), `symbols` (functions that are not inlined), `addresses` (nothing). With `without-a-warning` behind it, heeler's line at
//! the start must not be one.

mod log;

use std::convert::Infallible;
use std::future::Future;
use std::io::{ErrorKind, Read as _};
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use heeler::report::{Frame, Sink, StackKind, Verdict};
use heeler::{Report, Reports, WatchdogLayer};
use http::{Request, Response};
use tower_layer::Layer as _;
use tower_service::Service;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PATIENCE: Duration = Duration::from_secs(60);
const THRESHOLD: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    Functions,
    Lines,
    Symbols,
    Addresses,
}

struct Collected(Mutex<Sender<Report>>);

impl Sink for Collected {
    fn name(&self) -> &str {
        "collected"
    }

    fn deliver(&self, report: &Report) -> Result<(), heeler::SinkError> {
        let _ = self.0.lock().unwrap().send(report.clone());
        Ok(())
    }
}

/// A service that answers each request with what a function makes of it.
#[derive(Clone)]
struct Answers<F>(F);

impl<F, A> Service<Request<()>> for Answers<F>
where
    F: Fn() -> A,
    A: Future<Output = ()> + Send + 'static,
{
    type Response = Response<String>;
    type Error = Infallible;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Response<String>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        let answer = (self.0)();
        Box::pin(async move {
            answer.await;
            Ok(Response::new(String::new()))
        })
    }
}

async fn waits(released: tokio::sync::oneshot::Receiver<()>) {
    let _ = released.await;
}

/// Sleeps in a call that a signal ends early. Whether none has.
#[inline(never)]
fn sleeps() -> bool {
    let (mut socket, _other) = UnixStream::pair().unwrap();
    socket.set_read_timeout(Some(THRESHOLD * 10)).unwrap();
    let error = socket.read(&mut [0]).unwrap_err();
    std::hint::black_box(&error);
    error.kind() == ErrorKind::WouldBlock
}

/// Computes until it is told to stop.
#[inline(never)]
fn computes(stop: &AtomicBool) {
    let began = Instant::now();
    let mut sum = 0_u64;
    while !stop.load(Ordering::Relaxed) && began.elapsed() < PATIENCE {
        sum = (0..10_000).fold(std::hint::black_box(sum), |sum, number| std::hint::black_box(sum ^ number));
    }
    std::hint::black_box(sum);
}

async fn is_starved() {
    tokio::time::sleep(THRESHOLD / 2).await;
}

async fn gives_way(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        tokio::task::yield_now().await;
    }
}

/// Never waits, so tokio makes it give way now and then.
async fn drains_budget(stop: &AtomicBool) {
    let permits = tokio::sync::Semaphore::new(1);
    while !stop.load(Ordering::Relaxed) {
        drop(permits.acquire().await);
    }
}

struct Checks {
    names: Names,
    reports: Receiver<Report>,
}

impl Checks {
    /// The next report with that verdict.
    fn next(&self, verdict: Verdict, is: impl Fn(&Report) -> bool) -> Report {
        let mut seen = Vec::new();
        loop {
            match self.reports.recv_timeout(PATIENCE) {
                Ok(report) if report.verdict == verdict && is(&report) => return report,
                Ok(report) => seen.push(report.to_text()),
                Err(_) => panic!("no report with the verdict {verdict:?}, only:\n{}", seen.join("\n\n")),
            }
        }
    }

    /// The report of work that gives way again and again, and that nothing else is said of it: caught between two polls.
    fn of_yielding(&self) -> Report {
        let about = |report: &Report| {
            let of_others = matches!(report.verdict, Verdict::Blocking | Verdict::Starved);
            !of_others && report.polls > 100
        };
        loop {
            let report = self.reports.recv_timeout(PATIENCE).expect("a report of work that gives way");
            if about(&report) {
                assert_eq!(report.verdict, Verdict::Yielding, "{}", report.to_text());
                return report;
            }
        }
    }

    /// What every report has to show, and that one of its stacks goes through the function. `is_inlined`: it may be.
    fn check(&self, what: &str, report: &Report, kind: StackKind, function: &str, is_inlined: bool) {
        let text = report.to_text();
        let stacks = || report.stacks.iter().filter(|stack| stack.kind == kind && stack.current);
        let frames = || stacks().flat_map(|stack| &stack.frames);
        assert!(stacks().count() > 0 && stacks().all(|stack| !stack.truncated), "{what}: {text}");
        assert!(!report.notes.iter().any(|note| note.contains("stack of its own")), "{what}: {text}");
        let executable = std::env::current_exe().unwrap();
        let executable = executable.file_name().unwrap().to_str().unwrap();
        let of_executable = |frame: &&Frame| frame.module.as_deref() == Some(executable);
        assert!(frames().filter(of_executable).count() >= 3, "{what}: {text}");
        assert!(report.process.build_id.is_some(), "{what}: {text}");
        for frame in frames().filter(of_executable) {
            assert_eq!(frame.build_id, report.process.build_id, "{what}: {text}");
            assert!(frame.address.starts_with("0x"), "{what}: {text}");
        }
        for frame in frames().filter(|frame| frame.own) {
            let of_this = |name: &str| name.contains("builds::");
            let is_here = frame.file.as_deref().map(|file| file.ends_with("program.rs"));
            let named = frame.function.as_deref().is_some_and(of_this);
            assert!(is_here.unwrap_or(named), "{what}: {frame:?} is not the application's own: {text}");
        }
        let at = report.location.as_ref();
        let (named, file, line) =
            (at.and_then(|at| at.function.as_deref()), at.and_then(|at| at.file.as_deref()), at.and_then(|at| at.line));
        let path = format!("builds::{function}");
        match self.names {
            Names::Functions => assert_eq!(named, Some(&*path), "{what}: {text}"),
            Names::Symbols if !is_inlined => assert_eq!(named, Some(&*path), "{what}: {text}"),
            _ => {}
        }
        match self.names {
            Names::Functions | Names::Lines => {
                assert!(file.is_some_and(|file| file.ends_with("program.rs")) && line.is_some(), "{what}: {text}");
            }
            // Those of the standard library have files in any build that is not stripped.
            Names::Symbols => assert!(frames().all(|frame| !frame.own || frame.file.is_none()), "{what}: {text}"),
            Names::Addresses => {
                let is_bare = |frame: &Frame| frame.function.is_none() && frame.file.is_none();
                assert!(frames().filter(of_executable).all(is_bare), "{what}: {text}");
            }
        }
        let place = at.map_or("addresses alone".to_owned(), ToString::to_string);
        println!("  {what}: {:?}, {} frames, {place}", report.verdict, frames().count());
    }
}

fn main() {
    let names = match std::env::args().nth(1).as_deref() {
        Some("functions") => Names::Functions,
        Some("lines") => Names::Lines,
        Some("symbols") => Names::Symbols,
        Some("addresses") => Names::Addresses,
        other => panic!("unknown kind of names in this build: {other:?}"),
    };
    let log = log::collect();
    let (sender, reports) = channel();
    let builder = Reports::builder().without_log().repeat_after(Duration::ZERO).without_endings();
    let sink = builder.sink(Collected(Mutex::new(sender))).build().unwrap();
    let layer = WatchdogLayer::new(THRESHOLD).reports(sink.clone());
    let checks = Checks { names, reports };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();

    let (release, released) = tokio::sync::oneshot::channel();
    let released = Mutex::new(Some(released));
    let answer = move || waits(released.lock().unwrap().take().unwrap());
    runtime.spawn(layer.layer(Answers(answer)).call(Request::new(())));
    let report = checks.next(Verdict::Waiting, |_| true);
    checks.check("waiting", &report, StackKind::Await, "waits", true);
    drop(release);

    let (tell, told) = channel();
    let answer = move || {
        let tell = tell.clone();
        async move { tell.send(sleeps()).unwrap() }
    };
    runtime.spawn(layer.layer(Answers(answer)).call(Request::new(())));
    let report = checks.next(Verdict::Blocking, |_| true);
    checks.check("blocking, asleep", &report, StackKind::Thread, "sleeps", false);
    assert!(told.recv().unwrap(), "a signal woke a sleeping thread");

    static STOP: AtomicBool = AtomicBool::new(false);
    runtime.spawn(layer.layer(Answers(is_starved)).call(Request::new(())));
    runtime.spawn(layer.layer(Answers(|| async { computes(&STOP) })).call(Request::new(())));
    // The two come in either order.
    let (mut blocking, mut starved) = (None, None);
    while blocking.is_none() || starved.is_none() {
        let report = checks
            .reports
            .recv_timeout(PATIENCE)
            .expect("a report about the computing work, and one about the work that waits for it");
        let has = |kind| report.stacks.iter().any(|stack| stack.kind == kind && stack.current);
        match report.verdict {
            Verdict::Blocking if has(StackKind::Thread) => blocking = Some(report),
            Verdict::Starved if has(StackKind::Culprit) => starved = Some(report),
            _ => {}
        }
    }
    STOP.store(true, Ordering::Relaxed);
    checks.check("blocking, on the CPU", &blocking.unwrap(), StackKind::Thread, "computes", false);
    checks.check("starved", &starved.unwrap(), StackKind::Culprit, "computes", false);

    // Work that is polled all the time may be caught inside a poll, like any that computes.
    static STOP_YIELDING: AtomicBool = AtomicBool::new(false);
    let answer = || async { gives_way(&STOP_YIELDING).await };
    runtime.spawn(layer.layer(Answers(answer)).call(Request::new(())));
    let report = checks.of_yielding();
    STOP_YIELDING.store(true, Ordering::Relaxed);
    checks.check("yielding", &report, StackKind::Await, "gives_way", true);

    static STOP_DRAINING: AtomicBool = AtomicBool::new(false);
    let answer = || async { drains_budget(&STOP_DRAINING).await };
    runtime.spawn(layer.layer(Answers(answer)).call(Request::new(())));
    let report = checks.of_yielding();
    STOP_DRAINING.store(true, Ordering::Relaxed);
    checks.check("yielding, without a budget", &report, StackKind::Await, "drains_budget", true);

    // The main thread's stack is bounded otherwise than that of others.
    let mut job = pin!(heeler::watch("main", THRESHOLD, async { sleeps() }).reports(sink));
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let undisturbed = match job.as_mut().poll(&mut cx) {
        Poll::Ready(undisturbed) => undisturbed,
        Poll::Pending => panic!("it blocks"),
    };
    let report = checks.next(Verdict::Blocking, |report| report.job.is_some());
    checks.check("blocking, the main thread", &report, StackKind::Thread, "sleeps", false);
    assert!(undisturbed, "a signal woke the sleeping main thread");

    let said = log.lock().unwrap();
    said.iter().for_each(|line| println!("  {line}"));
    let warns = said.iter().any(|line| line.starts_with("WARN"));
    let must_not = std::env::args().nth(2).as_deref() == Some("without-a-warning");
    assert!(!must_not || !warns, "it warns although nothing is wrong");
}
