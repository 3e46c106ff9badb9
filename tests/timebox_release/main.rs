//! Nothing is left behind: what a box interrupts lets go of everything that it holds, whenever that happens.
#![cfg(feature = "timebox")]

#[path = "../common/mod.rs"]
mod common;

mod children;
mod files;
mod grace;
mod hooks;
mod order;
mod permits;
mod sqlite;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use heeler::timebox::Interrupted;

/// How many interruptions each resource has to bear.
const INTERRUPTIONS: usize = 1_000;

/// One run of a work: how long it takes, and how long it may take.
#[derive(Debug, Clone)]
struct Run {
    number: usize,
    limit: Duration,
    before: Duration,
    holding: Duration,
    held: Arc<AtomicBool>,
}

impl Run {
    fn random(number: usize) -> Self {
        let millis = |most| Duration::from_millis(fastrand::u64(0..=most));
        Self {
            number,
            // Some have no time at all.
            limit: Duration::from_micros(fastrand::u64(0..7_000).saturating_sub(500)),
            before: millis(2),
            holding: millis(2),
            held: Arc::default(),
        }
    }

    /// The work up to where it takes its resource.
    async fn before(&self) {
        pause(self.before).await;
    }

    /// The work from there on.
    async fn holding(&self) {
        self.hold();
        pause(self.holding).await;
    }

    fn hold(&self) {
        self.held.store(true, Ordering::Relaxed);
    }

    fn has_held(&self) -> bool {
        self.held.load(Ordering::Relaxed)
    }

    /// The same for plain code.
    fn before_blocking(&self) -> Result<(), Interrupted> {
        pause_blocking(self.before)
    }

    fn holding_blocking(&self) -> Result<(), Interrupted> {
        self.hold();
        pause_blocking(self.holding)
    }
}

/// A timer rounds up to the next millisecond, even of none: then the task only gives way.
async fn pause(time: Duration) {
    match time {
        Duration::ZERO => tokio::task::yield_now().await,
        time => tokio::time::sleep(time).await,
    }
}

fn pause_blocking(time: Duration) -> Result<(), Interrupted> {
    let begin = std::time::Instant::now();
    loop {
        heeler::checkpoint()?;
        if begin.elapsed() >= time {
            return Ok(());
        }
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// How the runs ended.
#[derive(Debug, Default)]
struct Tally {
    next: AtomicUsize,
    completed: AtomicUsize,
    /// Interrupted before they took their resource, and while they held it.
    before: AtomicUsize,
    holding: AtomicUsize,
}

impl Tally {
    /// The next run, unless there have been enough.
    fn next(&self) -> Option<Run> {
        let interrupted = self.before.load(Ordering::Relaxed) + self.holding.load(Ordering::Relaxed);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        assert!(number < 50 * INTERRUPTIONS, "hardly any run was interrupted: {self:?}");
        (interrupted < INTERRUPTIONS).then(|| Run::random(number))
    }

    fn count(&self, run: &Run, completed: bool) {
        let counter = match completed {
            true => &self.completed,
            false if run.has_held() => &self.holding,
            false => &self.before,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Every way to end was among them.
    fn check(&self) {
        println!("{self:?}");
        for counter in [&self.completed, &self.before, &self.holding] {
            assert!(counter.load(Ordering::Relaxed) > 0, "{self:?}");
        }
    }
}

/// Runs a work with random limits, several at once, until it has been interrupted often enough. It boxes itself, checks what
/// is left of it, and says whether it was completed.
fn interrupt_often<F>(at_once: usize, work: impl Fn(Run) -> F + Send + Sync + 'static)
where
    F: Future<Output = bool> + Send,
{
    let (tally, work) = (Arc::new(Tally::default()), Arc::new(work));
    common::runtime(2).block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..at_once {
            let (tally, work) = (tally.clone(), work.clone());
            tasks.spawn(async move {
                while let Some(run) = tally.next() {
                    let completed = work(run.clone()).await;
                    tally.count(&run, completed);
                }
            });
        }
        while let Some(task) = tasks.join_next().await {
            task.unwrap();
        }
    });
    tally.check();
}

/// The same for plain code, on threads.
fn interrupt_often_blocking(at_once: usize, work: impl Fn(&Run) -> bool + Sync) {
    let tally = Tally::default();
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some(run) = tally.next() {
                    tally.count(&run, work(&run));
                }
            });
        }
    });
    tally.check();
}

/// Waits until a condition holds, without a thread.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = std::time::Instant::now();
    while !holds() {
        assert!(begin.elapsed() < common::PATIENCE, "timed out waiting until {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
