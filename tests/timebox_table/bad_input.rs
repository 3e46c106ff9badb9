//! Limits that are none, calls in the wrong place, and other people's panics.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use heeler::timebox::{blocking, deadline, remaining};
use heeler::{Interrupted, checkpoint, timebox};

use super::common::{FOREVER, ms};
use super::{Drops, SHORT, forever, run, work};

/// Guards: with a limit of zero, a future gets one poll, and a closure is not called.
#[test]
fn a_limit_of_zero_allows_one_poll() {
    run(async {
        assert_eq!(timebox(Duration::ZERO, async { 7 }).await.unwrap(), 7);
        let mut began = false;
        let late = timebox(Duration::ZERO, async {
            began = true;
            checkpoint().unwrap_err();
            assert_eq!(remaining(), Some(Duration::ZERO));
            forever().await
        });
        assert_eq!(late.await.unwrap_err().limit(), Duration::ZERO);
        assert!(began);
    });
    let mut began = false;
    let plain = blocking(Duration::ZERO, || {
        began = true;
        Ok::<_, Interrupted>(())
    });
    assert_eq!(plain.unwrap_err().limit(), Duration::ZERO);
    assert!(!began, "a closure is not called");
}

/// Guards: the largest limit never expires, and nothing overflows on the way.
#[test]
fn the_largest_limit_never_expires() {
    for limit in [Duration::MAX, Duration::MAX - Duration::from_nanos(1), Duration::from_secs(u64::MAX / 2)] {
        run(async {
            let nap = async {
                checkpoint().unwrap();
                let left = remaining().is_none_or(|left| left > FOREVER);
                tokio::time::sleep(ms(5)).await;
                checkpoint().unwrap();
                left && deadline().is_none_or(|deadline| deadline > Instant::now() + FOREVER)
            };
            assert!(timebox(limit, nap).grace(Duration::MAX).await.unwrap(), "{limit:?}");
            // It does not affect a smaller one, inside or around it.
            timebox(limit, timebox(SHORT, forever())).await.unwrap().unwrap_err();
            timebox(SHORT, timebox(limit, forever())).await.unwrap_err();
        });
        blocking(limit, checkpoint).unwrap();
    }
}

/// Guards: a deadline in the past leaves no time at all. One in the far future never expires.
#[test]
fn past_deadlines_expire_and_far_ones_never_do() {
    run(async {
        let now = Instant::now();
        let past = now.checked_sub(ms(100)).unwrap_or(now);
        assert_eq!(timebox(past, async { 7 }).await.unwrap(), 7);
        timebox(past, forever()).await.unwrap_err();
        assert!(blocking(past, checkpoint).is_err());

        let soon = Instant::now() + SHORT;
        timebox(soon, forever()).await.unwrap_err();
        assert!(Instant::now() >= soon);

        for years in [1, 1_000, 1_000_000] {
            let Some(far) = Instant::now().checked_add(Duration::from_secs(years * 365 * 86_400)) else { continue };
            let nap = async {
                tokio::time::sleep(ms(2)).await;
                (checkpoint(), deadline())
            };
            let (checked, seen) = timebox(far, nap).await.unwrap();
            checked.unwrap();
            assert!(seen.is_none_or(|seen| seen > now + FOREVER), "{seen:?}");
        }
    });
}

/// Guards: `deadline` and `remaining` refer to the same moment.
#[test]
fn deadline_and_remaining_time_agree() {
    run(async {
        let start = Instant::now();
        timebox(FOREVER, async {
            let inside = Instant::now();
            let (left, until) = (remaining().unwrap(), deadline().unwrap());
            assert!(left <= FOREVER);
            // Two clocks are compared here.
            assert!(until + ms(1) >= start + FOREVER && until <= inside + FOREVER + ms(1), "{until:?}");
        })
        .await
        .unwrap();
    });
}

/// Guards: code that may be called inside a timebox or outside.
#[test]
fn outside_any_timebox_there_is_no_limit() {
    checkpoint().unwrap();
    assert_eq!((remaining(), deadline()), (None, None));
    blocking(FOREVER, checkpoint).unwrap();
    assert_eq!((remaining(), deadline()), (None, None));
    run(timebox(FOREVER, async {})).unwrap();
    assert_eq!((remaining(), deadline()), (None, None));
}

/// Guards: a future that is polled after it was ready never pretends to be ready, or to be interrupted, a second time.
#[test]
fn a_finished_future_is_never_ready_again() {
    run(async {
        for interrupted in [false, true] {
            let mut future = Box::pin(timebox(if interrupted { SHORT } else { FOREVER }, async move {
                if interrupted {
                    forever().await;
                }
            }));
            assert_eq!(future.as_mut().await.is_err(), interrupted);
            let again = AssertUnwindSafe(async { futures::poll!(&mut future).is_ready() }).catch_unwind().await;
            assert!(!again.unwrap_or(false), "ready twice");
        }
    });
}

fn panics<T>(future: impl Future<Output = T>) -> String {
    let panicked = run(AssertUnwindSafe(future).catch_unwind());
    let Err(panic) = panicked else { panic!("it did not panic") };
    (*panic.downcast::<&str>().expect("a message")).to_owned()
}

/// Guards: a panic of the work goes where it would go without a timebox. The timebox is closed, and the thread is outside it.
#[test]
fn a_panic_of_the_work_closes_the_timebox() {
    let drops = Drops::default();
    let guard = drops.guard();
    let future = timebox(FOREVER, async move {
        let _guard = guard;
        tokio::task::yield_now().await;
        panic!("the work's")
    });
    assert_eq!(panics::<Result<(), _>>(future), "the work's");
    assert_eq!(drops.count(), 1);
    let plain = catch_unwind(|| blocking(FOREVER, || -> Result<(), Interrupted> { panic!("the closure's") }));
    assert_eq!(plain.unwrap_err().downcast_ref(), Some(&"the closure's"));
    assert_eq!(remaining(), None);
    checkpoint().unwrap();
}

/// Guards: so does a panic of a function that turns the interruption into something else. The work is dropped before.
#[test]
fn a_panic_of_map_reaches_the_caller() {
    let drops = Drops::default();
    let guard = drops.guard();
    let work = async move {
        let _guard = guard;
        forever().await
    };
    let mapped = timebox(SHORT, work).map_err(|_| -> Interrupted { panic!("the map's") });
    assert_eq!(panics(mapped), "the map's");
    assert_eq!((drops.count(), remaining()), (1, None));
    run(timebox(SHORT, forever())).unwrap_err();
}

/// Guards: if a destructor of the interrupted work panics, the timebox ends all the same, and its hook runs.
#[test]
fn a_panic_of_a_destructor_ends_the_timebox() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                panic!("the destructor's");
            }
        }
    }
    let told = Arc::new(AtomicUsize::new(0));
    let hook = told.clone();
    let work = async {
        let _bomb = Bomb;
        forever().await
    };
    let future = timebox(SHORT, work).on_interrupt(move |_| {
        hook.fetch_add(1, Ordering::SeqCst);
    });
    assert_eq!(panics(future), "the destructor's");
    assert_eq!((told.load(Ordering::SeqCst), remaining()), (1, None));
    run(timebox(SHORT, forever())).unwrap_err();
}

/// Guards: a hook that panics neither ends the process nor leaves the timebox open. Whether its panic is passed on or caught,
/// the work was dropped before.
#[test]
fn a_panic_of_a_hook_closes_the_timebox() {
    let drops = Drops::default();
    for work_panics in [false, true] {
        let guard = drops.guard();
        let work = async move {
            let _guard = guard;
            if work_panics {
                while checkpoint().is_ok() {
                    tokio::task::yield_now().await;
                }
                panic!("the work's");
            }
            forever().await
        };
        let future = timebox(SHORT, work).on_interrupt(|_| panic!("the hook's"));
        let result = run(AssertUnwindSafe(future).catch_unwind());
        assert!(result.is_err() || result.is_ok_and(|result| result.is_err()), "interrupted, or a panic");
        assert_eq!(remaining(), None);
    }
    assert_eq!(drops.count(), 2);
    run(timebox(SHORT, forever())).unwrap_err();
}

/// Guards: a timebox that is opened in a destructor works while the thread panics, or while another timebox is being
/// interrupted.
#[test]
fn timeboxes_work_inside_destructors() {
    struct Opens(Arc<AtomicUsize>);
    impl Drop for Opens {
        fn drop(&mut self) {
            let inner: Result<(), Interrupted> = blocking(SHORT, || match work()? {});
            if inner.is_err() {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
    let ran = Arc::new(AtomicUsize::new(0));
    let opens = Opens(ran.clone());
    let work = async move {
        let _opens = opens;
        forever().await
    };
    run(timebox(SHORT, work)).unwrap_err();
    assert_eq!(ran.load(Ordering::SeqCst), 1);
    let opens = Opens(ran.clone());
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _opens = opens;
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    assert_eq!(ran.load(Ordering::SeqCst), 2);
}
