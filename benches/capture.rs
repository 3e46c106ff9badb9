//! What a capture costs, and how soon it comes.
//!
//! - `capture.traced_poll.added`: what tracing adds to a poll, ten async levels deep. Every poll of one process is traced
//!   (`HEELER_TRACE_EVERY_POLL=1`), none of the other; the levels are boxed (`Pin<Box<dyn Future>>`), so that each has a
//!   frame of its own, and the leaf clones its waker at every poll. The processes take turns; of each the fastest rounds
//!   count, of the pairs the median. `_unboxed`: the same ten levels as one state machine.
//! - `capture.handler.median`: what a thread that computes loses when its stack is taken. A job reads the clock without a
//!   pause; the longest gap between two readings around its capture is the figure. Delivery of the signal, the handler,
//!   the return, and what the kernel does on the way are all in it. `.uncaptured` is the longest gap of jobs without a
//!   deadline, in an equal window: what the machine does by itself.
//! - `capture.lateness.p99`: from the deadline to the capture, of jobs that wait; `capture.lateness_blocked.p99`: of jobs
//!   that hold their threads, every worker of the runtime all the time, every other one computing and the others asleep.
//!   By the report's `elapsed_ms` or its `captured_at`, whichever is later.
//! - `capture.first_report`: from the capture to the sink, for the first report of a process, which is due 20 ms after
//!   heeler's start; the slowest of several processes. `capture.repeated_report`: the same for the later ones.
//!
//! Every part runs in a process of its own. The goals are printed at the end.
//!
//! ```text
//! cargo bench --bench capture               # some 50 seconds
//! cargo bench --bench capture -- --quick    # some 20
//! ```

#[path = "common/mod.rs"]
mod common;

use std::collections::HashMap;
use std::error::Error;
use std::future::poll_fn;
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use common::{at_most, median, nanos, pick, plain, quantile, undisturbed};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::task::{ArcWake, waker};
use heeler::report::Verdict;
use heeler::{Report, Reports, Sink};

fn main() {
    match common::after("--part").as_ref().and_then(|part| part.first()).map(String::as_str) {
        Some("traced") => traced(),
        Some("handler") => handler(),
        Some("waiting") => waiting(),
        Some("blocked") => blocked(),
        Some("first") => first(),
        Some(other) => println!("{other}: no such part"),
        None => all(),
    }
}

fn all() {
    let (with, without): (Vec<_>, Vec<_>) =
        (0..pick(9, 3)).map(|_| (again("traced", Some("1")), again("traced", None))).unzip();
    let values = |name: &str, all: &[Figures]| all.iter().filter_map(|figures| figures.get(name).copied()).collect();
    let mut added = Vec::new();
    for name in ["boxed", "unboxed"] {
        let (mut with, mut without): (Vec<f64>, Vec<f64>) = (values(name, &with), values(name, &without));
        let mut pairs: Vec<f64> = with.iter().zip(&without).map(|(with, without)| with - without).collect();
        plain(&format!("capture.traced_poll.{name}.traced"), median(&mut with), "ns");
        plain(&format!("capture.traced_poll.{name}.untraced"), median(&mut without), "ns");
        added.push(median(&mut pairs) / 1e3);
    }
    plain("capture.traced_poll.added_unboxed_us", added[1], "us");
    let show = |part: &str, figures: &Figures, names: &[(&str, &str)]| {
        for (name, unit) in names {
            plain(&format!("capture.{part}.{name}"), figures.get(*name).copied().unwrap_or(f64::NAN), unit);
        }
    };
    let handler = again("handler", None);
    show("handler", &handler, &[("captured", "jobs"), ("p90", "us"), ("uncaptured", "us"), ("uncaptured_p90", "us")]);
    let waiting = again("waiting", None);
    show("lateness", &waiting, &[("reports", "of its jobs"), ("median", "ms"), ("max", "ms")]);
    show("repeated_report", &waiting, &[("delivery_median", "ms")]);
    let blocked = again("blocked", None);
    let both = [("reports", "of its jobs"), ("other_verdict", "of these"), ("median", "ms"), ("max", "ms")];
    show("lateness_blocked", &blocked, &both);
    show("repeated_report_blocked", &blocked, &[("delivery_median", "ms"), ("delivery_p99", "ms")]);
    let firsts: Vec<Figures> = (0..pick(10, 3)).map(|_| again("first", None)).collect();
    let mut firsts: Vec<f64> = values("first", &firsts);
    plain("capture.first_report.median", median(&mut firsts), "ms");

    let figure = |figures: &Figures, name: &str| figures.get(name).copied().unwrap_or(f64::NAN);
    at_most("capture.traced_poll.added_us", added[0], 1.0);
    at_most("capture.handler.median_us", figure(&handler, "median"), 5.0);
    at_most("capture.lateness.p99_ms", figure(&waiting, "p99"), 5.0);
    at_most("capture.lateness_blocked.p99_ms", figure(&blocked, "p99"), 5.0);
    at_most("capture.first_report_ms", quantile(&mut firsts, 1.0), 1000.0);
    at_most("capture.repeated_report_ms", figure(&waiting, "delivery_p99"), 5.0);
}

type Figures = HashMap<String, f64>;

/// Runs a part in a process of its own and reads its lines, each a name and a figure.
fn again(part: &str, trace_every_poll: Option<&str>) -> Figures {
    let mut command = Command::new(std::env::current_exe().expect("a path"));
    command.args(common::quick().then_some("--quick")).args(["--part", part]).stderr(Stdio::inherit());
    match trace_every_poll {
        Some(value) => command.env("HEELER_TRACE_EVERY_POLL", value),
        None => command.env_remove("HEELER_TRACE_EVERY_POLL"),
    };
    let output = command.output().expect("the program runs");
    if !output.status.success() {
        println!("{part}: {}", output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let figures = text.lines().filter_map(|line| line.split_once(' '));
    figures.filter_map(|(name, figure)| Some((name.to_owned(), figure.parse().ok()?))).collect()
}

/// The deepest level of all: keeps its waker, and waits.
struct Leaf(Option<Waker>);

impl Future for Leaf {
    type Output = u64;

    #[inline(never)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<u64> {
        self.0 = Some(cx.waker().clone());
        black_box(Poll::Pending)
    }
}

fn boxed(depth: u64) -> BoxFuture<'static, u64> {
    async move { depth + if depth > 1 { boxed(depth - 1).await } else { Leaf(None).await } }.boxed()
}

macro_rules! levels {
    ($name:ident) => { async fn $name() -> u64 { 1 + Leaf(None).await } };
    ($name:ident $($inner:ident)+) => {
        async fn $name() -> u64 { 1 + levels!(@ $($inner)+).await }
        levels! { $($inner)+ }
    };
    (@ $name:ident $($rest:ident)*) => { $name() };
}
levels! { unboxed ninth eighth seventh sixth fifth fourth third second lowest }

struct Nothing;

impl ArcWake for Nothing {
    fn wake_by_ref(_: &Arc<Self>) {}
}

fn traced() {
    println!("boxed {}", nanos_a_poll(boxed(10)));
    println!("unboxed {}", nanos_a_poll(unboxed()));
}

fn nanos_a_poll(future: impl Future<Output = u64>) -> f64 {
    // Its deadline is far away: only what each poll does is measured.
    let mut watched = pin!(heeler::watch("polled", Duration::from_secs(86_400), future));
    let waker = waker(Arc::new(Nothing));
    let run = |n| {
        for _ in 0..n {
            assert!(
                black_box(watched.as_mut().poll(&mut Context::from_waker(&waker)).is_pending()),
                "it waits for ever"
            );
        }
    };
    undisturbed(&common::race(pick(300, 150), 500, &mut [Box::new(run)])[0])
}

/// The first reports of the jobs `0`, `1`, .., with the time that each took to the sink, in milliseconds.
#[derive(Clone, Default)]
struct Collected(Arc<Mutex<Vec<(Report, f64)>>>);

impl Sink for Collected {
    fn name(&self) -> &str {
        "collected"
    }

    fn deliver(&self, report: &Report) -> Result<(), Box<dyn Error + Send + Sync>> {
        let took = SystemTime::now().duration_since(report.captured_at).unwrap_or_default();
        if report.update == 0 {
            self.0.lock().map_err(|_| "poisoned")?.push((report.clone(), millis(took)));
        }
        Ok(())
    }
}

impl Collected {
    fn reports(&self) -> Reports {
        let builder = Reports::builder().log(false).repeat_after(Duration::ZERO).sink(self.clone());
        builder.build().expect("reports")
    }

    /// All of them, once they have arrived.
    fn take(&self, reports: &Reports) -> Vec<(Report, f64)> {
        if !reports.flush(Duration::from_secs(20)) {
            eprintln!("not all reports have arrived");
        }
        std::mem::take(&mut *self.0.lock().expect("not poisoned"))
    }
}

fn millis(duration: Duration) -> f64 {
    nanos(duration) / 1e6
}

fn index(report: &Report) -> usize {
    report.job.as_deref().and_then(|job| job.parse().ok()).expect("jobs are named by numbers")
}

/// Reads the clock for so long. Returns the gaps between readings that are more than a reading: when they began and how
/// long they were, both in microseconds.
#[inline(never)]
fn spin(time: Duration) -> Vec<(f64, f64)> {
    let mut gaps = Vec::with_capacity(4096);
    let start = Instant::now();
    let mut last = start;
    while last - start < time {
        let now = Instant::now();
        if now - last > Duration::from_nanos(200) && gaps.len() < gaps.capacity() {
            gaps.push((last - start, now - last));
        }
        last = now;
    }
    gaps.into_iter().map(|(at, gap)| (nanos(at) / 1e3, nanos(gap) / 1e3)).collect()
}

fn handler() {
    /// Of the readings that belong to a capture: it comes after the look that `elapsed_ms` tells the time of.
    const WINDOW: f64 = 500.0;
    let threshold = Duration::from_millis(4);
    let collected = Collected::default();
    let reports = collected.reports();
    let longest = |gaps: &[(f64, f64)], from: f64| {
        let window = gaps.iter().filter(|(at, gap)| at + gap >= from && *at <= from + WINDOW);
        window.map(|(_, gap)| *gap).fold(0.0, f64::max)
    };
    let (mut captured, mut uncaptured) = (Vec::new(), Vec::new());
    for job in 0..pick(800, 200) {
        let of = |threshold| heeler::watch(job.to_string(), threshold, async { spin(Duration::from_micros(7500)) });
        captured.push(futures::executor::block_on(of(threshold).reports(reports.clone())));
        let gaps = futures::executor::block_on(of(Duration::MAX).reports(reports.clone()));
        // When a capture would have come: a poll that has lasted a millisecond at its deadline does not return.
        uncaptured.push(longest(&gaps, 5000.0));
    }
    let found = collected.take(&reports);
    let blocking = found.iter().filter(|(report, _)| report.verdict == Verdict::Blocking);
    let mut losses: Vec<f64> =
        blocking.map(|(report, _)| longest(&captured[index(report)], report.elapsed_ms * 1e3)).collect();
    println!("captured {}\nmedian {}\np90 {}", losses.len(), median(&mut losses), quantile(&mut losses, 0.9));
    println!("uncaptured {}\nuncaptured_p90 {}", median(&mut uncaptured), quantile(&mut uncaptured, 0.9));
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// Runs jobs of that threshold and prints how late each was captured and how long its report took. `job` is given the
/// job's number.
fn lateness<F>(count: usize, threshold: Duration, expected: Verdict, job: impl Fn(u64) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let collected = Collected::default();
    let reports = collected.reports();
    let begun = Arc::new(Mutex::new(vec![SystemTime::UNIX_EPOCH; count]));
    runtime().block_on(async {
        let mut tasks = Vec::new();
        for number in 0..count {
            let (begun, work, reports) = (begun.clone(), job(number as u64), reports.clone());
            tasks.push(tokio::spawn(async move {
                // Different times relative to the looks of the monitor; for jobs that wait, some seconds.
                if expected == Verdict::Waiting {
                    tokio::time::sleep(Duration::from_micros(number as u64 * 6_137)).await;
                }
                let mut work = pin!(heeler::watch(number.to_string(), threshold, work).reports(reports));
                begun.lock().expect("not poisoned")[number] = SystemTime::now();
                poll_fn(|cx| work.as_mut().poll(cx)).await;
            }));
        }
        for task in tasks {
            task.await.expect("no panic");
        }
    });
    let found = collected.take(&reports);
    let begun = begun.lock().expect("not poisoned");
    let late = |(report, _): &(Report, f64)| {
        let captured = report.captured_at.duration_since(begun[index(report)]).map_or(0.0, millis);
        captured.max(report.elapsed_ms) - millis(threshold)
    };
    let mut late: Vec<f64> = found.iter().map(late).collect();
    let other = found.iter().filter(|(report, _)| report.verdict != expected).count();
    println!("reports {}\nother_verdict {other}\nmedian {}", late.len() as f64 / count as f64, median(&mut late));
    println!("p99 {}\nmax {}", quantile(&mut late, 0.99), quantile(&mut late, 1.0));
    // The first one is not repeated.
    let mut took: Vec<f64> = found.iter().skip(1).map(|(_, took)| *took).collect();
    println!("delivery_median {}\ndelivery_p99 {}", median(&mut took), quantile(&mut took, 0.99));
}

fn waiting() {
    let job = |_| async { tokio::time::sleep(Duration::from_millis(300)).await };
    lateness(pick(1000, 300), Duration::from_millis(200), Verdict::Waiting, job);
}

fn blocked() {
    // Shorter than twice the threshold: there is one look at each.
    lateness(pick(1000, 300), Duration::from_millis(20), Verdict::Blocking, |number| async move {
        let time = Duration::from_micros(28_000 + number * 1_370 % 9_000);
        if number % 2 == 0 { std::thread::sleep(time) } else { drop(spin(time)) }
    });
}

fn first() {
    let collected = Collected::default();
    let reports = collected.reports();
    let job = async { tokio::time::sleep(Duration::from_millis(30)).await };
    runtime().block_on(heeler::watch("0", Duration::from_millis(20), job).reports(reports.clone()));
    if let Some((_, took)) = collected.take(&reports).first() {
        println!("first {took}");
    }
}
