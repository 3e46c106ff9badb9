//! Many boxes expire together, each of which has handed work on: the database is down.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use heeler::TimeboxExt;

use super::common::{Driven, PATIENCE, in_own_process, ms, until};

/// How long the monitor's thread has been on a processor.
fn monitor_on_cpu() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let is_monitor = |path: &std::path::PathBuf| {
        std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim_end() == "heeler-monitor")
    };
    let monitor = tasks.into_iter().find(is_monitor).expect("the monitor's thread");
    let nanos = std::fs::read_to_string(monitor.join("schedstat")).unwrap();
    Duration::from_nanos(nanos.split(' ').next().unwrap().parse().unwrap())
}

static TOLD: AtomicUsize = AtomicUsize::new(0);

/// One that a box's end tells, too.
async fn handed_on() {
    // A timebox that this work opened itself, and one inside it.
    let inner = heeler::timebox::interrupted().timebox(PATIENCE * 2).grace(PATIENCE);
    let _ = inner.timebox(PATIENCE * 4).grace(PATIENCE).await;
    TOLD.fetch_add(1, Ordering::Relaxed);
}

/// What the monitor spends until so many boxes, with one task and two more boxes each, are told.
fn spent_on(boxes: usize) -> Duration {
    let driven = Driven::new(2);
    // All of them begin before the first one is over.
    let limit = ms(3_000);
    let all: Vec<_> = (0..boxes)
        .map(|_| {
            driven.spawn(async move {
                let work = async {
                    heeler::spawn(handed_on());
                    std::future::pending::<()>().await;
                };
                let began = Instant::now();
                work.timebox(limit).await.unwrap_err();
                began.elapsed().saturating_sub(limit)
            })
        })
        .collect();
    std::thread::sleep(limit / 2);
    let before = monitor_on_cpu();
    let told = TOLD.load(Ordering::Relaxed);
    let late: Vec<_> = all.into_iter().map(|one| driven.handle.block_on(one).unwrap()).collect();
    until("the spawned work is told", || TOLD.load(Ordering::Relaxed) == told + boxes);
    let spent = monitor_on_cpu() - before;
    println!("{boxes} boxes: at most {:?} late, the monitor used {spent:?}", late.iter().max().unwrap());
    spent
}

/// Guards: the monitor looks only at the inheritors it has to tell, so that its work is linear in what expires.
#[test]
fn telling_inheritors_takes_linear_time() {
    in_own_process("inheritors::telling_inheritors_takes_linear_time", || {
        spent_on(100);
        let few = spent_on(1_000);
        let many = spent_on(8_000);
        // Eight times as many: 64 times as long if each of them takes a look at all.
        assert!(many < few * 24 || many < ms(200), "{many:?} for 8,000, {few:?} for 1,000");
        assert!(many < ms(3_000), "{many:?}");
    });
}
