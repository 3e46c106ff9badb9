//! What a process has in memory, and a service to measure it with. For a test and a benchmark.

#![allow(unsafe_code, reason = "the allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use heeler::{Report, Reports, Sink, TimeboxLayer, WatchdogLayer};
use http::{Request, Response};
use tower::{ServiceBuilder, ServiceExt as _, service_fn};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn until(mut holds: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(60), "waited in vain");
        std::thread::sleep(ms(1));
    }
}

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator, and two counters.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

pub(crate) const MB: usize = 1 << 20;

/// What the process has at one moment, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) heap: usize,
    pub(crate) anonymous: usize,
}

impl Memory {
    fn now(what: &str) -> Self {
        let memory = Self { heap: NOW.load(Ordering::Relaxed), anonymous: in_status("RssAnon:") };
        memory.print(what);
        memory
    }

    fn print(self, what: &str) {
        let [heap, anonymous, resident] = [self.heap, self.anonymous, in_status("VmRSS:")].map(mb);
        println!("{what:<26} heap {heap:6.2} MB, anonymous {anonymous:6.1} MB, resident {resident:6.1} MB");
    }
}

/// A field of `/proc/self/status`, in bytes.
fn in_status(field: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.split_whitespace().next().unwrap().parse::<usize>().unwrap() << 10
}

/// In megabytes.
pub(crate) fn mb(bytes: usize) -> f64 {
    bytes as f64 / MB as f64
}

/// Waits until nobody allocates any more.
fn settle() {
    let mut before = usize::MAX;
    until(|| {
        std::thread::sleep(ms(300));
        let now = NOW.load(Ordering::Relaxed);
        std::mem::replace(&mut before, now).abs_diff(now) < 4096
    });
}

/// Work that waits at a place of its own each.
macro_rules! places {
    ($($name:ident)*) => {
        $(#[inline(never)] async fn $name(limit: Duration) { tokio::time::sleep(limit).await; })*
        async fn waits(number: u64, limit: Duration) {
            let mut at = 0;
            $(if { at += 1; number % PLACES == at - 1 } { return $name(limit).await; })*
            let _ = at;
        }
        const PLACES: u64 = [$(stringify!($name)),*].len() as u64;
    };
}
places!(reads writes asks answers loads stores sends receives);

async fn handle(request: Request<String>) -> Result<Response<String>, Infallible> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    if request.uri().path() == "/slow" {
        waits(NUMBER.fetch_add(1, Ordering::Relaxed), ms(200)).await;
    }
    Ok(Response::new(String::new()))
}

/// Takes what comes, and keeps nothing.
#[derive(Debug, Default)]
struct Nowhere;

impl Sink for Nowhere {
    fn name(&self) -> &str {
        "nowhere"
    }

    fn deliver(&self, report: &Report) -> Result<(), heeler::SinkError> {
        let text = report.to_text();
        assert!(text.contains("common/memory.rs:"), "{text}");
        Ok(())
    }
}

/// What a process has, one moment after the other.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) before: Memory,
    pub(crate) at_rest: Memory,
    /// At most, while the first report was made.
    pub(crate) naming: Memory,
    pub(crate) first_report: Memory,
    pub(crate) many_requests: Memory,
    pub(crate) many_reports: Memory,
}

/// Has a service with heeler's layers answer so many requests, and make so many reports.
pub(crate) fn live(requests: u64, many: u64) -> Life {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let before = Memory::now("before");
    let reports = Reports::builder().without_log().repeat_after(Duration::ZERO).sink(Nowhere).build().unwrap();
    let service = ServiceBuilder::new()
        .layer(TimeboxLayer::new(Duration::from_secs(20)).reports(reports.clone()))
        .layer(WatchdogLayer::new(ms(50)).reports(reports.clone()))
        .service(service_fn(handle));
    let ask = |path: &str| service.clone().oneshot(Request::builder().uri(path).body(String::new()).unwrap());
    runtime.block_on(ask("/")).unwrap();
    let at_rest = settled("at rest");
    PEAK.store(at_rest.heap, Ordering::Relaxed);
    let asked = runtime.spawn(ask("/slow"));
    let mut anonymous = 0;
    until(|| {
        anonymous = anonymous.max(in_status("RssAnon:"));
        reports.stats().delivered > 0
    });
    runtime.block_on(asked).unwrap().unwrap();
    let naming = Memory { heap: PEAK.load(Ordering::Relaxed), anonymous };
    naming.print("meanwhile at most");
    let first_report = settled("after the first report");
    runtime.block_on(async {
        for _ in 0..requests {
            ask("/").await.unwrap();
        }
    });
    let many_requests = settled(&format!("after {requests} requests"));
    for round in 0_u64.. {
        if reports.stats().delivered >= many {
            break;
        }
        assert!(round < many, "{:?}", reports.stats());
        for answer in runtime.block_on(join_all((0..50).map(|_| ask("/slow")))) {
            answer.unwrap();
        }
    }
    let many_reports = settled(&format!("after {many} reports"));
    let stats = reports.stats();
    assert_eq!((stats.undelivered, stats.failed_deliveries), (0, 0), "{stats:?}");
    Life { before, at_rest, naming, first_report, many_requests, many_reports }
}

fn settled(what: &str) -> Memory {
    settle();
    Memory::now(what)
}
