//! What a timebox costs, and how late it fires, beside `tokio::time::timeout` in the same run.
//!
//! - `timebox.ready`, `timebox.suspend_once`: what a box adds to a future that is ready at its first poll, or at its second;
//!   future with the box minus future without, in a task on a current-thread runtime.
//! - `timebox.checkpoint`: beside `Instant::now()`.
//! - `timebox.open_beside_100000`: opening and ending a box while 100,000 are open, beside the same with none.
//! - `timebox.lateness`: from the limit until the work is dropped, on a machine at rest; of tokio's, too.
//! - `timebox.flag_lateness`: from the limit until a checkpoint sees it, while every worker runs without a pause.
//!
//! ```text
//! cargo bench -p benches --bench timebox
//! cargo bench -p benches --bench timebox -- --quick
//! ```
//!
//! `--count <bare|heeler|tokio>_<ready|once> [n]` runs one loop and times nothing:
//!
//! ```text
//! bench=$(ls -t target/release/deps/timebox-* | grep -v '\.d$' | head -1)
//! valgrind --tool=callgrind --toggle-collect='*drive*' --callgrind-out-file=/tmp/out $bench --count heeler_ready 10000
//! ```

#[path = "common/mod.rs"]
mod common;

use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use common::{Contender, at_most, nanos, pick, plain, quantile, race, undisturbed};
use heeler::{TimeboxExt, checkpoint, timebox};
use tokio::runtime::{Builder, Runtime};

const LIMIT: Duration = Duration::from_secs(25);

/// Wakes itself and is pending so many times, then ready.
struct Suspends(u32);

impl Future for Suspends {
    type Output = u32;

    #[inline(never)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<u32> {
        if self.0 > 0 {
            self.0 -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(7)
    }
}

#[inline(never)]
async fn drive_bare(n: u64, suspensions: u32) {
    for _ in 0..n {
        black_box(Suspends(suspensions).await);
    }
}

#[inline(never)]
async fn drive_heeler(n: u64, suspensions: u32) {
    for _ in 0..n {
        black_box(timebox(LIMIT, Suspends(suspensions)).await.is_ok());
    }
}

#[inline(never)]
async fn drive_tokio(n: u64, suspensions: u32) {
    for _ in 0..n {
        black_box(tokio::time::timeout(LIMIT, Suspends(suspensions)).await.is_ok());
    }
}

fn in_a_task(runtime: &Runtime, task: impl Future<Output = ()> + Send + 'static) {
    runtime.block_on(async { tokio::spawn(task).await }).expect("no panic");
}

fn main() {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    // The timer has been parked on, with a deadline before those to come: as in a service at work.
    runtime.block_on(async {
        tokio::spawn(tokio::time::sleep(Duration::from_secs(20)));
        tokio::time::sleep(Duration::from_millis(5)).await;
    });
    if let Some(arguments) = common::after("--count") {
        return count(&arguments, &runtime);
    }
    let rounds = pick(600, 100);
    for (name, suspensions) in [("ready", 0), ("suspend_once", 1)] {
        let runtime = &runtime;
        let mut contenders: [Contender<'_>; 3] = [
            Box::new(move |n| in_a_task(runtime, drive_bare(n, suspensions))),
            Box::new(move |n| in_a_task(runtime, drive_heeler(n, suspensions))),
            Box::new(move |n| in_a_task(runtime, drive_tokio(n, suspensions))),
        ];
        let times = race(rounds, 2000, &mut contenders);
        let [bare, heeler, tokio] = [0, 1, 2].map(|index| undisturbed(&times[index]));
        plain(&format!("timebox.{name}.future_alone"), bare, "ns");
        plain(&format!("timebox.{name}.added"), heeler - bare, "ns");
        plain(&format!("timebox.{name}.added_by_tokio"), tokio - bare, "ns");
        at_most(&format!("timebox.{name}.vs_tokio"), (heeler - bare) / (tokio - bare), 0.5);
    }
    checkpoints(rounds);
    lateness(&runtime);
    flag_lateness();
    // Last: rows are never given back, and the monitor looks at all there are.
    open_beside_many(&runtime, rounds);
}

fn checkpoints(rounds: usize) {
    // Inside a box, where there is something to look at.
    let result = timebox::blocking(LIMIT, || {
        let mut contenders: [Contender<'_>; 2] = [
            Box::new(|n| (0..n).for_each(|_| assert!(black_box(checkpoint().is_ok())))),
            Box::new(|n| {
                (0..n).for_each(|_| {
                    black_box(Instant::now());
                })
            }),
        ];
        let times = race(rounds, 10_000, &mut contenders);
        let [checkpoint, now] = [0, 1].map(|index| undisturbed(&times[index]));
        plain("timebox.checkpoint", checkpoint, "ns");
        plain("timebox.instant_now", now, "ns");
        at_most("timebox.checkpoint.vs_instant_now", checkpoint / now, 0.1);
        Ok::<(), heeler::Interrupted>(())
    });
    assert!(result.is_ok(), "25 seconds are enough");
}

fn open_beside_many(runtime: &Runtime, rounds: usize) {
    let first = undisturbed(&race(rounds, 2000, &mut [Box::new(|n| in_a_task(runtime, drive_heeler(n, 1)))])[0]);
    let waker = futures::task::noop_waker();
    let mut cx = Context::from_waker(&waker);
    let mut open: Vec<_> = (0..100_000).map(|_| Box::pin(timebox(LIMIT * 100, std::future::pending::<()>()))).collect();
    for one in &mut open {
        assert!(one.as_mut().poll(&mut cx).is_pending());
    }
    let beside = undisturbed(&race(rounds, 2000, &mut [Box::new(|n| in_a_task(runtime, drive_heeler(n, 1)))])[0]);
    drop(open);
    plain("timebox.open_first", first, "ns");
    plain("timebox.open_beside_100000", beside, "ns");
    at_most("timebox.open_beside_100000.vs_first", beside / first, 1.2);
}

/// How many milliseconds after the limit the result is there.
fn lateness(runtime: &Runtime) {
    let (mut ours, mut tokios) = (Vec::new(), Vec::new());
    let mut drop_late = |limit: Duration, began: Instant, to_tokio: bool| {
        let late = nanos(began.elapsed().saturating_sub(limit)) / 1e6;
        if to_tokio { tokios.push(late) } else { ours.push(late) }
    };
    runtime.block_on(async {
        for round in 0..pick(1000, 200) {
            let limit = Duration::from_micros(fastrand::u64(3_000..20_000));
            let began = Instant::now();
            let work = tokio::sync::Notify::new();
            if round % 2 == 0 {
                assert!(work.notified().timebox(limit).await.is_err());
            } else {
                assert!(tokio::time::timeout(limit, work.notified()).await.is_err());
            }
            drop_late(limit, began, round % 2 == 1);
        }
    });
    plain("timebox.lateness.median", quantile(&mut ours, 0.5), "ms");
    plain("timebox.lateness.tokio_p99", quantile(&mut tokios, 0.99), "ms");
    at_most("timebox.lateness.p99_ms", quantile(&mut ours, 0.99), 2.0);
}

/// How many milliseconds after the limit a checkpoint sees it, while every worker of the runtime runs without a pause.
fn flag_lateness() {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let mut late = Vec::new();
    for _ in 0..pick(200, 40) {
        let tasks: Vec<_> = (0..2)
            .map(|_| {
                let limit = Duration::from_micros(fastrand::u64(3_000..30_000));
                let task = async move {
                    let began = Instant::now();
                    while checkpoint().is_ok() {
                        std::hint::spin_loop();
                    }
                    nanos(began.elapsed().saturating_sub(limit)) / 1e6
                };
                runtime.spawn(task.timebox(limit))
            })
            .collect();
        late.extend(
            tasks.into_iter().map(|task| runtime.block_on(task).expect("no panic").expect("it ends by itself")),
        );
    }
    plain("timebox.flag_lateness.median", quantile(&mut late, 0.5), "ms");
    at_most("timebox.flag_lateness.p99_ms", quantile(&mut late, 0.99), 5.0);
}

/// One loop, for a profiler.
fn count(arguments: &[String], runtime: &Runtime) {
    let what = arguments.first().map_or("heeler_ready", String::as_str);
    let n = arguments.get(1).and_then(|n| n.parse().ok()).unwrap_or(10_000);
    let (who, kind) = what.rsplit_once('_').unwrap_or((what, "ready"));
    let suspensions = u32::from(kind == "once");
    match who {
        "bare" => in_a_task(runtime, drive_bare(n, suspensions)),
        "tokio" => in_a_task(runtime, drive_tokio(n, suspensions)),
        _ => in_a_task(runtime, drive_heeler(n, suspensions)),
    }
}
