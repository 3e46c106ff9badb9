//! What a capture costs, and how soon it comes.
//!
//! - `capture.traced_poll.added`: what tracing adds to a poll, ten async levels deep. Every poll of one process is traced
//!   (`HEELER_TRACE_EVERY_POLL=1`), none of the other; the levels are boxed (`Pin<Box<dyn Future>>`), so that each has a
//!   frame of its own, and the leaf clones its waker at every poll. The processes take turns; of each the fastest rounds
//!   count, of the pairs the median. `.unboxed`: the same ten levels as one state machine.
//! - `capture.handler.median`: what a thread that computes loses when its stack is taken. A job reads the clock without a
//!   pause; the longest gap between two readings around its capture is the figure. Delivery of the signal, the handler,
//!   the return, and what the kernel does on the way are all in it. Jobs that lost the CPU to another thread meanwhile are
//!   left out: that is the machine's load. Beside it, of jobs without a deadline, in an equal window: `.empty_handler`, with
//!   a signal whose handler does nothing, and `.uncaptured`, without any.
//! - `capture.lateness.p99`: from the deadline to the capture, of jobs that wait; `capture.lateness_blocked.p99`: of jobs
//!   that hold their threads, every worker of the runtime all the time, every other one computing and the others asleep.
//!   By the report's `elapsed` or its `captured_at`, whichever is later; a job without a report was as late as it was long.
//!   `.plain_sleep_p99`: how late a thread wakes meanwhile that only sleeps, 5 ms at a time. On a busy machine that says
//!   how much of it is the machine's.
//! - `capture.first_report`: from the capture to the sink, for the first report of a process, which is due 20 ms after
//!   heeler's start; the slowest of several processes. `capture.repeated_report`: the same for the later ones.
//!
//! - `capture.others.added`: the same for reports of jobs that wait for a lock while 1,000 others are in flight at ten places,
//!   minus that of such jobs alone.
//!
//! Every part runs in a process of its own. The goals are printed at the end.
//!
//! ```text
//! cargo bench -p benches --bench capture               # a minute and a half
//! cargo bench -p benches --bench capture -- --quick    # half a minute
//! ```

#[path = "common/collected.rs"]
mod collected;
#[path = "common/mod.rs"]
mod common;
#[path = "common/gaps.rs"]
mod gaps;

use std::collections::HashMap;
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use collected::{Collected, index, millis};
use common::{at_most, median, pick, plain, quantile, undisturbed};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::task::{ArcWake, waker};
use gaps::{Signal, oversleep, spin};
use heeler::Report;
use heeler::report::Verdict;

fn main() {
    match common::after("--part").unwrap_or_default().first().map(String::as_str) {
        Some("traced") => traced(),
        Some("handler") => handler(),
        Some("waiting") => waiting(),
        Some("blocked") => blocked(),
        Some("first") => first(),
        Some("alone") => beside(0),
        Some("beside") => beside(1_000),
        _ => all(),
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
    plain("capture.traced_poll.unboxed.added", added[1], "us");
    let figure = |figures: &Figures, name: &str| figures.get(name).copied().unwrap_or(f64::NAN);
    let show = |part: &str, figures: &Figures, unit: &str, names: &[&str]| {
        names.iter().for_each(|name| plain(&format!("capture.{part}.{name}"), figure(figures, name), unit));
    };
    let handler = again("handler", None);
    show("handler", &handler, "jobs", &["captured", "undisturbed"]);
    show("handler", &handler, "us", &["p90", "empty_handler", "above_empty_handler", "uncaptured"]);
    let waiting = again("waiting", None);
    show("lateness", &waiting, "", &["jobs", "reports", "other_verdict"]);
    show("lateness", &waiting, "ms", &["median", "max", "plain_sleep_p99"]);
    show("repeated_report", &waiting, "ms", &["delivery_median"]);
    let blocked = again("blocked", None);
    show("lateness_blocked", &blocked, "", &["jobs", "reports", "other_verdict"]);
    show("lateness_blocked", &blocked, "ms", &["median", "max", "asleep_p99", "computing_p99", "plain_sleep_p99"]);
    show("repeated_report_blocked", &blocked, "ms", &["delivery_median", "delivery_p99"]);
    let [alone, beside] = ["alone", "beside"].map(|part| again(part, None));
    show("others", &alone, "ms", &["median", "p99"]);
    let others = figure(&beside, "median") - figure(&alone, "median");
    let firsts: Vec<Figures> = (0..pick(10, 3)).map(|_| again("first", None)).collect();
    let mut firsts: Vec<f64> = values("first", &firsts);
    plain("capture.first_report.median", median(&mut firsts), "ms");

    at_most("capture.traced_poll.added_us", added[0], 1.0);
    plain("capture.handler.with_the_kernels_part.median", figure(&handler, "median"), "us");
    // The handler's own: what a signal with an empty handler costs is the kernel's, and on a virtual machine most of it.
    at_most("capture.handler.median_us", figure(&handler, "above_empty_handler"), 5.0);
    at_most("capture.lateness.p99_ms", figure(&waiting, "p99"), 5.0);
    at_most("capture.lateness_blocked.p99_ms", figure(&blocked, "p99"), 5.0);
    at_most("capture.first_report_ms", quantile(&mut firsts, 1.0), 1000.0);
    at_most("capture.repeated_report_ms", figure(&waiting, "delivery_p99"), 5.0);
    at_most("capture.others.added_ms", others, 2.0);
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

async fn level(inner: impl Future<Output = u64>) -> u64 {
    1 + inner.await
}

fn unboxed() -> impl Future<Output = u64> {
    let five = |inner| level(level(level(level(level(inner)))));
    level(level(level(level(level(five(Leaf(None)))))))
}

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
            let pending = watched.as_mut().poll(&mut Context::from_waker(&waker)).is_pending();
            assert!(black_box(pending), "it waits for ever");
        }
    };
    undisturbed(&common::race(pick(300, 150), 500, &mut [Box::new(run)])[0])
}

fn handler() {
    let threshold = Duration::from_millis(1);
    // Then a capture comes: a poll that has lasted a millisecond at its deadline does not return.
    let then = Duration::from_millis(2);
    let collected = Collected::default();
    let reports = collected.reports();
    let run = |job: usize, threshold| {
        // A thread that has slept gets the CPU, and keeps it for some milliseconds.
        std::thread::sleep(Duration::from_millis(3));
        let spinning = async { spin(Duration::from_micros(3_800)) };
        futures::executor::block_on(heeler::watch(job.to_string(), threshold, spinning).reports(reports.clone()))
    };
    let (signal, mut captured, mut signalled, mut alone) = (Signal::new(), Vec::new(), Vec::new(), Vec::new());
    for job in 0..pick(1200, 400) {
        captured.push(run(job, threshold));
        // The first reading of the clock is after the sleep.
        signal.send_after(Duration::from_millis(3) + then);
        let gaps = run(job, Duration::MAX);
        signalled.extend(gaps.longest_since(signal.sent()));
        alone.extend(run(job, Duration::MAX).longest(then));
    }
    let found = collected.take(&reports);
    let blocking = || found.iter().filter(|(report, _)| report.verdict == Verdict::Blocking);
    // It comes after the look that `elapsed` tells the time of.
    let loss = |report: &Report| captured[index(report)].longest(report.elapsed);
    let mut losses: Vec<f64> = blocking().filter_map(|(report, _)| loss(report)).collect();
    println!("captured {}\nundisturbed {}", blocking().count(), losses.len());
    println!("median {}\np90 {}", median(&mut losses), quantile(&mut losses, 0.9));
    let (empty, above) = (median(&mut signalled), median(&mut losses) - median(&mut signalled));
    println!("empty_handler {empty}\nabove_empty_handler {above}\nuncaptured {}", median(&mut alone));
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
    let times = Arc::new(Mutex::new(vec![(SystemTime::UNIX_EPOCH, 0.0); count]));
    let oversleep = oversleep();
    runtime().block_on(async {
        let mut tasks = Vec::new();
        for number in 0..count {
            let (times, work, reports) = (times.clone(), job(number as u64), reports.clone());
            tasks.push(tokio::spawn(async move {
                // Different times relative to the looks of the monitor; for jobs that wait, some seconds.
                if expected == Verdict::Waiting {
                    tokio::time::sleep(Duration::from_micros(number as u64 * 6_137)).await;
                }
                let mut work = pin!(heeler::watch(number.to_string(), threshold, work).reports(reports));
                let begun = SystemTime::now();
                work.as_mut().await;
                times.lock().expect("not poisoned")[number] = (begun, begun.elapsed().map_or(0.0, millis));
            }));
        }
        for task in tasks {
            task.await.expect("no panic");
        }
    });
    println!("plain_sleep_p99 {}", quantile(&mut oversleep(), 0.99));
    let found = collected.take(&reports);
    let times = times.lock().expect("not poisoned");
    let mut late: Vec<f64> = times.iter().map(|(_, ran)| ran - millis(threshold)).collect();
    for (report, _) in &found {
        let captured = report.captured_at.duration_since(times[index(report)].0).map_or(0.0, millis);
        late[index(report)] = captured.max(millis(report.elapsed)) - millis(threshold);
    }
    let [mut even, mut odd] = [0, 1].map(|first| late.iter().skip(first).step_by(2).copied().collect::<Vec<_>>());
    let other = found.iter().filter(|(report, _)| report.verdict != expected).count();
    println!("jobs {count}\nreports {}\nother_verdict {other}\nmedian {}", found.len(), median(&mut late));
    println!("p99 {}\nmax {}", quantile(&mut late, 0.99), quantile(&mut late, 1.0));
    println!("asleep_p99 {}\ncomputing_p99 {}", quantile(&mut even, 0.99), quantile(&mut odd, 0.99));
    // The first one is not repeated.
    let mut took: Vec<f64> = found.iter().skip(1).map(|(_, took)| *took).collect();
    println!("delivery_median {}\ndelivery_p99 {}", median(&mut took), quantile(&mut took, 0.99));
}

fn waiting() {
    let job = |_| async { tokio::time::sleep(Duration::from_millis(300)).await };
    lateness(pick(1000, 300), Duration::from_millis(200), Verdict::Waiting, job);
}

fn blocked() {
    // Long enough that a late capture still finds it.
    lateness(pick(1000, 300), Duration::from_millis(20), Verdict::Blocking, |number| async move {
        let time = Duration::from_micros(50_000 + number * 1_370 % 9_000);
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

/// Runs jobs that wait for a lock, one after another, while so many others are in flight. Prints how long their reports
/// took.
fn beside(others: usize) {
    let collected = Collected::default();
    let (reports, silent) = (collected.reports(), collected.reports());
    let (long, threshold) = (Duration::from_secs(40), Duration::from_millis(20));
    let runtime = runtime();
    runtime.block_on(async {
        for number in 0..others {
            let other = async move {
                // Ten places, a branch each.
                let wait = || tokio::time::sleep(Duration::from_secs(600));
                match number % 10 {
                    0 => wait().await,
                    1 => wait().await,
                    2 => wait().await,
                    3 => wait().await,
                    4 => wait().await,
                    5 => wait().await,
                    6 => wait().await,
                    7 => wait().await,
                    8 => wait().await,
                    _ => wait().await,
                }
            };
            tokio::spawn(heeler::watch("other", long, other).reports(silent.clone()));
        }
        // Past an eighth of their threshold.
        tokio::time::sleep(if others > 0 { long / 7 } else { Duration::ZERO }).await;
        let lock = tokio::sync::Mutex::new(());
        let _held = lock.lock().await;
        for number in 0..pick(300, 60) {
            let job = heeler::watch(number.to_string(), threshold, lock.lock()).reports(reports.clone());
            let _ = tokio::time::timeout(threshold * 2, job).await;
        }
    });
    let mut took: Vec<f64> = collected.take(&reports).iter().skip(1).map(|(_, took)| *took).collect();
    println!("median {}\np99 {}", median(&mut took), quantile(&mut took, 0.99));
    runtime.shutdown_background();
}
