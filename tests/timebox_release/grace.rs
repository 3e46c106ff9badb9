//! Two stages: told at the limit, dropped after the grace.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use heeler::TimeboxExt as _;
use heeler::timebox::{self, interrupted};

use crate::common::{FOREVER, ms, runtime};

const LIMIT: Duration = ms(10);

struct Dropped(Arc<AtomicBool>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Guards: work that ends by itself once it is told has its value returned, however it was told, and even several levels
/// deep.
#[test]
fn work_that_ends_by_itself_returns_its_value() {
    runtime(0).block_on(async {
        // By `interrupted`, in a select with what it does.
        let work = async {
            tokio::select! {
                () = std::future::pending::<()>() => unreachable!(),
                told = interrupted() => {
                    // Still inside the timebox, with time to clean up.
                    assert!(heeler::checkpoint().is_err());
                    tokio::time::sleep(ms(3)).await;
                    told
                }
            }
        };
        let told = work.timebox(LIMIT).label("tidy").grace(FOREVER).await.expect("it has ended by itself");
        assert!(told.is_from("tidy") && told.limit() == LIMIT && told.elapsed() >= LIMIT);

        // By a checkpoint between its awaits.
        let work = async {
            let mut rounds = 0;
            while heeler::checkpoint().is_ok() {
                tokio::time::sleep(ms(1)).await;
                rounds += 1;
            }
            rounds
        };
        assert!(work.timebox(LIMIT).grace(FOREVER).await.expect("it has ended by itself") > 0);

        // By a checkpoint in a poll that does not end.
        let work = async {
            while heeler::checkpoint().is_ok() {
                std::thread::sleep(ms(1));
            }
            7
        };
        assert_eq!(work.timebox(LIMIT).grace(FOREVER).await.expect("it has ended by itself"), 7);

        // Told by no one: its value is a value all the same.
        let work = async {
            tokio::time::sleep(3 * LIMIT).await;
            7
        };
        assert_eq!(work.timebox(LIMIT).grace(FOREVER).await.expect("it has ended by itself"), 7);
    });
}

/// Guards: work that does not end within its grace is dropped, and not before.
#[test]
fn work_that_does_not_end_is_dropped() {
    runtime(0).block_on(async {
        let (told, dropped) = (AtomicBool::new(false), Arc::new(AtomicBool::new(false)));
        let work = async {
            let _dropped = Dropped(dropped.clone());
            interrupted().await;
            assert!(!dropped.load(Ordering::Relaxed));
            told.store(true, Ordering::Relaxed);
            std::future::pending::<()>().await;
        };
        let error = work.timebox(LIMIT).grace(2 * LIMIT).await.unwrap_err();
        assert!(told.into_inner() && dropped.load(Ordering::Relaxed));
        assert_eq!(error.limit(), LIMIT);
        assert!(error.elapsed() >= 3 * LIMIT, "{error:?}");
    });
}

/// Guards: without a grace, work is dropped in the poll that tells it. Outside any timebox nobody is told anything.
#[test]
fn without_a_grace_it_is_dropped_at_once() {
    runtime(0).block_on(async {
        let never = async {
            interrupted().await;
            std::future::pending::<()>().await;
        };
        assert!(never.timebox(LIMIT).await.is_err());
        // Polled once more at the limit: `interrupted` is ready then, and what is ready wins.
        assert!(interrupted().timebox(LIMIT).await.is_ok());
        assert!(futures::poll!(std::pin::pin!(interrupted())).is_pending());
    });
}

/// Guards: work of several steps that checks between them ends between them, never in the middle of one.
#[test]
fn work_ends_only_between_its_steps() {
    crate::interrupt_often(8, |run| async move {
        let mut steps = (0, 0);
        let work = async {
            for step in 0..3 {
                if heeler::checkpoint().is_err() {
                    return false;
                }
                steps.0 += 1;
                match step {
                    0 => run.before().await,
                    _ => run.holding().await,
                }
                steps.1 += 1;
            }
            true
        };
        let completed = work.timebox(run.limit).grace(FOREVER).await.expect("within its grace");
        assert_eq!(steps.0, steps.1, "dropped in the middle of a step");
        assert!(timebox::remaining().is_none());
        completed
    });
}
