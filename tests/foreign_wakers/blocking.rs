//! Wakers that block, or panic.
#![allow(unsafe_code, reason = "a waker whose clones and drops are seen")]

use std::future::{pending, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Wake, Waker};
use std::time::{Duration, Instant};

use heeler::{Interrupted, metrics};

use super::common::{FOREVER, PATIENCE, alone, ms, until};

/// Whether the monitor tells a box that its time is up.
#[track_caller]
pub(crate) fn assert_boxes_expire() {
    let elsewhere = std::thread::spawn(|| {
        let began = Instant::now();
        heeler::timebox::blocking(ms(20), || {
            while began.elapsed() < PATIENCE {
                heeler::checkpoint()?;
                std::thread::sleep(Duration::from_micros(200));
            }
            Ok::<_, Interrupted>(())
        })
    });
    assert!(elsewhere.join().unwrap().is_err(), "the monitor is blocked");
}

/// An executor that takes the same lock to wake as it holds while it polls.
#[derive(Default)]
struct Locked {
    queue: Mutex<()>,
    woken: AtomicUsize,
}

impl Wake for Locked {
    fn wake(self: Arc<Self>) {
        let _queue = self.queue.lock().unwrap();
        self.woken.fetch_add(1, Ordering::SeqCst);
    }
}

/// Guards: if a wake blocks until the poll ends, timeboxes elsewhere expire meanwhile, and other tasks are woken.
#[test]
fn a_wake_that_blocks_delays_nobody() {
    let _guard = alone();
    let executor = Arc::new(Locked::default());
    let waker = Waker::from(executor.clone());
    let mut polls = 0;
    let mut job = pin!(heeler::watch(
        "job",
        ms(50),
        poll_fn(|_| {
            polls += 1;
            if polls == 1 {
                return Poll::<()>::Pending;
            }
            until("its wake blocks", || metrics().wakes.blocked == 1);
            assert_boxes_expire();
            assert_others_are_woken();
            assert_eq!((metrics().wakes.blocked, metrics().wakes.waiting), (1, 0));
            Poll::Ready(())
        })
    ));
    for _ in 0..2 {
        let _queue = executor.queue.lock().unwrap();
        let _ = job.as_mut().poll(&mut Context::from_waker(&waker));
    }
    until("its wake returns", || metrics().wakes.blocked == 0);
    assert!(executor.woken.load(Ordering::SeqCst) > 0);
}

#[track_caller]
fn assert_others_are_woken() {
    let free = Arc::new(Locked::default());
    let waker = Waker::from(free.clone());
    let mut work = pin!(heeler::timebox(ms(20), pending::<()>()));
    assert!(work.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    until("another task is woken", || free.woken.load(Ordering::SeqCst) > 0);
    assert!(matches!(work.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Ready(Err(_))));
}

/// Guards: at most eight threads wake tasks. Wakes beyond that are counted, and done when one of the threads returns.
/// Timeboxes that need no waker are interrupted all the same.
#[test]
fn wakes_beyond_the_threads_are_counted_and_done_later() {
    let _guard = alone();
    let executors: Vec<Arc<Locked>> = (0..12).map(|_| Arc::default()).collect();
    let slow = metrics().wakes.slow;
    let blocked: Vec<MutexGuard<'_, ()>> = executors.iter().map(|executor| executor.queue.lock().unwrap()).collect();
    let mut works: Vec<_> = executors.iter().map(|_| Box::pin(heeler::timebox(ms(20), pending::<()>()))).collect();
    for (work, executor) in works.iter_mut().zip(&executors) {
        let waker = Waker::from(executor.clone());
        assert!(work.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    until("eight wakes block, and four wait", || (metrics().wakes.blocked, metrics().wakes.waiting) == (8, 4));
    assert_boxes_expire();
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let names = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("comm")).ok());
    let wakers = names.filter(|name| name.trim() == "heeler-waker").count();
    assert!(wakers <= 8, "{wakers} threads wake");
    drop(blocked);
    until("all wakes return", || metrics().wakes.blocked + metrics().wakes.waiting == 0);
    assert!(executors.iter().all(|executor| executor.woken.load(Ordering::SeqCst) == 1));
    assert!(metrics().wakes.slow >= slow + 8);
}

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        // Past the hook, which would walk and name the stack twenty times where backtraces are asked for.
        std::panic::resume_unwind(Box::new("expected: the scheduler is gone"));
    }
}

/// Guards: a waker that panics ends nothing else.
#[test]
fn a_wake_that_panics_is_survived() {
    let _guard = alone();
    let waker = Waker::from(Arc::new(Panics));
    let mut works: Vec<_> = (0..20).map(|_| Box::pin(heeler::timebox(ms(20), pending::<()>()))).collect();
    for work in &mut works {
        assert!(work.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    assert_others_are_woken();
    assert_boxes_expire();
}

/// What was done with a waker, and on which thread.
static SEEN: Mutex<Vec<(&str, String)>> = Mutex::new(Vec::new());
/// Cloning and dropping wait for this to be false, except on the thread that polls.
static STUCK: AtomicBool = AtomicBool::new(false);

fn see(what: &'static str) {
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    let is_own = name.starts_with("poller");
    SEEN.lock().unwrap().push((what, name));
    while !is_own && STUCK.load(Ordering::SeqCst) {
        std::thread::sleep(ms(1));
    }
}

static WATCHED: RawWakerVTable = RawWakerVTable::new(
    |data| {
        see("clone");
        RawWaker::new(data, &WATCHED)
    },
    |_| see("wake"),
    |_| see("wake"),
    |_| see("drop"),
);

/// Guards: a waker is cloned by the thread that polls, woken by a thread that does nothing else, and dropped by one of the
/// two. However it blocks there, the monitor goes on.
#[test]
fn the_monitor_touches_no_waker() {
    let _guard = alone();
    STUCK.store(true, Ordering::SeqCst);
    let poller = std::thread::Builder::new().name("poller".into()).spawn(|| {
        // SAFETY: the functions of the table do not look at the data.
        let waker = unsafe { Waker::from_raw(RawWaker::new(std::ptr::null(), &WATCHED)) };
        let mut cx = Context::from_waker(&waker);
        let mut job = pin!(heeler::watch("job", ms(60), heeler::timebox(FOREVER, pending::<()>())));
        let mut boxed = pin!(heeler::timebox(ms(60), heeler::watch("other", ms(30), pending::<()>())));
        let began = Instant::now();
        while began.elapsed() < ms(600) {
            let _ = job.as_mut().poll(&mut cx);
            if boxed.as_mut().poll(&mut cx).is_ready() {
                boxed.set(heeler::timebox(ms(60), heeler::watch("other", ms(30), pending::<()>())));
            }
            std::thread::sleep(ms(2));
        }
    });
    poller.unwrap().join().unwrap();
    assert_boxes_expire();
    STUCK.store(false, Ordering::SeqCst);
    until("all wakes return", || metrics().wakes.blocked + metrics().wakes.waiting == 0);
    let seen = SEEN.lock().unwrap();
    assert!(seen.iter().any(|(what, _)| *what == "wake"), "nobody was woken");
    for (what, thread) in seen.iter() {
        let allowed = thread == "poller" || thread == "heeler-waker" && *what != "clone";
        assert!(allowed, "{what} on {thread}");
    }
}
