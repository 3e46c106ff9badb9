//! Wherever the future is polled: every runtime and none, sets of futures, tasks that hand it on, budgets that run out.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use heeler::timebox::Limit;
use heeler::{Interrupted, TimeboxExt, checkpoint, timebox};

use super::common::{FOREVER, PATIENCE, alone, at_least, beside_others, ms, runtime, until};
use super::{Drops, SHORT, forever, run, work};

/// Guards: no runtime is needed, because there is no timer to register.
#[test]
fn a_timebox_needs_no_runtime() {
    let error = futures::executor::block_on(timebox(SHORT, forever())).unwrap_err();
    assert!(error.elapsed() >= SHORT);
    let mut pool = futures::executor::LocalPool::new();
    let both = futures::future::join(timebox(SHORT, forever()), timebox(FOREVER, async { 7 }));
    let (late, ready) = pool.run_until(both);
    assert!(late.is_err() && ready.is_ok());
}

#[test]
fn timeboxes_work_on_a_current_thread_runtime() {
    let runtime = runtime(0);
    runtime.block_on(timebox(SHORT, forever())).unwrap_err();
    let local = tokio::task::LocalSet::new();
    let shared = std::rc::Rc::new(7);
    let task = local.run_until(async {
        tokio::task::spawn_local(timebox(SHORT, async move {
            forever().await;
            *shared
        }))
        .await
    });
    runtime.block_on(task).unwrap().unwrap_err();
}

#[test]
fn hundreds_of_timeboxes_expire_on_many_workers() {
    let runtime = runtime(4);
    let tasks: Vec<_> = (0..500).map(|at| runtime.spawn(timebox(ms(1 + at % 20), forever()))).collect();
    for task in tasks {
        runtime.block_on(task).unwrap().unwrap_err();
    }
}

/// Guards: a set polls only the members that were woken, and each keeps its own deadline.
#[test]
fn each_member_of_a_set_keeps_its_deadline() {
    run(async {
        let mut boxes: FuturesUnordered<_> = (0..100_u64)
            .map(|at| async move {
                let work = async {
                    if at % 2 == 0 {
                        forever().await;
                    }
                    tokio::task::yield_now().await;
                };
                (at, timebox(if at % 2 == 0 { ms(1 + at % 30) } else { FOREVER }, work).await)
            })
            .collect();
        let mut seen = 0;
        while let Some((at, result)) = boxes.next().await {
            assert_eq!(result.is_err(), at % 2 == 0);
            if let Err(error) = result {
                assert_eq!(error.limit(), ms(1 + at % 30));
                assert!(error.elapsed() >= error.limit());
            }
            seen += 1;
        }
        assert_eq!(seen, 100);
    });
}

/// Guards: the clock starts with the first poll, and the task that polled last is woken.
#[test]
fn a_timebox_moves_between_tasks() {
    let (one, other) = (runtime(1), runtime(1));
    for limit in [ms(30), ms(1)] {
        let future = Box::pin(timebox(limit, forever()));
        std::thread::sleep(ms(5));
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let first = one.spawn(async move {
            let mut future = future;
            let began = Instant::now();
            let ready = futures::poll!(&mut future).is_ready();
            assert!(!ready || began.elapsed() >= at_least(limit));
            if !ready {
                let _ = sender.send(future);
            }
        });
        one.block_on(first).unwrap();
        if let Ok(future) = receiver.blocking_recv() {
            let second = other.spawn(async { tokio::time::timeout(PATIENCE, future).await });
            let error =
                other.block_on(second).unwrap().expect("the task that has the future now is woken").unwrap_err();
            assert!(error.elapsed() >= limit);
        }
    }
}

/// Guards: a timebox that had no effect, because the one around it ended sooner, has its own limit once it is polled outside:
/// a future by reference, with a short limit first and then what is left of a longer one.
#[test]
fn a_timebox_taken_out_of_another_keeps_its_limit() {
    const OWN: Duration = ms(100);
    run(async {
        let quota = heeler::Quota::new(OWN).unwrap();
        let limits: [&dyn Fn() -> Limit; 3] = [&|| OWN.into(), &|| (Instant::now() + OWN).into(), &|| (&quota).into()];
        for limit in limits {
            let mut inner = Box::pin(forever().timebox(limit()).label("inner"));
            let error = inner.as_mut().timebox(SHORT).label("outer").await.unwrap_err();
            assert!(error.is_from("outer"), "{error}");
            // Once more inside another timebox, which it outlives, too.
            inner.as_mut().timebox(SHORT).await.unwrap_err();
            let error = inner.await.unwrap_err();
            assert!(error.is_from("inner") && error.elapsed() >= error.limit(), "{error}");
            assert!(error.limit() <= OWN && error.limit() > ms(1), "{error}");
        }
        assert!(quota.remaining().is_zero() && !quota.running());
    });
}

/// Guards: if a timebox that began elsewhere is polled inside one that ends sooner, its work is told when that time is up.
#[test]
fn a_timebox_moved_into_another_ends_with_it() {
    run(async {
        let inner = async {
            tokio::task::yield_now().await;
            let left = heeler::timebox::remaining().unwrap();
            let plain: Result<(), Interrupted> = heeler::timebox::blocking(FOREVER, || match work()? {});
            (left, plain.unwrap_err())
        };
        let mut inner = Box::pin(inner.timebox(FOREVER * 2).label("inner"));
        assert!(futures::poll!(&mut inner).is_pending());
        let outer = inner.timebox(SHORT).label("outer").grace(FOREVER);
        let (left, error) = outer.await.unwrap().unwrap();
        assert!(left <= SHORT && error.is_from("outer"), "{left:?}, {error}");
    });
}

#[derive(Default)]
struct Woken(AtomicBool);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Guards: a timebox that nobody polls any more wakes nobody, holds nothing, and calls its hook only if it has expired.
#[test]
fn a_dropped_timebox_leaves_nothing_behind() {
    let drops = Drops::default();
    let told = Arc::new(AtomicUsize::new(0));
    let open = |limit: Duration| {
        let (guard, told) = (drops.guard(), told.clone());
        let future = timebox(limit, async move {
            let _guard = guard;
            forever().await
        });
        let mut future = Box::pin(future.on_interrupt(move |_| {
            told.fetch_add(1, Ordering::SeqCst);
        }));
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        (future, woken)
    };
    drop(open(FOREVER));
    assert_eq!((drops.count(), told.load(Ordering::SeqCst)), (1, 0), "before");

    let (future, woken) = open(ms(50));
    until("the monitor has woken it", || woken.0.load(Ordering::SeqCst));
    drop(future);
    assert_eq!((drops.count(), told.load(Ordering::SeqCst)), (2, 1), "after");

    drop(timebox(SHORT, forever()));
}

/// Guards: the timebox is polled first. A loop that is always ready, and that tokio makes yield now and then, cannot starve
/// the timer of its own timebox, because there is none.
#[test]
fn a_busy_loop_cannot_starve_its_timebox() {
    let _guard = beside_others();
    for workers in [0, 2] {
        let runtime = runtime(workers);
        let result = runtime.block_on(async {
            let task = tokio::spawn(timebox(SHORT, async {
                let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
                let start = Instant::now();
                while start.elapsed() < PATIENCE {
                    sender.send(()).unwrap();
                    receiver.recv().await.unwrap();
                }
            }));
            task.await.unwrap()
        });
        let error = result.expect_err("the loop outlived its timebox");
        assert!(error.elapsed() >= SHORT);
    }
}

/// Guards: the monitor sets the flag, and needs no worker for that.
#[test]
fn checkpoints_work_while_all_workers_are_blocked() {
    let _guard = alone();
    let runtime = runtime(2);
    let (sender, receiver) = mpsc::channel();
    for _ in 0..2 {
        let sender = sender.clone();
        runtime.spawn(async move {
            let result = timebox(ms(60), async { work() }).await;
            sender.send(result.expect("a value that is ready wins").unwrap_err()).unwrap();
        });
    }
    for _ in 0..2 {
        let error = receiver.recv_timeout(PATIENCE).unwrap();
        assert_eq!(error.limit(), ms(60));
    }
}

/// Guards: a child task and a blocking closure see that the time of the timebox in which they were spawned is up. They are
/// told, and not dropped.
#[test]
fn spawned_work_is_told_but_not_dropped() {
    let runtime = runtime(2);
    let result = runtime.block_on(async {
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        let parent = tokio::spawn(timebox(ms(50), async move {
            let task = sender.clone();
            heeler::spawn(async move { task.send(("task", work().unwrap_err())) });
            let closure = sender.clone();
            heeler::spawn_blocking(move || closure.send(("closure", work().unwrap_err())));
            let waiting = sender;
            heeler::spawn(async move { waiting.send(("waiting", heeler::timebox::interrupted().await)) });
            forever().await
        }));
        let mut told = Vec::new();
        while let Some((who, error)) = tokio::time::timeout(PATIENCE, receiver.recv()).await.expect("they are told") {
            assert_eq!(error.limit(), ms(50), "{who}");
            told.push(who);
        }
        told.sort_unstable();
        assert_eq!(told, ["closure", "task", "waiting"]);
        parent.await.unwrap()
    });
    assert_eq!(result.unwrap_err().limit(), ms(50));
}

/// Guards: the limit of a timebox in a spawned child counts if it is smaller than that of the timebox around the spawn.
#[test]
fn a_timebox_in_spawned_work_keeps_its_own_limit() {
    let runtime = runtime(2);
    runtime.block_on(async {
        let child = timebox(FOREVER, async { heeler::spawn(timebox(SHORT, forever())).await }).await;
        let error = child.unwrap().unwrap().unwrap_err();
        assert_eq!(error.limit(), SHORT);
    });
}

/// Guards: the thread belongs to the timebox while it is polled, and not a moment longer.
#[test]
fn threads_belong_to_a_timebox_only_during_polls() {
    run(async {
        let outside = || checkpoint().is_ok() && heeler::timebox::remaining().is_none();
        assert!(outside());
        let inside = |limit: Duration| {
            async move {
                for _ in 0..50 {
                    let left = heeler::timebox::remaining().expect("inside a timebox");
                    assert!(
                        left <= limit && left > limit - FOREVER / 2,
                        "the limit of another timebox: {left:?} of {limit:?}"
                    );
                    tokio::task::yield_now().await;
                }
            }
            .timebox(limit)
        };
        let both = futures::future::join3(inside(FOREVER), inside(FOREVER * 2), async {
            for _ in 0..50 {
                assert!(outside());
                tokio::task::yield_now().await;
            }
        });
        let (one, other, ()) = both.await;
        one.unwrap();
        other.unwrap();
        assert!(outside());
    });
}

/// Guards: timeboxes that are open when their runtime shuts down are dropped, and leave nothing that expires later.
#[test]
fn a_runtime_can_shut_down_with_open_timeboxes() {
    let drops = Drops::default();
    let runtime = runtime(1);
    for at in 0..100 {
        let guard = drops.guard();
        runtime.spawn(timebox(ms(at), async move {
            let _guard = guard;
            forever().await
        }));
    }
    drop(runtime);
    until("all is dropped", || drops.count() == 100);
    run(timebox(SHORT, forever())).unwrap_err();
}

/// Guards: the last poll comes after the limit, so that what is ready by then wins. Work that never suspends is never
/// interrupted.
#[test]
fn work_that_is_ready_at_the_last_poll_wins() {
    run(async {
        let mut polls_after = 0;
        let start = Instant::now();
        let counted = std::future::poll_fn(|_| {
            polls_after += u32::from(start.elapsed() > at_least(SHORT));
            Poll::<()>::Pending
        });
        let result: Result<(), Interrupted> = timebox(SHORT, counted).await;
        result.unwrap_err();
        assert!(polls_after > 0);
        let busy = async {
            let start = Instant::now();
            while start.elapsed() < SHORT * 2 {}
            7
        };
        assert_eq!(timebox(SHORT, busy).await.unwrap(), 7);
    });
}

/// Guards: an error names the child work that still runs, by where it was handed on, and none that has ended.
#[test]
fn an_error_names_the_child_work_that_goes_on() {
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let told = std::sync::Arc::new(std::sync::Mutex::new(told));
    let runtime = runtime(1);
    let interrupted = runtime.block_on(async {
        let work = async {
            heeler::spawn(async {}).await.unwrap();
            for _ in 0..2 {
                let told = told.clone();
                heeler::spawn_blocking(move || told.lock().unwrap().recv()); // blocking child
            }
            heeler::spawn(std::future::pending::<()>()); // pending child
            forever().await;
        };
        timebox(SHORT, work).label("import").await.unwrap_err()
    });
    let line = |mark| crate::common::line_of(include_str!("places.rs"), mark);
    let (blocking, pending) = (line("blocking child"), line("pending child"));
    let expected = format!(
        "; its child work goes on: 2 × spawn_blocking at {file}:{blocking}, spawn at {file}:{pending}",
        file = file!()
    );
    let said = interrupted.to_string();
    assert!(said.ends_with(&expected), "{said}");
    let notes = interrupted.report().map(|report| report.notes.clone()).unwrap_or_default();
    assert!(notes.iter().any(|note| note.starts_with("its child work goes on: 2 × spawn_blocking at ")), "{notes:?}");
    drop(tell);
    // Without any, nothing is said.
    let alone = runtime.block_on(timebox(SHORT, forever())).unwrap_err().to_string();
    assert!(!alone.contains("child work"), "{alone}");
}
