//! Timeboxes at their edges: work that is handed on late, boxes in told work, who is named, and what is said of work that
//! does not hear.
#![cfg(all(feature = "watchdog", feature = "timebox"))]

#[path = "common/mod.rs"]
mod common;

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use heeler::report::{Kind, Verdict};
use heeler::timebox::{self, Limit, blocking, interrupted};
use heeler::{Interrupted, TimeboxExt as _, checkpoint};
use heeler::{Report, Reports, Sink};

use common::{FOREVER, PATIENCE, collect, ms, runtime, until};

const SHORT: Duration = ms(20);

fn run<T>(work: impl Future<Output = T>) -> T {
    runtime(2).block_on(async { tokio::time::timeout(PATIENCE, work).await.expect("in time") })
}

async fn forever() {
    std::future::pending::<()>().await;
}

/// Work that outlives its box, and says what it was told.
fn hand_on() -> Receiver<Interrupted> {
    let (sender, receiver) = channel();
    let other = sender.clone();
    heeler::spawn(async move {
        let _ = sender.send(interrupted().await);
    });
    heeler::spawn_blocking(move || {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Err(told) = checkpoint() {
                let _ = other.send(told);
                return;
            }
            std::thread::sleep(ms(1));
        }
    });
    receiver
}

#[track_caller]
fn both_are_told_of(label: &str, receiver: &Receiver<Interrupted>) {
    for _ in 0..2 {
        let told = receiver.recv_timeout(PATIENCE / 2).expect("the spawned work was not told");
        assert!(told.is_from(label), "{told}");
    }
}

/// Guards: work that is spawned after the limit has passed is told, too.
#[test]
fn work_spawned_within_the_grace_is_told() {
    run(async {
        let work = async {
            interrupted().await;
            hand_on()
        };
        let receiver = work.timebox(SHORT).label("late").grace(FOREVER).await.unwrap();
        both_are_told_of("late", &receiver);
    });
}

/// Guards: so is work spawned in a timebox that has no time at all.
#[test]
fn work_spawned_without_any_time_is_told() {
    run(async {
        let receiver = async { hand_on() }.timebox(Duration::ZERO).label("none").await.unwrap();
        both_are_told_of("none", &receiver);
        let mut receiver = None;
        let work = async {
            receiver = Some(hand_on());
            forever().await;
        };
        work.timebox(Duration::ZERO).label("none").await.unwrap_err();
        both_are_told_of("none", &receiver.unwrap());
    });
}

/// Guards: what told work spawns is told, even if the timebox is long gone.
#[test]
fn work_spawned_by_told_work_is_told() {
    run(async {
        let (sender, receiver) = channel();
        let work = async move {
            heeler::spawn(async move {
                interrupted().await;
                let _ = sender.send(hand_on());
                tokio::time::sleep(SHORT).await;
                let _ = sender.send(hand_on());
            });
            forever().await;
        };
        work.timebox(SHORT).label("parent").await.unwrap_err();
        for _ in 0..2 {
            let receiver = tokio::task::block_in_place(|| receiver.recv_timeout(PATIENCE)).unwrap();
            both_are_told_of("parent", &receiver);
        }
    });
}

/// Guards: work that is spawned just as the limit passes is told, whichever comes first.
#[test]
fn work_spawned_at_the_limit_is_told() {
    run(async {
        for round in 0..400_u64 {
            let limit = ms(2);
            let work = async {
                let began = Instant::now();
                let moment = Duration::from_micros(1_500 + round * 7 % 2_500);
                while began.elapsed() < moment {
                    std::hint::spin_loop();
                }
                let heir = heeler::spawn(async { heeler::spawn(interrupted()).await.unwrap() });
                heir.await.unwrap()
            };
            let told = work.timebox(limit).grace(FOREVER).await.unwrap();
            assert_eq!(told.limit(), limit);
        }
    });
}

/// Guards: a timebox that is opened in work that was told says so at its first checkpoint.
#[test]
fn a_timebox_in_told_work_fails_at_once() {
    run(async {
        let (sender, receiver) = channel();
        let work = async move {
            heeler::spawn(async move {
                interrupted().await;
                let at_once = async { checkpoint() };
                let _ = sender.send(at_once.timebox(FOREVER).await.unwrap());
                let _ = sender.send(blocking(FOREVER, checkpoint));
                let _ = sender.send(blocking(FOREVER, || blocking(FOREVER / 2, checkpoint)));
                let _ = sender.send(Err(interrupted().timebox(FOREVER).await.unwrap()));
            });
            forever().await;
        };
        work.timebox(SHORT).label("parent").await.unwrap_err();
        for _ in 0..4 {
            let said = tokio::task::block_in_place(|| receiver.recv_timeout(PATIENCE)).unwrap();
            assert!(said.expect_err("the time is up").is_from("parent"));
        }
    });
}

/// Guards: of the timeboxes that work was spawned in, one that has ended in time is not said to have expired.
#[test]
fn a_timebox_that_ended_in_time_is_not_named() {
    run(async {
        let (limit, (sender, receiver)) = (10 * SHORT, channel());
        let outer = async move {
            let inner = async move {
                heeler::spawn(async move {
                    tokio::time::sleep(2 * limit).await;
                    let _ = sender.send(checkpoint());
                });
                forever().await;
            };
            inner.timebox(SHORT).label("inner").await.unwrap_err();
        };
        outer.timebox(limit).label("outer").await.unwrap();
        let told = tokio::task::block_in_place(|| receiver.recv_timeout(PATIENCE)).unwrap().unwrap_err();
        assert!(told.is_from("inner"), "{told}");
    });
}

/// Guards: that an inner timebox's work was told does not keep an outer one's from being reported.
#[test]
fn an_outer_overrun_is_reported_after_an_inner_one() {
    let (seen, reports) = collect();
    let job = async {
        let limit = Limit::from(10 * SHORT).label("outer");
        let _ = blocking(limit, || {
            let inner = blocking(Limit::from(SHORT).label("inner"), || {
                loop {
                    checkpoint()?;
                    std::thread::sleep(ms(1));
                }
                #[allow(unreachable_code)]
                Ok::<(), Interrupted>(())
            });
            assert!(inner.unwrap_err().is_from("inner"));
            std::thread::sleep(ms(1_500));
            Ok::<(), Interrupted>(())
        });
    };
    runtime(0).block_on(heeler::watch("deaf", FOREVER, job).reports(reports));
    let report = seen.wait("the overrun", |report| report.kind == Kind::Interrupted);
    assert!(report.notes.iter().any(|note| note.contains("\"outer\"")), "{:?}", report.notes);
}

/// Guards: a timebox without any time whose only poll does not return is reported like any other.
#[test]
fn an_overrun_without_any_time_is_reported() {
    let (seen, reports) = collect();
    let job = async {
        let work = async { std::thread::sleep(ms(1_500)) };
        work.timebox(Duration::ZERO).await.unwrap();
    };
    runtime(0).block_on(heeler::watch("deaf", FOREVER, job).reports(reports));
    let report = seen.wait("the overrun", |report| report.kind == Kind::Interrupted);
    assert_eq!(report.verdict, Verdict::Blocking);
}

/// Guards: spawned work that has been told is not reported, even if it was told inside a timebox of its own.
#[test]
fn work_told_in_its_own_timebox_is_no_overrun() {
    let (seen, reports) = collect();
    runtime(2).block_on(async {
        let (sender, receiver) = channel();
        let job = async move {
            let work = async move {
                let _ = heeler::spawn_blocking(move || {
                    let heard = blocking(FOREVER, || {
                        loop {
                            checkpoint()?;
                            std::thread::sleep(ms(1));
                        }
                        #[allow(unreachable_code)]
                        Ok::<(), Interrupted>(())
                    });
                    std::thread::sleep(ms(1_000));
                    let _ = sender.send(heard.is_err());
                })
                .await;
            };
            work.timebox(SHORT).await.unwrap_err();
        };
        heeler::watch("heard", FOREVER, job).reports(reports.clone()).await;
        assert!(tokio::task::block_in_place(|| receiver.recv_timeout(PATIENCE)).unwrap());
    });
    let _ = reports.blocking_flush(PATIENCE);
    assert_eq!(seen.all().len(), 0, "{:?}", seen.all());
}

/// Guards: an overrun is one poll that does not end, not many short ones within a poll of something else.
#[test]
fn many_short_polls_are_no_overrun() {
    let (seen, reports) = collect();
    let job = async {
        // A poll of the job that lasts as long as it all does.
        futures::executor::block_on(async {
            let began = Instant::now();
            let busy = std::future::poll_fn(|cx| {
                std::thread::sleep(ms(3));
                cx.waker().wake_by_ref();
                if began.elapsed() < ms(700) { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
            });
            busy.timebox(SHORT).grace(FOREVER).await.unwrap();
        });
    };
    runtime(0).block_on(heeler::watch("short", FOREVER, job).reports(reports.clone()));
    let _ = reports.blocking_flush(PATIENCE);
    assert_eq!(seen.all().len(), 0, "{:?}", seen.all());
}

/// Guards: without any time a closure is not called, whatever else the limit has.
#[test]
fn a_closure_without_time_is_not_called_despite_grace() {
    let limit = Limit::from(Duration::ZERO).grace(FOREVER);
    let result = blocking(limit, || -> Result<(), Interrupted> { panic!("called") });
    result.unwrap_err();
}

/// Guards: without any time, work with a grace is told in its first poll.
#[test]
fn work_without_time_is_told_in_its_first_poll() {
    let told = run(async { async { checkpoint() }.timebox(Duration::ZERO).grace(FOREVER).await });
    assert_eq!(told.unwrap().unwrap_err().limit(), Duration::ZERO);
}

/// Guards: `current` names the request or job and never a timebox, in spawned work, too.
#[test]
fn a_timebox_is_not_the_current_work() {
    run(async {
        let work = async {
            assert!(heeler::current().is_none());
            heeler::spawn(async { heeler::current() }).await.unwrap()
        };
        assert_eq!(work.timebox(FOREVER).await.unwrap(), None);
    });
}

/// Guards: a timebox that has left the work in which it began still tells what it spawns.
#[test]
fn a_timebox_that_moved_still_tells_spawned_work() {
    run(async {
        let (said, told) = channel();
        let mut moved = Box::pin(
            async move {
                tokio::time::sleep(SHORT).await;
                heeler::spawn(async move {
                    let _ = said.send(interrupted().await);
                });
                forever().await;
            }
            .timebox(10 * SHORT),
        );
        heeler::watch("short", FOREVER, async { assert!(futures::poll!(&mut moved).is_pending()) }).await;
        moved.await.unwrap_err();
        tokio::task::block_in_place(|| told.recv_timeout(PATIENCE)).expect("told");
    });
}

/// Guards: at the limit, work that nobody wakes is polled a time or two, to see where it is, and no more.
#[test]
fn sleeping_work_is_polled_only_briefly_at_the_limit() {
    run(async {
        let mut polls = 0;
        let silent = std::future::poll_fn(|_| {
            polls += 1;
            std::task::Poll::<()>::Pending
        });
        silent.timebox(SHORT).await.unwrap_err();
        assert!((2..=3).contains(&polls), "{polls}");
    });
}

/// Without a thread-local of its own, unlike that of `futures`.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Bell(std::sync::mpsc::SyncSender<()>);
    impl std::task::Wake for Bell {
        fn wake(self: std::sync::Arc<Self>) {
            let _ = self.0.try_send(());
        }
    }
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    let waker = std::sync::Arc::new(Bell(sender)).into();
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
            std::task::Poll::Ready(value) => return value,
            std::task::Poll::Pending => receiver.recv_timeout(PATIENCE).expect("woken"),
        }
    }
}

struct AtTheEnd(std::sync::mpsc::Sender<bool>);

impl Drop for AtTheEnd {
    fn drop(&mut self) {
        let _ = self.0.send(block_on(forever().timebox(SHORT)).is_err());
    }
}

#[test]
fn a_timebox_expires_on_a_thread_that_is_ending() {
    thread_local! {
        static FIRST: std::cell::RefCell<Option<AtTheEnd>> = const { std::cell::RefCell::new(None) };
        static LAST: std::cell::RefCell<Option<AtTheEnd>> = const { std::cell::RefCell::new(None) };
    }
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        // Destructors run in one order or the other: one of the two comes after heeler's own.
        FIRST.with(|first| *first.borrow_mut() = Some(AtTheEnd(sender.clone())));
        block_on(async {}.timebox(SHORT)).unwrap();
        LAST.with(|last| *last.borrow_mut() = Some(AtTheEnd(sender)));
    });
    for _ in 0..2 {
        assert!(receiver.recv_timeout(PATIENCE / 2).expect("the timebox expires"));
    }
}

/// Guards: after a panic in a poll, in a closure or in a destructor, the thread is not in a timebox any more.
#[test]
fn a_panic_leaves_the_thread_in_no_timebox() {
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            std::panic::resume_unwind(Box::new("dropped"));
        }
    }
    let caught = |work: fn()| {
        assert!(std::panic::catch_unwind(work).is_err());
        assert!(timebox::remaining().is_none() && checkpoint().is_ok() && heeler::current().is_none());
    };
    caught(|| drop(blocking(FOREVER, || -> Result<(), Interrupted> { std::panic::resume_unwind(Box::new("plain")) })));
    caught(|| {
        let work = async { std::panic::resume_unwind(Box::new("polled")) };
        let _: Result<(), _> = futures::executor::block_on(work.timebox(FOREVER));
    });
    caught(|| {
        let work = async {
            let _panics = Panics;
            forever().await;
        };
        let _ = futures::executor::block_on(work.timebox(SHORT));
    });
    // And the next timebox works.
    assert!(futures::executor::block_on(forever().timebox(SHORT)).is_err());
    until("timeboxes work", || blocking(SHORT, || Ok::<_, Interrupted>(timebox::remaining().is_some())).unwrap());
}

async fn sleeps() {
    tokio::time::sleep(FOREVER).await;
}

/// A sink that is inside a delivery until somebody lets it go.
#[derive(Debug)]
struct Slow(Mutex<(Sender<()>, Receiver<()>)>);

impl Sink for Slow {
    fn name(&self) -> &str {
        "slow"
    }

    fn deliver(&self, _: &Report) -> Result<(), heeler::SinkError> {
        let inner = self.0.lock().unwrap();
        inner.0.send(())?;
        inner.1.recv_timeout(2 * PATIENCE)?;
        Ok(())
    }
}

/// Guards: a place is named while the reporter is inside a slow sink, or waits for the lock of standard output that the
/// thread printing the interruption holds.
#[test]
fn the_place_is_named_while_the_reporter_is_busy() {
    let ((entered, is_entered), (release, released)) = (channel(), channel());
    let sink = Slow(Mutex::new((entered, released)));
    let reports = Reports::builder().without_log().sink(sink).build().unwrap();
    run(async move {
        let slow = heeler::watch("slow", ms(10), tokio::time::sleep(10 * SHORT)).reports(reports);
        let busy = tokio::spawn(slow);
        is_entered.recv_timeout(PATIENCE).expect("a report reaches the sink");
        let interrupted = sleeps().timebox(SHORT).await.unwrap_err();
        assert!(interrupted.to_string().contains("timebox_edges::sleeps"), "{interrupted}");
        release.send(()).unwrap();
        busy.await.unwrap();
    });
}
