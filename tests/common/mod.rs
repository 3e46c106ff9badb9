//! What the integration tests share: a sink that collects, runtimes, and patience.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub(crate) mod chromium;
#[cfg(target_os = "linux")]
pub(crate) mod limits;
pub(crate) mod log;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use heeler::report::{Report, ReportsBuilder, StackKind};
use heeler::{Reports, Sink};

/// Built as for a platform without copied stacks: threads cannot be captured, and nothing is reconstructed.
pub(crate) const PORTABLE: bool = matches!(option_env!("HEELER_PORTABLE"), Some(value) if matches!(value.as_bytes(), b"1"))
    || !cfg!(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")));

/// What a test waits for at most. The first report of a debug build parses megabytes of debug information.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// Longer than any test takes.
pub(crate) const FOREVER: Duration = Duration::from_secs(3_600);

/// URIs that ask for a profile, in every spelling, and what is left of them for somebody else.
pub(crate) const FLAGGED: [(&str, &str); 9] = [
    ("/a?__geordi__=200x", "/a"),
    ("/a?b=1&__geordi__&c=%26", "/a?b=1&c=%26"),
    ("/?__geordi__&__geordi__=svg", "/"),
    ("/a?%5F%5Fgeordi%5F%5F", "/a"),
    ("/a?%5f%5fgeordi%5f%5f=200x&b=%26", "/a?b=%26"),
    ("/a?b&%5F_g%65ordi_%5f=svg&c", "/a?b&c"),
    ("/a?__geordi__&%5F%5Fgeordi%5F%5F=1&b&%5f_geordi__=2", "/a?b"),
    (
        "/a?b=__geordi__&c=%5F%5Fgeordi%5F%5F&%5F%5Fgeordi%5F%5Fx",
        "/a?b=__geordi__&c=%5F%5Fgeordi%5F%5F&%5F%5Fgeordi%5F%5Fx",
    ),
    ("/a", "/a"),
];

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Two clocks are compared: heeler counts the CPU's ticks, and what it has calibrated goes up to a thousandth faster or slower than
/// `Instant` and the timers of tokio do (see `src/clock.rs`). What one of them says is at least `time` may be so much by
/// the other.
pub(crate) fn at_least(time: Duration) -> Duration {
    time - time / 1_000
}

/// The same of what is at most `time`.
pub(crate) fn at_most(time: Duration) -> Duration {
    time + time / 1_000
}

/// Whether every poll is traced, from the first one on.
pub(crate) fn traces_every_poll() -> bool {
    std::env::var_os("HEELER_TRACE_EVERY_POLL").is_some_and(|value| value == "1")
}

/// Waits until a condition holds.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "timed out waiting until {what}");
        std::thread::sleep(ms(1));
    }
}

static CPU: RwLock<()> = RwLock::new(());

/// Tests that need the CPU when they need it run beside each other, but not beside those that burn it.
pub(crate) fn beside_others() -> RwLockReadGuard<'static, ()> {
    CPU.read().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// For a test that keeps a CPU busy, or that counts what the whole process does.
pub(crate) fn alone() -> RwLockWriteGuard<'static, ()> {
    CPU.write().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// For a test that counts what is in flight: alone, once the runtimes of earlier tests have dropped their work.
#[cfg(feature = "watchdog")]
pub(crate) fn alone_at_rest() -> RwLockWriteGuard<'static, ()> {
    let alone = alone();
    until("the work of earlier tests is gone", || heeler::metrics().in_flight.total() == 0);
    alone
}

/// A sink that keeps every report.
#[derive(Debug, Clone, Default)]
pub(crate) struct Collected {
    inner: Arc<(Mutex<Vec<Report>>, Condvar)>,
}

impl Sink for Collected {
    fn name(&self) -> &str {
        "collected"
    }

    fn deliver(&self, report: &Report) -> Result<(), heeler::SinkError> {
        self.inner.0.lock().unwrap().push(report.clone());
        self.inner.1.notify_all();
        Ok(())
    }
}

/// Reports that go to a collecting sink alone, every one of them, but not how their work ended.
pub(crate) fn collect() -> (Collected, Reports) {
    collect_with(|builder| builder)
}

pub(crate) fn collect_with(change: impl FnOnce(ReportsBuilder) -> ReportsBuilder) -> (Collected, Reports) {
    collect_with_endings(|builder| change(builder.without_endings()))
}

/// The same, with the endings.
pub(crate) fn collect_with_endings(change: impl FnOnce(ReportsBuilder) -> ReportsBuilder) -> (Collected, Reports) {
    let collected = Collected::default();
    let builder = Reports::builder().without_log().repeat_after(Duration::ZERO).sink(collected.clone());
    (collected, change(builder).build().unwrap())
}

impl Collected {
    /// Everything that has arrived.
    pub(crate) fn all(&self) -> Vec<Report> {
        self.inner.0.lock().unwrap().clone()
    }

    /// The first report that `is` one: one that has arrived, or one to come.
    #[track_caller]
    pub(crate) fn wait(&self, what: &str, is: impl Fn(&Report) -> bool) -> Report {
        let start = Instant::now();
        let mut reports = self.inner.0.lock().unwrap();
        loop {
            if let Some(report) = reports.iter().find(|report| is(report)) {
                return report.clone();
            }
            let Some(left) = PATIENCE.checked_sub(start.elapsed()) else {
                let texts: Vec<String> = reports.iter().map(Report::to_text).collect();
                drop(reports);
                panic!("no report about {what}, only {}:\n{}", texts.len(), texts.join("\n\n"));
            };
            reports = self.inner.1.wait_timeout(reports, left).unwrap().0;
        }
    }

    /// A report that has arrived with such a thread's stack, else the last one: a thread that did not get the CPU in time is
    /// shown at another look.
    pub(crate) fn with_thread_in(&self, function: &str) -> Option<Report> {
        let mut all = self.all();
        let found = all.iter().position(|report| goes_through(report, StackKind::Thread, function));
        found.or(all.len().checked_sub(1)).map(|index| all.swap_remove(index))
    }

    /// The same for work that ends once it is reported, before there is an update. It does not hold its thread.
    pub(crate) fn reported<F>(&self, is: F) -> impl Future<Output = ()> + use<F>
    where
        F: Fn(&Report) -> bool + Send + 'static,
    {
        let seen = self.clone();
        async move {
            tokio::task::spawn_blocking(move || drop(seen.wait("the work", is))).await.unwrap();
        }
    }

    /// The first report.
    #[track_caller]
    pub(crate) fn first(&self) -> Report {
        self.wait("anything", |report| report.update == 0)
    }
}

/// A runtime with so many workers, or with the current thread alone.
pub(crate) fn runtime(workers: usize) -> tokio::runtime::Runtime {
    let mut builder = match workers {
        0 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if workers > 0 {
        builder.worker_threads(workers);
    }
    builder.enable_all().build().unwrap()
}

/// A runtime on a thread of its own, driven until it is dropped; it does not wait for what is stuck.
pub(crate) struct Driven {
    pub(crate) handle: tokio::runtime::Handle,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
}

impl Driven {
    pub(crate) fn new(workers: usize) -> Self {
        let runtime = runtime(workers);
        let handle = runtime.handle().clone();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let _ = runtime.block_on(stopped);
            runtime.shutdown_background();
        });
        Self { handle, stop: Some(stop) }
    }

    pub(crate) fn spawn<F>(&self, future: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.handle.spawn(future)
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }
}

/// Where threads block until the test opens it, and which counts them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wall(Arc<(AtomicUsize, Mutex<bool>, Condvar)>);

impl Wall {
    pub(crate) fn block(&self) {
        let (inside, open, opened) = &*self.0;
        inside.fetch_add(1, Ordering::SeqCst);
        drop(opened.wait_while(open.lock().unwrap(), |open| !*open).unwrap());
        inside.fetch_sub(1, Ordering::SeqCst);
    }

    pub(crate) fn open(&self) {
        *self.0.1.lock().unwrap() = true;
        self.0.2.notify_all();
    }

    #[track_caller]
    pub(crate) fn until_blocked(&self, many: usize) {
        until("the expected number of threads is blocked", || self.0.0.load(Ordering::SeqCst) == many);
    }
}

/// The line that ends with the comment `// <mark>`, counted from 1.
#[track_caller]
pub(crate) fn line_of(source: &str, mark: &str) -> u32 {
    let mark = format!("// {mark}");
    let mut lines = source.lines().enumerate().filter(|(_, line)| line.trim_end().ends_with(&mark));
    let found = lines.next().unwrap_or_else(|| panic!("no line is marked `{mark}`")).0;
    assert!(lines.next().is_none(), "several lines are marked `{mark}`");
    found as u32 + 1
}

/// The last segment of a function's path.
pub(crate) fn short(function: Option<&str>) -> &str {
    let function = function.unwrap_or("?");
    function.rsplit("::").next().unwrap_or(function)
}

/// The function of the report's location, without its path.
pub(crate) fn place(report: &Report) -> String {
    short(report.location.as_ref().and_then(|location| location.function.as_deref())).to_owned()
}

/// The innermost own functions of the current stacks of one kind, without their paths, sorted.
pub(crate) fn own_functions(report: &Report, kind: StackKind, child: Option<&str>) -> Vec<String> {
    let mut functions: Vec<String> = report
        .stacks
        .iter()
        .filter(|stack| stack.current && stack.kind == kind && stack.child.as_deref() == child)
        .map(|stack| {
            let frame = stack.frames.iter().find(|frame| frame.own);
            short(frame.and_then(|frame| frame.function.as_deref())).to_owned()
        })
        .collect();
    functions.sort();
    functions
}

/// Whether any current stack of the kind goes through the function.
pub(crate) fn goes_through(report: &Report, kind: StackKind, function: &str) -> bool {
    let stacks = report.stacks.iter().filter(|stack| stack.current && stack.kind == kind);
    stacks.flat_map(|stack| &stack.frames).any(|frame| short(frame.function.as_deref()) == function)
}

/// Runs a test of that name in a process of its own: for what a process has only one of.
pub(crate) fn in_own_process(test: &str, body: impl FnOnce()) {
    in_process_of(std::process::Command::new(std::env::current_exe().unwrap()), test, body);
}

/// The same in a process that `command`, with the arguments of a test added, starts.
pub(crate) fn in_process_of(mut command: std::process::Command, test: &str, body: impl FnOnce()) {
    const ALONE: &str = "HEELER_TEST_ALONE";
    if std::env::var(ALONE).as_deref() == Ok(test) {
        return body();
    }
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(ALONE, test);
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{}:\n{out}\n{err}", output.status);
}

/// Sends a request through a watchdog, which is answered after the future. It needs no server.
#[cfg(feature = "watchdog")]
pub(crate) fn send<F>(driven: &Driven, layer: &heeler::WatchdogLayer, path: &str, future: F)
where
    F: Future<Output = ()> + Send + 'static,
{
    use tower::{Layer as _, ServiceExt as _};

    let future = Mutex::new(Some(future));
    let service = tower::service_fn(move |_: http::Request<()>| {
        let future = future.lock().unwrap().take().expect("one request");
        async move {
            future.await;
            Ok::<_, std::convert::Infallible>(http::Response::new(String::new()))
        }
    });
    let request = http::Request::get(path).body(()).unwrap();
    driven.spawn(layer.layer(service).oneshot(request));
}
