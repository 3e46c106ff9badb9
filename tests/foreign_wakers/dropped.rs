//! Work that is dropped while what it polled lives on, with the waker that it was polled with.

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use futures::stream::{Stream, StreamExt as _};
use futures::task::SpawnExt as _;
use heeler::{metrics, timebox, watch};

use super::common::{FOREVER, PATIENCE, alone, ms, runtime, until};

#[derive(Default)]
struct Counts(AtomicUsize);

impl Wake for Counts {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Counts {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// A leaf that keeps the last waker, and is never ready.
#[derive(Clone, Default)]
struct Leaf(Arc<Mutex<Option<Waker>>>);

impl Leaf {
    fn wake(&self) {
        let waker = self.0.lock().unwrap().clone();
        waker.expect("it was polled").wake();
    }
}

impl Future for Leaf {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        *self.0.lock().unwrap() = Some(cx.waker().clone());
        Poll::Pending
    }
}

type Watching = fn(Leaf) -> Pin<Box<dyn Future<Output = ()> + Send>>;

const WATCHED: [(&str, Watching); 4] = [
    ("watched", |leaf| Box::pin(watch("work", FOREVER, leaf))),
    ("armed between its polls", |leaf| Box::pin(watch("work", ms(80), leaf))),
    ("watched twice", |leaf| Box::pin(watch("outer", FOREVER, watch("inner", ms(80), leaf)))),
    ("in a box", |leaf| {
        Box::pin(async move {
            let _ = timebox(FOREVER, leaf).await;
        })
    }),
];

/// Guards: a waker of the work wakes the task after the work is gone, again and again, until there is no clone left.
#[test]
fn a_waker_of_dropped_work_wakes_the_task() {
    let _guard = alone();
    for (how, watched) in WATCHED {
        for polls in [1, 40] {
            let task = Arc::new(Counts::default());
            let waker = Waker::from(task.clone());
            let leaf = Leaf::default();
            let mut work = watched(leaf.clone());
            for _ in 0..polls {
                assert!(work.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
                std::thread::sleep(ms(1));
            }
            drop(work);
            drop(waker);
            for _ in 0..3 {
                let before = task.count();
                leaf.wake();
                assert!(task.count() > before, "{how}, {polls} polls");
            }
            let shared = leaf.0.lock().unwrap().clone();
            drop(leaf);
            assert!(Arc::strong_count(&task) > 1, "{how}: a clone is left");
            drop(shared);
            until("the task's waker is dropped", || Arc::strong_count(&task) == 1);
        }
    }
    until("all rows are free", || metrics().in_flight.total() == 0);
}

/// Guards: work that has an outcome leaves behind the wakers of what it did not wait for to the end.
#[test]
fn branches_left_by_a_select_wake_the_task() {
    let _guard = alone();
    let task = Arc::new(Counts::default());
    let waker = Waker::from(task.clone());
    let leaf = Leaf::default();
    let mut work = pin!(watch("select", FOREVER, futures::future::select(leaf.clone(), Box::pin(async {}))));
    assert!(work.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
    leaf.wake();
    assert_eq!(task.count(), 1);
}

/// Guards: when several threads wake at once, the task is polled after the last of them.
#[test]
fn no_wake_up_is_lost_to_another() {
    let _guard = alone();
    let (sent, handled) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    /// A task that handles what was sent when it is woken.
    struct Handles(Arc<AtomicUsize>, Arc<AtomicUsize>);

    impl Wake for Handles {
        fn wake(self: Arc<Self>) {
            self.1.fetch_max(self.0.load(Ordering::SeqCst), Ordering::SeqCst);
        }
    }

    let waker = Waker::from(Arc::new(Handles(sent.clone(), handled.clone())));
    let leaf = Leaf::default();
    let mut work = Box::pin(watch("work", FOREVER, leaf.clone()));
    assert!(work.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    drop(work);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    sent.fetch_add(1, Ordering::SeqCst);
                    leaf.wake();
                }
            });
        }
    });
    assert_eq!(handled.load(Ordering::SeqCst), 80_000);
}

/// A stream that awaits each item in a future of its own, which lives for one poll.
struct Items(futures::channel::mpsc::Receiver<u32>);

impl Stream for Items {
    type Item = u32;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<u32>> {
        pin!(watch("item", ms(8), self.0.next())).poll(cx)
    }
}

/// Sends now and then, from another thread.
fn items(count: u32) -> Items {
    let (mut sender, receiver) = futures::channel::mpsc::channel(0);
    std::thread::spawn(move || {
        for item in 0..count {
            std::thread::sleep(ms(u64::from(item % 7)));
            futures::executor::block_on(futures::SinkExt::send(&mut sender, item)).unwrap();
        }
    });
    Items(receiver)
}

/// Guards: a stream whose items are watched one by one ends, on all kinds of executors.
#[test]
fn a_stream_of_watched_items_ends() {
    const ITEMS: u32 = 100;
    let _guard = alone();
    let (done, finished) = std::sync::mpsc::channel();
    let run = |name: &'static str, f: fn() -> usize| {
        let done = done.clone();
        std::thread::spawn(move || done.send((name, f())));
    };
    run("block_on of futures", || futures::executor::block_on(items(ITEMS).count()));
    run("LocalPool", || {
        let mut pool = futures::executor::LocalPool::new();
        let count = pool.spawner().spawn_with_handle(items(ITEMS).count()).unwrap();
        pool.run_until(count)
    });
    run("async-executor", || {
        let executor = async_executor::Executor::new();
        let count = executor.spawn(items(ITEMS).count());
        futures::executor::block_on(executor.run(count))
    });
    run("tokio", || runtime(2).block_on(async { tokio::spawn(items(ITEMS).count()).await.unwrap() }));
    run("watched on tokio", || {
        let count = watch("outer", ms(5), items(ITEMS).count());
        runtime(2).block_on(async { tokio::spawn(count).await.unwrap() })
    });
    for _ in 0..5 {
        let (_, count) = finished.recv_timeout(3 * PATIENCE).expect("an executor waits forever");
        assert_eq!(count, ITEMS as usize);
    }
    until("all rows are free", || metrics().in_flight.total() == 0);
}
