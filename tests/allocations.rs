//! What runs at a bad moment allocates nothing: the clone of the waker, under whatever lock the leaf holds, and the signal
//! handler, in the middle of anything.
#![cfg(all(feature = "watchdog", feature = "profile"))]
#![allow(unsafe_code, reason = "an allocator that counts; an environment variable before there are threads")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use heeler::report::Verdict;

use common::{FOREVER, PORTABLE, collect, in_own_process, ms};

struct Counting;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    CALLS.set(CALLS.get() + 1);
}

// SAFETY: the system's allocator, and a counter that needs none.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count();
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Calls of the allocator on this thread while `f` runs.
fn calls(f: impl FnOnce()) -> u64 {
    let before = CALLS.get();
    f();
    CALLS.get() - before
}

#[derive(Default)]
struct Task(AtomicU64);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Guards: neither a clone of the waker nor a wake-up in a traced poll calls the allocator, from the first on. A traced poll
/// that waits at the same place as the last one does not call it at all.
#[test]
fn cloning_the_waker_never_allocates() {
    in_own_process("cloning_the_waker_never_allocates", || {
        // SAFETY: heeler's threads do not run yet, and nobody else's read the environment.
        unsafe { std::env::set_var("HEELER_TRACE_EVERY_POLL", "1") };
        let task = Arc::new(Task::default());
        let waker = Waker::from(task.clone());
        let mut kept: Option<Waker> = None;
        let mut wakes = false;
        let mut counted = Vec::with_capacity(1_000);
        let mut job = Box::pin(heeler::watch(
            "job",
            FOREVER,
            poll_fn(|cx: &mut Context<'_>| {
                let waker = cx.waker();
                counted.push(calls(|| {
                    kept = Some(waker.clone());
                    if wakes {
                        waker.wake_by_ref();
                    }
                }));
                wakes = counted.len() > 100;
                Poll::<()>::Pending
            }),
        ));
        let mut cx = Context::from_waker(&waker);
        let polls: Vec<u64> = (0..200).map(|_| calls(|| assert!(job.as_mut().poll(&mut cx).is_pending()))).collect();
        drop(job);
        // A waker of the row, whose work is gone.
        let kept = kept.unwrap();
        kept.wake();
        drop(waker);
        assert_eq!(Arc::strong_count(&task), 1, "without a clone of the row's waker, the task is dropped");
        assert_eq!(counted.iter().sum::<u64>(), 0, "{counted:?}");
        assert_eq!(task.0.load(Ordering::Relaxed), 100, "every wake-up reaches the task, once");
        // It is traced: the first poll makes room for what it finds.
        assert!(polls[0] > 0);
        assert_eq!(polls[10..100].iter().sum::<u64>(), 0, "{polls:?}");
        assert_eq!(polls[110..].iter().sum::<u64>(), 0, "{polls:?}");
    });
}

#[test]
fn capturing_a_thread_allocates_nothing_on_it() {
    let (seen, reports) = collect();
    let stop = Arc::new(AtomicBool::new(false));
    let theirs = stop.clone();
    let busy = std::thread::spawn(move || {
        let job = async { calls(|| spins(&theirs)) };
        futures::executor::block_on(heeler::watch("job", ms(100), job).reports(reports))
    });
    // Captured four times: it runs, so each takes a signal.
    let report = seen.wait("the last capture", |report| report.update == 3);
    stop.store(true, Ordering::Relaxed);
    assert_eq!(busy.join().unwrap(), 0);
    assert_eq!(report.verdict, Verdict::Blocking);
    if !PORTABLE {
        let captured = seen.all().iter().filter(|report| common::place(report) == "spins").count();
        assert_eq!(captured, 4);
    }
}

#[inline(never)]
fn spins(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        std::hint::black_box(7_u64.wrapping_mul(11));
    }
}

/// Guards: a profiler adds no allocation to a request that does not ask for a profile, nor to one that is refused at once.
#[test]
fn a_request_without_a_profile_allocates_nothing_more() {
    use std::convert::Infallible;

    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::Full;
    use tower::{Layer as _, Service, service_fn};

    type Asked = Request<Full<Bytes>>;

    fn ask<R>(service: &mut impl Service<Asked, Response = Response<R>, Error = Infallible>, uri: &'static str) -> u64 {
        let mut request = Request::new(Full::default());
        *request.uri_mut() = http::Uri::from_static(uri);
        request.headers_mut().insert("x-geordi-like", http::HeaderValue::from_static("1"));
        let cx = &mut Context::from_waker(Waker::noop());
        calls(|| {
            let future = std::pin::pin!(service.call(request));
            assert!(matches!(future.poll(cx), Poll::Ready(Ok(response)) if response.status() == 200));
        })
    }

    let mut bare = service_fn(|_: Asked| async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("well"))) });
    let layer = heeler::ProfileLayer::new(|_: &http::request::Parts| false);
    let mut layered = layer.layer(bare);
    for uri in ["/", "/photos?page=2&sort=name", "/?__geordi__=json"] {
        assert_eq!(ask(&mut layered, uri), ask(&mut bare, uri), "{uri}");
    }
}
