//! What interruptingcow documents, one row a module: its statement, our form for futures, our form for plain code.

use std::time::{Duration, Instant};

use heeler::timebox::blocking;
use heeler::{Interrupted, Quota, TimeboxExt, timebox};

use super::common::{FOREVER, at_least, at_most, ms};
use super::{Drops, SHORT, forever, run, work, work_for};

/// "Interrupts the block if it runs longer than so many seconds", and leaves it alone otherwise.
mod simple {
    use super::*;

    #[test]
    fn a_future_is_interrupted_at_its_limit() {
        run(async {
            let drops = Drops::default();
            let guard = drops.guard();
            let late = timebox(SHORT, async move {
                let _guard = guard;
                forever().await
            });
            let error = late.await.unwrap_err();
            assert_eq!(drops.count(), 1, "the interrupted work is dropped before the error is returned");
            assert_eq!((error.limit(), error.label()), (SHORT, None));
            assert!(error.elapsed() >= SHORT, "{error}");
            assert_eq!(forever().timebox(SHORT).await.unwrap_err().limit(), SHORT);

            assert_eq!(timebox(FOREVER, async { 7 }).await.unwrap(), 7);
            let suspends = async {
                tokio::task::yield_now().await;
                7
            };
            assert_eq!(suspends.timebox(FOREVER).await.unwrap(), 7);
        });
    }

    #[test]
    fn a_closure_is_interrupted_at_its_limit() {
        let error = blocking(SHORT, work).unwrap_err();
        assert_eq!((error.limit(), error.label()), (SHORT, None));
        assert!(error.elapsed() >= SHORT, "{error}");
        assert_eq!(blocking(FOREVER, || work_for(ms(2))).unwrap(), 7);
    }
}

/// "Raises the exception that you name."
mod exception {
    use super::*;

    #[derive(Debug, PartialEq)]
    enum Failure {
        TooSlow,
        After(Duration),
    }

    impl From<Interrupted> for Failure {
        fn from(interrupted: Interrupted) -> Self {
            Self::After(interrupted.limit())
        }
    }

    #[test]
    fn a_future_fails_with_the_given_error() {
        run(async {
            assert_eq!(forever().timebox(SHORT).or_err(Failure::TooSlow).await, Err(Failure::TooSlow));
            assert_eq!(forever().timebox(SHORT).map_err(Failure::from).await, Err(Failure::After(SHORT)));
            assert_eq!(async { 7 }.timebox(FOREVER).or_err(Failure::TooSlow).await, Ok(7));
        });
    }

    #[test]
    fn a_closure_fails_with_the_given_error() {
        assert_eq!(blocking::<(), Failure>(SHORT, || match work()? {}), Err(Failure::After(SHORT)));
        assert_eq!(
            blocking(FOREVER, || Err::<(), _>(Failure::TooSlow)),
            Err(Failure::TooSlow),
            "its own errors pass through"
        );
    }
}

/// "Can be used as a decorator": each call has the time.
mod decorator {
    use super::*;

    #[test]
    fn each_async_call_has_its_own_limit() {
        async fn fetch(photo: u32) -> u32 {
            if photo == 0 {
                forever().await;
            }
            photo
        }
        let fetch = heeler::timebox::function(ms(200), fetch);
        run(async {
            assert_eq!(fetch(7).await.unwrap(), 7);
            assert!(fetch(0).await.is_err());
            assert_eq!(fetch(8).await.unwrap(), 8, "the next call has a limit of its own");
        });
    }

    #[test]
    fn each_blocking_call_has_its_own_limit() {
        let fetch = |photo: u32| {
            blocking(ms(200), move || match photo {
                0 => match work()? {},
                photo => Ok::<_, Interrupted>(photo),
            })
        };
        assert_eq!(fetch(7).unwrap(), 7);
        assert!(fetch(0).is_err());
        assert_eq!(fetch(8).unwrap(), 8);
    }
}

/// "An inner timeout that is larger than what the outer has left does nothing", and the outer's exception is not caught by
/// the inner's handler.
mod larger_inner {
    use super::*;

    #[test]
    fn the_outer_timebox_interrupts_a_future() {
        run(async {
            let (drops, caught) = (Drops::default(), Drops::default());
            let (guard, handler) = (drops.guard(), &caught);
            let outer = timebox(SHORT, async move {
                let inner = timebox(FOREVER, async move {
                    let _guard = guard;
                    forever().await
                });
                if inner.label("inner").await.is_err() {
                    drop(handler.guard());
                }
            });
            let error = outer.label("outer").await.unwrap_err();
            assert!(error.is_from("outer") && !error.is_from("inner"), "{error}");
            assert_eq!((drops.count(), caught.count()), (1, 0), "all of it is dropped, and no inner handler runs");
        });
    }

    #[test]
    fn the_outer_timebox_interrupts_a_closure() {
        let mut handled = false;
        let outer = blocking(SHORT, || {
            let outer_limit = heeler::timebox::remaining().expect("inside a timebox");
            assert!(outer_limit <= SHORT);
            let inner: Result<(), Interrupted> = blocking(FOREVER, || match work()? {});
            match inner {
                // What an inner handler does: only its own is its business.
                Err(error) if error.limit() == FOREVER => handled = true,
                other => other?,
            }
            Ok::<_, Interrupted>(())
        });
        assert_eq!(outer.unwrap_err().limit(), SHORT);
        assert!(!handled, "a foreign interruption passes through the inner timebox");
    }
}

/// "The inner one is caught while the outer goes on", and "the outer's clock goes on": it is interrupted in its own time.
mod smaller_inner {
    use super::*;

    const OUTER: Duration = ms(150);

    #[test]
    fn futures_are_interrupted_each_in_its_time() {
        run(async {
            let start = Instant::now();
            let mut inner = None;
            let outer = timebox(OUTER, async {
                inner = timebox(SHORT, forever()).label("inner").await.err();
                forever().await
            });
            let error = outer.label("outer").await.unwrap_err();
            assert!(error.is_from("outer") && start.elapsed() >= at_least(OUTER), "{error}");
            let inner = inner.expect("the inner one was interrupted by itself");
            assert!(inner.is_from("inner") && inner.limit() == SHORT && inner.elapsed() < error.elapsed(), "{inner}");
        });
    }

    #[test]
    fn closures_are_interrupted_each_in_its_time() {
        let start = Instant::now();
        let mut inner = None;
        let outer: Result<(), Interrupted> = blocking(OUTER, || {
            inner = blocking(SHORT, work).err();
            match work()? {}
        });
        assert_eq!(outer.unwrap_err().limit(), OUTER);
        assert!(start.elapsed() >= at_least(OUTER));
        assert_eq!(inner.expect("the inner one was interrupted by itself").limit(), SHORT);
    }
}

/// "The outer's clock goes on after the inner ended": an inner box that ends in time gives its time not back.
mod after_the_inner {
    use super::*;

    const OUTER: Duration = ms(80);
    const TURN: Duration = ms(10);

    #[test]
    fn inner_futures_do_not_extend_the_outer_limit() {
        run(async {
            let mut turns = 0;
            let outer = timebox(OUTER, async {
                loop {
                    // As large as the outer one was in the beginning: it does nothing.
                    if tokio::time::sleep(TURN).timebox(OUTER).await.is_ok() {
                        turns += 1;
                    }
                }
            });
            let error: Interrupted = outer.await.unwrap_err();
            assert_eq!(error.limit(), OUTER);
            assert!(TURN * turns <= at_most(error.elapsed()), "{turns} turns: {error}");
        });
    }

    #[test]
    fn inner_closures_do_not_extend_the_outer_limit() {
        let mut turns = 0;
        let outer: Result<(), Interrupted> = blocking(OUTER, || {
            loop {
                blocking(OUTER, || work_for(TURN))?;
                turns += 1;
            }
        });
        let error = outer.unwrap_err();
        assert!(TURN * turns <= at_most(error.elapsed()), "{turns} turns: {error}");
    }
}

/// "A quota is shared by many timeouts, as in a loop": its sum counts, and nothing of what is between.
mod quota_in_a_loop {
    use super::*;

    const TOTAL: Duration = ms(60);

    #[test]
    fn futures_spend_the_quota_only_inside() {
        run(async {
            let quota = Quota::new(TOTAL).unwrap();
            let (mut inside, mut turns) = (Duration::ZERO, 0);
            loop {
                let before = quota.remaining();
                assert!(!quota.running());
                tokio::time::sleep(ms(5)).await;
                assert_eq!(quota.remaining(), before, "nothing is spent between the timeboxes");
                let start = Instant::now();
                let turn = async {
                    assert!(quota.running());
                    tokio::time::sleep(ms(10)).await;
                };
                let result = timebox(&quota, turn).await;
                inside += start.elapsed();
                let spent = TOTAL.saturating_sub(quota.remaining());
                assert!(spent <= at_most(inside), "spent {spent:?} in {inside:?}");
                if let Err(error) = result {
                    assert!(error.limit() <= before);
                    break;
                }
                turns += 1;
                assert!(turns <= 6, "ten milliseconds or more each, of sixty");
            }
            assert!(quota.remaining().is_zero() && inside >= at_least(TOTAL));
        });
    }

    #[test]
    fn closures_spend_the_quota_only_inside() {
        let quota = Quota::new(TOTAL).unwrap();
        let (mut inside, mut turns) = (Duration::ZERO, 0);
        loop {
            let before = quota.remaining();
            std::thread::sleep(ms(5));
            assert_eq!(quota.remaining(), before, "nothing is spent between the timeboxes");
            let start = Instant::now();
            let result = blocking(&quota, || {
                assert!(quota.running());
                work_for(ms(10))
            });
            inside += start.elapsed();
            if result.is_err() {
                break;
            }
            turns += 1;
            assert!(turns <= 6, "ten milliseconds or more each, of sixty");
        }
        assert!(quota.remaining().is_zero() && inside >= at_least(TOTAL));
    }
}

/// "Nested uses of a quota count once."
mod quota_nested {
    use super::*;

    const TOTAL: Duration = FOREVER;
    const NAP: Duration = ms(30);

    #[track_caller]
    fn spent_once(quota: &Quota, elapsed: Duration) {
        let spent = quota.total() - quota.remaining();
        assert!(!quota.running());
        assert!((at_least(NAP)..=at_most(elapsed)).contains(&spent), "spent {spent:?} in {elapsed:?}");
    }

    #[test]
    fn nested_futures_spend_the_quota_once() {
        run(async {
            let quota = Quota::new(TOTAL).unwrap();
            let start = Instant::now();
            let nap = tokio::time::sleep(NAP).timebox(&quota).timebox(&quota);
            timebox(&quota, nap).await.unwrap().unwrap().unwrap();
            spent_once(&quota, start.elapsed());
        });
    }

    #[test]
    fn concurrent_futures_spend_the_quota_once() {
        run(async {
            let quota = Quota::new(TOTAL).unwrap();
            let start = Instant::now();
            let naps = (0..10).map(|_| heeler::spawn(tokio::time::sleep(NAP).timebox(&quota)));
            for nap in futures::future::join_all(naps).await {
                nap.unwrap().unwrap();
            }
            spent_once(&quota, start.elapsed());
        });
    }

    #[test]
    fn nested_closures_spend_the_quota_once() {
        let quota = Quota::new(TOTAL).unwrap();
        let start = Instant::now();
        blocking(&quota, || blocking(&quota, || work_for(NAP))).unwrap();
        spent_once(&quota, start.elapsed());
    }

    /// Guards: both have the same deadline, to the nanosecond, and so the inner one does nothing.
    #[test]
    fn the_outer_of_two_equal_uses_interrupts() {
        run(async {
            let quota = Quota::new(SHORT).unwrap();
            let mut caught = false;
            let outer = timebox(&quota, async {
                caught = timebox(&quota, forever()).label("inner").await.is_err();
            });
            let error = outer.label("outer").await.unwrap_err();
            assert!(error.is_from("outer") && !caught, "{error}");
        });
    }

    /// Guards: a timebox that does nothing, because the one around it ends sooner, still spends its quota until it is
    /// dropped.
    #[test]
    fn a_quota_is_spent_in_a_smaller_timebox_too() {
        run(async {
            let quota = Quota::new(TOTAL).unwrap();
            let start = Instant::now();
            timebox(NAP, timebox(&quota, forever())).await.unwrap_err();
            spent_once(&quota, start.elapsed());
        });
    }
}

/// "Counted only while a timeout is running": from the first poll until the outcome, or until it is dropped.
mod quota_while_running {
    use super::*;

    #[test]
    fn a_future_runs_from_first_poll_to_outcome() {
        run(async {
            for around in [FOREVER, ms(2_000)] {
                // Once with an effect of its own, and once inside a timebox that ends sooner.
                let quota = Quota::new(FOREVER / 2).unwrap();
                let within = async {
                    let mut ready = Box::pin(tokio::task::yield_now().timebox(&quota));
                    assert!(!quota.running(), "it has not been polled");
                    assert!(futures::poll!(&mut ready).is_pending());
                    assert!(quota.running());
                    ready.as_mut().await.unwrap();
                    assert!(!quota.running(), "it has an outcome, although it is still there");
                    let mut dropped = Box::pin(forever().timebox(&quota));
                    assert!(futures::poll!(&mut dropped).is_pending());
                    assert!(quota.running());
                    drop((ready, dropped));
                    assert!(!quota.running());
                };
                within.timebox(around).await.unwrap();
            }
            let quota = Quota::new(SHORT).unwrap();
            let mut late = Box::pin(forever().timebox(&quota));
            late.as_mut().await.unwrap_err();
            assert!(!quota.running(), "it was interrupted, although it is still there");
        });
    }

    #[test]
    fn a_closure_runs_until_it_returns_or_panics() {
        let quota = Quota::new(FOREVER).unwrap();
        assert!(blocking(&quota, || Ok::<_, Interrupted>(quota.running())).unwrap());
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            blocking(&quota, || -> Result<(), Interrupted> { panic!("on purpose") })
        }));
        assert!(panicked.is_err() && !quota.running());
    }
}

/// "When the quota is exhausted, the exception is raised at once."
mod quota_exhausted {
    use super::*;

    fn exhausted() -> Quota {
        let quota = Quota::new(Duration::from_nanos(1)).unwrap();
        let spent: Result<(), Interrupted> = blocking(&quota, || match work()? {});
        assert!(spent.is_err());
        assert!(quota.remaining().is_zero() && !quota.running());
        quota
    }

    #[test]
    fn an_exhausted_quota_allows_a_future_one_poll() {
        run(async {
            let quota = exhausted();
            let mut began = false;
            let late = timebox(&quota, async {
                began = true;
                forever().await
            });
            assert_eq!(late.await.unwrap_err().limit(), Duration::ZERO);
            assert!(began, "it is polled once");
            assert_eq!(timebox(&quota, async { 7 }).await.unwrap(), 7, "what is ready at once wins");
            assert!(!quota.running());
        });
    }

    #[test]
    fn an_exhausted_quota_fails_the_first_checkpoint() {
        let quota = exhausted();
        let mut passed = 0;
        let late: Result<(), Interrupted> = blocking(&quota, || {
            loop {
                heeler::checkpoint()?;
                passed += 1;
            }
        });
        assert_eq!(late.unwrap_err().limit(), Duration::ZERO);
        assert_eq!(passed, 0, "the first checkpoint says so");
    }
}

/// "Seconds must be more than zero", for a quota.
#[test]
fn a_quota_of_zero_is_an_error() {
    let error = Quota::new(Duration::ZERO).unwrap_err();
    assert!(error.is_quota(), "{error}");
}
