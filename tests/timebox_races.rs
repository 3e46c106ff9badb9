//! Work that ends about when its time is up: exactly one outcome each, never both, never neither.
//!
//! A million runs in a release build, two hundred thousand in a debug build; `HEELER_RACES` sets another number.
#![cfg(feature = "timebox")]

#[path = "common/mod.rs"]
mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use heeler::timebox::blocking;
use heeler::{Interrupted, checkpoint, timebox};
use tokio::sync::Notify;

use common::{PATIENCE, at_least, runtime};

/// Boxes that are open at the same time.
const AT_ONCE: u64 = 500;
/// What works are waiting for, each rung in its turn.
const BELLS: usize = 16;

fn runs() -> u64 {
    let chosen = std::env::var("HEELER_RACES").ok().and_then(|runs| runs.parse().ok());
    chosen.unwrap_or(if cfg!(debug_assertions) { 200_000 } else { 1_000_000 })
}

/// Everything that has happened.
#[derive(Debug, Default)]
struct Tally {
    values: AtomicU64,
    values_dropped: AtomicU64,
    works_dropped: AtomicU64,
    hooks: AtomicU64,
    ready: AtomicU64,
    interrupted: AtomicU64,
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What the work has produced: lost if it is dropped and nobody has got it.
struct Value(Arc<Tally>);

impl Value {
    fn new(tally: &Arc<Tally>) -> Self {
        add(&tally.values);
        Self(tally.clone())
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        add(&self.0.values_dropped);
    }
}

/// What the work holds while it goes on.
struct Held(Arc<Tally>, Arc<AtomicBool>);

impl Drop for Held {
    fn drop(&mut self) {
        add(&self.0.works_dropped);
        assert!(!self.1.swap(true, Ordering::SeqCst), "dropped twice");
    }
}

/// How a work ends by itself.
enum End {
    /// A timer of the runtime's.
    Timer(Duration),
    /// Another thread wakes it, for the second time.
    Bell,
    /// It wakes itself again and again until the moment is there.
    Busy(Duration),
}

async fn wait(end: End, bell: &Notify) {
    match end {
        End::Timer(duration) => tokio::time::sleep(duration).await,
        End::Bell => {
            bell.notified().await;
            bell.notified().await;
        }
        End::Busy(duration) => {
            let start = Instant::now();
            while start.elapsed() < duration {
                tokio::task::yield_now().await;
            }
        }
    }
}

async fn race(rng: &mut Rng, bell: &Notify, tally: &Arc<Tally>) {
    let limit = Duration::from_micros(rng.u64(1_000..3_000));
    // Around the limit, and more often after it, because the monitor may be two milliseconds late, and ready work wins.
    let about = (limit + Duration::from_micros(rng.u64(0..4_000))).saturating_sub(Duration::from_micros(500));
    let end = match rng.u8(..) {
        0..3 => End::Busy(about),
        3..120 => End::Timer(about),
        _ => End::Bell,
    };
    let (finished, dropped) = (AtomicBool::new(false), Arc::new(AtomicBool::new(false)));
    let held = Held(tally.clone(), dropped.clone());
    let seen = &finished;
    let work = async move {
        let _held = held;
        wait(end, bell).await;
        seen.store(true, Ordering::SeqCst);
        Value::new(&_held.0)
    };
    let hook = tally.clone();
    let result = timebox(limit, work).on_interrupt(move |_| add(&hook.hooks)).await;
    assert!(dropped.load(Ordering::SeqCst), "the work is not dropped yet");
    assert_eq!(result.is_ok(), finished.load(Ordering::SeqCst), "a value was lost or invented");
    match result {
        Ok(_) => add(&tally.ready),
        Err(error) => {
            assert!(error.limit() == limit && error.elapsed() >= limit, "{error}");
            add(&tally.interrupted);
        }
    }
}

/// Guards: many timeboxes at once on several workers, with work that ends by a timer, by another thread, or by itself.
#[test]
fn futures_end_by_timer_thread_or_themselves() {
    let (tally, runs) = (Arc::<Tally>::default(), runs());
    let bells: Arc<Vec<Notify>> = Arc::new((0..BELLS).map(|_| Notify::new()).collect());
    let over = Arc::new(AtomicBool::new(false));
    let ringer = {
        let (bells, over) = (bells.clone(), over.clone());
        std::thread::spawn(move || {
            for bell in bells.iter().cycle() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                bell.notify_waiters();
                std::thread::sleep(Duration::from_micros(50));
            }
        })
    };
    let runtime = runtime(4);
    let tasks: Vec<_> = (0..AT_ONCE)
        .map(|at| {
            let (tally, bells) = (tally.clone(), bells.clone());
            runtime.spawn(async move {
                let mut rng = Rng::with_seed(at);
                for _ in (at..runs).step_by(AT_ONCE as usize) {
                    race(&mut rng, &bells[at as usize % BELLS], &tally).await;
                }
            })
        })
        .collect();
    let all = runtime.block_on(async { tokio::time::timeout(PATIENCE * 10, futures::future::join_all(tasks)).await });
    over.store(true, Ordering::Relaxed);
    ringer.join().unwrap();
    for task in all.expect("a timebox had no outcome") {
        task.unwrap();
    }
    let get = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
    let (ready, interrupted) = (get(&tally.ready), get(&tally.interrupted));
    println!("{ready} ready, {interrupted} interrupted");
    assert_eq!(ready + interrupted, runs);
    assert_eq!((get(&tally.values), get(&tally.values_dropped)), (ready, ready));
    assert_eq!(get(&tally.works_dropped), runs);
    // A timebox whose work was ready first may have expired already. Its hook runs, too.
    assert!((interrupted..=runs).contains(&get(&tally.hooks)), "{tally:?}");
    assert!(ready > runs / 50 && interrupted > runs / 50, "no race: {ready} ready, {interrupted} interrupted");
}

/// Guards: in plain code on several threads, a checkpoint says what its timebox says, and never what another one does,
/// although rows are reused at once.
#[test]
fn checkpoints_agree_with_their_own_timebox() {
    let runs = runs() / 2_000;
    std::thread::scope(|scope| {
        for thread in 0..8 {
            scope.spawn(move || {
                let mut rng = Rng::with_seed(thread);
                for _ in 0..runs {
                    let limit = Duration::from_micros(rng.u64(500..1_500));
                    let about = limit + Duration::from_micros(rng.u64(0..3_000));
                    let start = Instant::now();
                    // The limit may pass before the closure is called: then it is not.
                    let (mut called, mut told) = (false, false);
                    let result = blocking(limit, || {
                        called = true;
                        while start.elapsed() < about {
                            if let Err(error) = checkpoint() {
                                told = true;
                                return Err(error);
                            }
                            std::thread::sleep(Duration::from_micros(100));
                        }
                        Ok::<_, Interrupted>(())
                    });
                    assert_eq!(result.is_err(), told || !called);
                    if let Err(error) = result {
                        assert!(error.limit() == limit && start.elapsed() >= at_least(limit), "{error}");
                    }
                    checkpoint().expect("outside any timebox");
                }
            });
        }
    });
}
