//! `on_interrupt`: once, after the work, whatever that does.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::FutureExt as _;
use heeler::timebox::{self, Interrupted, Limit, Timebox, TimeboxExt as _, interrupted};

use crate::common::{FOREVER, ms, runtime};

/// How often a hook was called, and whether the work was gone by then.
#[derive(Debug, Clone, Default)]
struct Calls {
    calls: Arc<AtomicUsize>,
    work_is_gone: Arc<AtomicBool>,
}

struct Work(Calls);

impl Drop for Work {
    fn drop(&mut self) {
        self.0.work_is_gone.store(true, Ordering::SeqCst);
    }
}

impl Calls {
    fn hook(&self) -> impl FnOnce(&Interrupted) + Send + 'static {
        let this = self.clone();
        move |interrupted| {
            assert!(interrupted.is_from("hooked"));
            assert!(this.work_is_gone.load(Ordering::SeqCst), "the hook ran before the work was dropped");
            this.calls.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// For the work to hold.
    fn work(&self) -> Work {
        Work(self.clone())
    }

    #[track_caller]
    fn were(&self, calls: usize) {
        assert_eq!(self.calls.load(Ordering::SeqCst), calls);
    }
}

/// A box of 5 ms with a hook, around what the closure makes.
fn hooked<F: Future>(calls: &Calls, work: impl FnOnce(Work) -> F) -> Timebox<F> {
    work(calls.work()).timebox(ms(5)).label("hooked").on_interrupt(calls.hook())
}

struct Panics;

impl Drop for Panics {
    fn drop(&mut self) {
        resume_unwind(Box::new("in a destructor"));
    }
}

/// Guards: the hook runs once, for each way in which a timebox that has expired can end.
#[test]
fn a_hook_runs_once_however_the_work_ends() {
    runtime(0).block_on(async {
        // Dropped.
        let calls = Calls::default();
        hooked(&calls, |work| async move {
            let _work = work;
            std::future::pending::<()>().await;
        })
        .await
        .unwrap_err();
        calls.were(1);

        // Ended by itself in its grace.
        let calls = Calls::default();
        hooked(&calls, |work| async move {
            let _work = work;
            interrupted().await;
        })
        .grace(FOREVER)
        .await
        .unwrap();
        calls.were(1);

        // Ended by itself, ready in the same poll.
        let calls = Calls::default();
        hooked(&calls, |work| async move {
            let _work = work;
            while heeler::checkpoint().is_ok() {
                std::thread::sleep(ms(1));
            }
        })
        .await
        .unwrap();
        calls.were(1);

        // Panicked when it was told.
        let calls = Calls::default();
        let boxed = hooked(&calls, |work| async move {
            let _work = work;
            interrupted().await;
            resume_unwind(Box::new("told"));
        })
        .grace(FOREVER);
        assert!(AssertUnwindSafe(boxed).catch_unwind().await.is_err());
        calls.were(1);

        // Panicked in the middle of a poll that the limit passed in.
        let calls = Calls::default();
        let boxed = hooked(&calls, |work| async move {
            let _work = work;
            while heeler::checkpoint().is_ok() {
                std::thread::sleep(ms(1));
            }
            resume_unwind(Box::new("late"));
        });
        assert!(AssertUnwindSafe(boxed).catch_unwind().await.is_err());
        calls.were(1);

        // A destructor panicked as it was dropped.
        let calls = Calls::default();
        let boxed = hooked(&calls, |work| async move {
            let _work = work;
            let _panics = Panics;
            std::future::pending::<()>().await;
        });
        assert!(AssertUnwindSafe(boxed).catch_unwind().await.is_err());
        calls.were(1);

        // Dropped from outside, after its limit, in its grace.
        let (calls, told) = (Calls::default(), tokio::sync::Notify::new());
        let boxed = hooked(&calls, |work| async {
            let _work = work;
            interrupted().await;
            told.notify_one();
            std::future::pending::<()>().await;
        });
        let mut boxed = Box::pin(boxed.grace(FOREVER));
        tokio::select! {
            _ = boxed.as_mut() => panic!("within its grace"),
            () = told.notified() => {}
        }
        calls.were(0);
        drop(boxed);
        calls.were(1);
    });
}

/// Guards: the hook never runs for a timebox that has not expired.
#[test]
fn a_hook_never_runs_for_work_in_time() {
    runtime(0).block_on(async {
        let hooked = |calls: &Calls| Limit::from(FOREVER).label("hooked").on_interrupt(calls.hook());
        let calls = Calls::default();
        async {}.timebox(hooked(&calls)).await.unwrap();
        // Panicked.
        let boxed = async { resume_unwind(Box::new("early")) }.timebox(hooked(&calls));
        assert!(AssertUnwindSafe(boxed).catch_unwind().await.is_err());
        // Dropped, after its first poll and before it.
        let mut boxed = Box::pin(std::future::pending::<()>().timebox(hooked(&calls)));
        assert!(futures::poll!(boxed.as_mut()).is_pending());
        drop(boxed);
        drop(std::future::pending::<()>().timebox(hooked(&calls)));
        timebox::blocking(hooked(&calls), || Ok::<(), Interrupted>(())).unwrap();
        calls.were(0);
    });
}

/// Guards: the same in plain code, including panics.
#[test]
fn a_hook_runs_once_in_plain_code() {
    let limit = |calls: &Calls| Limit::from(ms(5)).label("hooked").on_interrupt(calls.hook());
    let late = |calls: &Calls| {
        let _work = calls.work();
        while heeler::checkpoint().is_ok() {
            std::thread::sleep(ms(1));
        }
    };

    let calls = Calls::default();
    timebox::blocking(limit(&calls), || {
        late(&calls);
        heeler::checkpoint()
    })
    .unwrap_err();
    calls.were(1);

    let calls = Calls::default();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        timebox::blocking(limit(&calls), || -> Result<(), Interrupted> {
            late(&calls);
            resume_unwind(Box::new("late"))
        })
    }));
    assert!(panicked.is_err());
    calls.were(1);
    assert!(timebox::remaining().is_none());
}

/// Guards: a hook that panics does no harm. The error is the timebox's.
#[test]
fn a_panic_in_a_hook_is_caught() {
    runtime(0).block_on(async {
        let boxed = std::future::pending::<()>().timebox(ms(5)).on_interrupt(|_| resume_unwind(Box::new("in a hook")));
        assert_eq!(boxed.await.unwrap_err().limit(), ms(5));
        // While its work panics, too: a second panic then would end the process.
        let boxed = async {
            interrupted().await;
            resume_unwind(Box::new("in the work"));
        }
        .timebox(ms(5))
        .grace(FOREVER)
        .on_interrupt(|_| resume_unwind(Box::new("in a hook")));
        assert!(AssertUnwindSafe(boxed).catch_unwind().await.is_err());
    });
}

/// Guards: the hook runs exactly once for each of a thousand interruptions at random moments, and at most once for work that
/// was completed.
#[test]
fn a_hook_runs_once_for_each_interruption() {
    crate::interrupt_often(8, |run| async move {
        let calls = Calls::default();
        let boxed = async {
            let _work = calls.work();
            run.before().await;
            run.holding().await;
        }
        .timebox(run.limit)
        .label("hooked")
        .on_interrupt(calls.hook());
        let completed = boxed.await.is_ok();
        match calls.calls.load(Ordering::SeqCst) {
            1 => {}
            0 => assert!(completed),
            more => panic!("{more} calls"),
        }
        completed
    });
}
