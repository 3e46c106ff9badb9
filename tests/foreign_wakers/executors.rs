//! Executors of many kinds.
#![allow(unsafe_code, reason = "hand-written wakers, as small executors have them")]

use std::future::{pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Wake, Waker};
use std::time::{Duration, Instant};

use futures::stream::{FuturesUnordered, StreamExt as _};
use futures::task::SpawnExt as _;
use heeler::report::Verdict;
use heeler::{metrics, watch};

use super::common::{
    Driven, FOREVER, PATIENCE, alone, beside_others, collect, ms, place, runtime, traces_every_poll, until,
};

type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

static WOKEN: Mutex<Vec<usize>> = Mutex::new(Vec::new());
static NUMBERS: RawWakerVTable = RawWakerVTable::new(|data| RawWaker::new(data, &NUMBERS), wake, wake, |_| {});

fn wake(data: *const ()) {
    WOKEN.lock().unwrap().push(data.addr());
}

/// A waker whose data is a small number and no address.
fn number(task: usize) -> Waker {
    // SAFETY: the functions of the table take the data for a number.
    unsafe { Waker::from_raw(RawWaker::new(std::ptr::without_provenance(task), &NUMBERS)) }
}

/// Guards: heeler notices when a future moves from one task to another, even if their wakers differ only in the last bit.
#[test]
fn the_task_that_polled_last_is_woken() {
    let _guard = beside_others();
    for (first, then) in [(2, 4), (2, 3), (3, 2), (0, 1)] {
        WOKEN.lock().unwrap().clear();
        let mut work = Box::pin(heeler::timebox(ms(50), pending::<()>()));
        for task in [first, then] {
            assert!(work.as_mut().poll(&mut Context::from_waker(&number(task))).is_pending());
        }
        until("somebody is woken", || !WOKEN.lock().unwrap().is_empty());
        assert_eq!(*WOKEN.lock().unwrap(), [then], "polled by {first}, then by {then}");
    }
}

/// What is taken while the work lives.
struct Permit(Arc<AtomicBool>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// An event that somebody may wait for.
type Event = Arc<Mutex<Option<Waker>>>;

/// Waits for an event whose owner goes away without waking anybody, `watched` in some way. Is the work dropped then?
fn is_let_go(watched: impl FnOnce(Boxed) -> Boxed, polls: usize) -> bool {
    let released = Arc::new(AtomicBool::new(false));
    let permit = Permit(released.clone());
    let event = Event::default();
    let listener = Arc::downgrade(&event);
    let waits: Boxed = Box::pin(async move {
        let _permit = permit;
        poll_fn(|cx| {
            if let Some(event) = listener.upgrade() {
                *event.lock().unwrap() = Some(cx.waker().clone());
            }
            Poll::<()>::Pending
        })
        .await;
    });
    let (queue, runnables) = mpsc::channel::<async_task::Runnable>();
    let schedule = move |runnable| queue.send(runnable).unwrap();
    let (first, task) = async_task::spawn(watched(waits), schedule);
    task.detach();
    first.run();
    for _ in 1..polls {
        std::thread::sleep(ms(1));
        let waker = event.lock().unwrap().take();
        waker.unwrap().wake();
        runnables.recv_timeout(PATIENCE).unwrap().run();
    }
    assert!(!released.load(Ordering::SeqCst), "it waits");
    drop(event);
    let began = Instant::now();
    while !released.load(Ordering::SeqCst) && began.elapsed() < Duration::from_secs(5) {
        if let Ok(runnable) = runnables.recv_timeout(ms(20)) {
            runnable.run();
        }
    }
    released.load(Ordering::SeqCst)
}

/// Guards: an executor that drops a task when nobody can wake it any more drops a watched one, too: in rows within rows,
/// before and after its polls are traced. A timebox lets go at its limit.
#[test]
fn a_task_that_nobody_can_wake_is_dropped() {
    let _guard = alone();
    assert!(is_let_go(|work| work, 1), "as a control");
    for polls in [1, 2, 10, 60] {
        assert!(is_let_go(|work| Box::pin(watch("work", FOREVER, work)), polls), "watched, {polls} polls");
        let twice = |work| -> Boxed { Box::pin(watch("outer", FOREVER, watch("inner", FOREVER, work))) };
        assert!(is_let_go(twice, polls), "watched twice, {polls} polls");
    }
    // Armed within the polls.
    assert!(is_let_go(|work| Box::pin(watch("work", ms(80), work)), 40), "armed");
    let twice = |work| -> Boxed { Box::pin(watch("outer", FOREVER, watch("inner", ms(80), work))) };
    assert!(is_let_go(twice, 40), "armed within");
    let boxed = |work| -> Boxed {
        Box::pin(watch("work", FOREVER, async {
            let _ = heeler::timebox(ms(200), work).await;
        }))
    };
    assert!(is_let_go(boxed, 3), "in a timebox");
    until("all rows are free", || metrics().in_flight.total() == 0);
}

/// A leaf that keeps a list of wakers, each once as far as it can see.
struct Listed {
    list: Arc<Mutex<Vec<Waker>>>,
    done: Arc<AtomicBool>,
}

impl Future for Listed {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.done.load(Ordering::SeqCst) {
            return Poll::Ready(());
        }
        let mut list = self.list.lock().unwrap();
        if !list.iter().any(|known| known.will_wake(cx.waker())) {
            list.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

struct Counts(AtomicUsize);

impl Wake for Counts {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Polls until the work is `armed` and has been polled many times more, none of which ends the wait. Returns the entries of
/// the list at the end.
fn entries(mut poll: impl FnMut(), list: &Mutex<Vec<Waker>>) -> usize {
    let began = Instant::now();
    while began.elapsed() < ms(300) {
        poll();
        std::thread::sleep(ms(1));
    }
    list.lock().unwrap().len()
}

/// Guards: traced polls add one entry to a list of wakers, not one each, and the list wakes the work.
#[test]
fn a_list_of_wakers_stays_short() {
    let _guard = beside_others();
    let (list, done) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
    let leaf = || Listed { list: list.clone(), done: done.clone() };
    let armed = || metrics().armed;

    // Somebody's executor: one waker before the polls are traced, one more after that.
    let before = armed();
    let task = Arc::new(Counts(AtomicUsize::new(0)));
    let waker = Waker::from(task.clone());
    let mut cx = Context::from_waker(&waker);
    let mut work = pin!(watch("outer", FOREVER, watch("work", ms(80), leaf())));
    let found = entries(|| assert!(work.as_mut().poll(&mut cx).is_pending()), &list);
    assert!(armed() > before, "its polls were traced");
    assert!(found <= 2, "{found} entries");
    done.store(true, Ordering::SeqCst);
    let woken = task.0.load(Ordering::SeqCst);
    let wakers = std::mem::take(&mut *list.lock().unwrap());
    wakers.into_iter().for_each(Waker::wake);
    assert!(task.0.load(Ordering::SeqCst) > woken, "the list wakes it");
    assert!(work.as_mut().poll(&mut cx).is_ready());

    // A task of tokio's, polled as often as a neighbour in the same task gives way: before, its own waker.
    done.store(false, Ordering::SeqCst);
    let driven = Driven::new(1);
    let found = driven.spawn({
        let (leaf, list) = (leaf(), list.clone());
        async move {
            let mut leaf = pin!(leaf);
            let work = async {
                let began = Instant::now();
                while began.elapsed() < ms(300) {
                    assert!(futures::poll!(leaf.as_mut()).is_pending());
                    tokio::time::sleep(ms(1)).await;
                }
            };
            watch("work", ms(80), work).await;
            list.lock().unwrap().len()
        }
    });
    let found = driven.handle.block_on(found).unwrap();
    assert!(found <= 3, "{found} entries");
}

/// Guards: the work has the same waker from poll to poll, as it would have without a row. If each poll is traced, it has one
/// of two.
#[test]
fn the_waker_is_the_same_from_poll_to_poll() {
    let _guard = beside_others();
    let waker = Waker::from(Arc::new(Counts(AtomicUsize::new(0))));
    let mut cx = Context::from_waker(&waker);
    let mut known: Option<Waker> = None;
    let leaf = poll_fn(|cx| {
        let same = known.as_ref().is_none_or(|known| known.will_wake(cx.waker()));
        known = Some(cx.waker().clone());
        assert!(same || traces_every_poll());
        Poll::<()>::Pending
    });
    let mut work = pin!(watch("outer", FOREVER, heeler::timebox(FOREVER, leaf)));
    for _ in 0..10 {
        assert!(work.as_mut().poll(&mut cx).is_pending());
    }
}

/// Work that waits for other threads some thousand times, in two branches; it ends only if no wake-up is lost.
fn exchange(rounds: usize) -> impl Future<Output = ()> + Send {
    let branch = |rounds: usize| {
        let (sender, mut receiver) = futures::channel::mpsc::unbounded::<futures::channel::oneshot::Sender<()>>();
        std::thread::spawn(move || {
            for answer in futures::executor::block_on_stream(receiver.by_ref()) {
                let _ = answer.send(());
            }
        });
        async move {
            for _ in 0..rounds {
                let (answer, answered) = futures::channel::oneshot::channel();
                sender.unbounded_send(answer).unwrap();
                answered.await.unwrap();
            }
        }
    };
    let (one, other) = (branch(rounds), branch(rounds / 2));
    async move {
        futures::join!(one, other);
    }
}

/// The same, watched in several ways that are asked for polls meanwhile.
fn watched_exchange(rounds: usize) -> impl Future<Output = ()> + Send {
    let inner = watch("inner", ms(3), exchange(rounds));
    let boxed = async move { heeler::timebox(FOREVER, inner).await.unwrap() };
    watch("outer", ms(5), boxed)
}

/// Guards: no wake-up is lost on all kinds of executors, whether or not polls are traced and the monitor asks for some.
#[test]
fn no_wake_up_is_lost() {
    const ROUNDS: usize = 2_000;
    let _guard = alone();
    let (done, finished) = mpsc::channel();
    let run = |name: &'static str, f: Box<dyn FnOnce() + Send>| {
        let done = done.clone();
        std::thread::spawn(move || {
            f();
            done.send(name).unwrap();
        });
    };
    run("block_on of futures", Box::new(|| futures::executor::block_on(watched_exchange(ROUNDS))));
    run(
        "LocalPool",
        Box::new(|| {
            let mut pool = futures::executor::LocalPool::new();
            for _ in 0..3 {
                pool.spawner().spawn(watched_exchange(ROUNDS)).unwrap();
            }
            pool.run();
        }),
    );
    run(
        "async-executor",
        Box::new(|| {
            let executor = async_executor::Executor::new();
            let tasks: Vec<_> = (0..3).map(|_| executor.spawn(watched_exchange(ROUNDS))).collect();
            futures::executor::block_on(executor.run(async {
                for task in tasks {
                    task.await;
                }
            }));
        }),
    );
    run(
        "FuturesUnordered on tokio",
        Box::new(|| {
            let children = async {
                let all: FuturesUnordered<_> = (0..3).map(|_| heeler::watch_child(watched_exchange(ROUNDS))).collect();
                all.collect::<Vec<()>>().await;
            };
            runtime(1).block_on(async { tokio::spawn(watch("set", ms(5), children)).await.unwrap() });
        }),
    );
    run("tokio", Box::new(|| runtime(2).block_on(watched_exchange(ROUNDS))));
    for _ in 0..5 {
        let name = finished.recv_timeout(3 * PATIENCE);
        assert!(name.is_ok(), "an executor waits forever");
    }
    until("all rows are free", || metrics().in_flight.total() == 0);
}

async fn waits_for_an_answer(answer: futures::channel::oneshot::Receiver<()>) {
    let _ = answer.await;
}

/// Guards: a report about a task of another executor says where it waits.
#[test]
fn tasks_of_other_executors_are_reported() {
    let _guard = alone();
    let (seen, reports) = collect();
    let (answer, answered) = futures::channel::oneshot::channel();
    let executor = Arc::new(async_executor::Executor::new());
    executor.spawn(watch("work", ms(60), waits_for_an_answer(answered)).reports(reports)).detach();
    let (stop, stopped) = futures::channel::oneshot::channel::<()>();
    let driver = std::thread::spawn({
        let executor = executor.clone();
        move || futures::executor::block_on(executor.run(stopped))
    });
    let report = seen.wait("a task that waits", |report| report.verdict == Verdict::Waiting);
    assert_eq!(place(&report), "waits_for_an_answer", "{}", report.to_text());
    answer.send(()).unwrap();
    until("it is done", || metrics().in_flight.total() == 0);
    stop.send(()).unwrap();
    let _ = driver.join().unwrap();
}

/// Guards: work that has kept no waker is not called starved, whether it is watched once or twice, because nobody could have
/// woken it.
#[test]
fn work_that_nobody_can_wake_is_not_starved() {
    let _guard = alone();
    for is_nested in [false, true] {
        let (seen, reports) = collect();
        let inner = watch("inner", ms(60), pending::<()>()).reports(reports);
        let mut work: Boxed = if is_nested { Box::pin(watch("outer", FOREVER, inner)) } else { Box::pin(inner) };
        let waker = Waker::from(Arc::new(Counts(AtomicUsize::new(0))));
        assert!(work.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        let report = seen.first();
        let text = report.to_text();
        assert_eq!(report.verdict, Verdict::NoWaker, "{text}");
        assert!(!text.contains("heeler woke it"), "{text}");
    }
}
