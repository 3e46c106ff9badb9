//! Many profiles, one after the other and at the same time: nothing is left of them, and each is of its own request alone.
//!
//! 300 in a row; `HEELER_PROFILES` sets another number.
#![cfg(feature = "profile")]
#![cfg(target_os = "linux")]
#![allow(unsafe_code, reason = "an allocator that counts")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::convert::Infallible;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use heeler::ProfileLayer;
use heeler::profile::{Outcome, Profile, ProfileStore};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use tower::{Layer as _, Service, ServiceExt as _};

use common::{PATIENCE, PORTABLE, alone, ms, runtime, until};

struct Counting;

/// Bytes that are allocated and not freed.
static LIVE: AtomicI64 = AtomicI64::new(0);

fn count(grown: usize, shrunk: usize) {
    LIVE.fetch_add(grown as i64 - shrunk as i64, Ordering::Relaxed);
}

// SAFETY: the system's allocator, and a counter that needs none.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often a run in a row is looked at.
const WINDOWS: usize = 9;

/// How many in a row.
fn profiles() -> usize {
    std::env::var("HEELER_PROFILES").ok().and_then(|many| many.parse().ok()).unwrap_or(300)
}

/// Handlers that do the same, each in functions of its own. They are not quite the same, or a linker may keep one for all.
macro_rules! handlers {
    ($($name:ident)*) => {
        /// What the functions of each are known by.
        const MARKERS: [&str; [$(stringify!($name)),*].len()] = [$(stringify!($name)),*];

        $(mod $name {
            use super::*;

            #[inline(never)]
            fn computes() {
                let began = Instant::now();
                while began.elapsed() < Duration::from_micros(200) {
                    std::hint::black_box(stringify!($name));
                }
            }

            async fn waits() {
                std::hint::black_box(stringify!($name));
                tokio::time::sleep(Duration::from_micros(500)).await;
            }

            async fn child() {
                waits().await;
                std::hint::black_box(stringify!($name));
                computes();
            }

            pub(super) async fn handles() {
                computes();
                tokio::join!(waits(), child());
                heeler::spawn(child()).await.unwrap();
                computes();
            }
        })*

        /// What the profiles are of. Each request has something that is gone when the request is.
        async fn handle(request: Request<String>) -> Result<Response<String>, Infallible> {
            match &request.uri().path()[1..] {
                $(stringify!($name) => $name::handles().await,)*
                other => unreachable!("{other}"),
            }
            Ok(Response::new(request.uri().path().to_owned()))
        }
    };
}

handlers!(marker_alpha marker_beta marker_gamma marker_delta marker_epsilon);

/// A request for a profile of a handler.
fn request(marker: &str, ask: &str, witness: &Arc<()>) -> Request<String> {
    let request = Request::get(format!("/{marker}?__geordi__={ask}")).extension(Arc::clone(witness));
    request.body(String::new()).unwrap()
}

async fn profile<S, R>(service: S, request: Request<String>) -> Profile
where
    S: Service<Request<String>, Response = Response<R>, Error = Infallible>,
    R: http_body::Body<Error: std::fmt::Debug>,
{
    let response = service.oneshot(request).await.unwrap();
    let status = response.status();
    let Ok(body) = response.into_body().collect().await else { panic!("its body failed") };
    let body = body.to_bytes();
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    serde_json::from_slice(&body).unwrap()
}

/// It is of this handler's functions and of no other's.
#[track_caller]
fn assert_of(profile: &Profile, marker: &str) {
    assert_eq!((&profile.outcome, &*profile.request.uri), (&Outcome::Finished, &*format!("/{marker}")));
    let sum: u64 = profile.slices.iter().map(|slice| slice.nanos).sum();
    assert_eq!(sum, profile.wall_nanos);
    let is_there = |marker: &&str| {
        let mut functions = profile.frames.iter().filter_map(|frame| frame.function.as_deref());
        functions.any(|function| function.contains(*marker))
    };
    let seen: Vec<&str> = MARKERS.into_iter().filter(is_there).collect();
    if PORTABLE {
        assert!(seen.iter().all(|seen| *seen == marker), "{seen:?} in that of {marker}");
    } else {
        assert_eq!(seen, [marker]);
    }
}

/// What this process has.
#[derive(Debug, Clone, Copy)]
struct Held {
    threads: usize,
    files: usize,
    resident_kib: i64,
    allocated: i64,
}

impl Held {
    fn now() -> Self {
        let entries = |path: &str| fs::read_dir(path).unwrap().count();
        let status = fs::read_to_string("/proc/self/status").unwrap();
        Self {
            threads: entries("/proc/self/task"),
            files: entries("/proc/self/fd"),
            resident_kib: number(&status, "VmRSS:"),
            allocated: LIVE.load(Ordering::Relaxed),
        }
    }
}

/// A number of a file of `/proc`.
fn number(status: &str, name: &str) -> i64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// How often the thread that samples has slept.
fn sleeps_of_the_sampler() -> i64 {
    let tasks = fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let sampler = |path: &std::path::PathBuf| {
        fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "heeler-sampler")
    };
    let sampler = tasks.into_iter().find(sampler).expect("there is one after the first profile");
    number(&fs::read_to_string(sampler.join("status")).unwrap(), "voluntary_ctxt_switches:")
}

/// Waits until nothing is under way: no request is left, and no recording, for the sampler sleeps for good.
#[track_caller]
fn until_over(witness: &Arc<()>) {
    until("no request is left", || Arc::strong_count(witness) == 1);
    until("no recording is left", || {
        let before = sleeps_of_the_sampler();
        // Ten times as long as it sleeps while there is one.
        std::thread::sleep(ms(100));
        sleeps_of_the_sampler() == before
    });
}

/// Guards: profiles are made one after the other, and some clients leave. No request, recording, thread, file or memory is
/// left behind, and each profile is of its own handler.
#[test]
fn many_profiles_in_a_row_leave_nothing_behind() {
    let _alone = alone();
    let (many, witness) = (profiles(), Arc::new(()));
    let store = ProfileStore::memory().max_count(1);
    let layer = ProfileLayer::new(|_: &http::request::Parts| true).sample_rate_hz(100).max_queued(1_000).store(store);
    let service = layer.layer(tower::service_fn(handle));
    let runtime = runtime(2);
    let (window, mut held) = (many.div_ceil(WINDOWS), Vec::new());
    let began = Instant::now();
    for at in 0..WINDOWS * window {
        let marker = MARKERS[at % MARKERS.len()];
        let asked = profile(service.clone(), request(marker, "json", &witness));
        let patience = if at % 7 == 3 { ms(2) } else { PATIENCE };
        match runtime.block_on(async { tokio::time::timeout(patience, asked).await }) {
            Ok(profile) => assert_of(&profile, marker),
            Err(_) => assert!(at % 7 == 3, "no profile {at}"),
        }
        if at % window == window - 1 {
            until_over(&witness);
            held.push(Held::now());
        }
    }
    // The first of them have met everything that is kept for good: threads, what is known of functions.
    let (warm, end) = (held[1], held[WINDOWS - 1]);
    println!("{many} in {:.1?}: {warm:?}, then {end:?}", began.elapsed());
    // Blocking threads come and go.
    assert!(end.threads <= warm.threads + 8, "{held:#?}");
    assert!(end.files <= warm.files + 2, "{held:#?}");
    assert!(end.resident_kib <= warm.resident_kib + (128 << 10), "{held:#?}");
    // A place that is seldom met may cost megabytes of debug information, once. What each profile costs, it costs every time.
    let mut grown: Vec<i64> = held.windows(2).skip(1).map(|two| two[1].allocated - two[0].allocated).collect();
    grown.sort_unstable();
    let each = grown[grown.len() / 2] / window as i64;
    println!("each leaves {each} bytes");
    assert!(each < 400, "each profile leaves {each} bytes: {held:#?}");
}

/// Guards: 200 requests at once, with several under way at the same time, on threads of their own or on several of the
/// application's. Each gets the profile of its own handler, and none waits forever.
#[test]
fn many_profiles_at_once_stay_separate() {
    let _alone = alone();
    let witness = Arc::new(());
    let done = Arc::new(AtomicU32::new(0));
    let runtime = runtime(3);
    for inline in [false, true] {
        let layer = ProfileLayer::new(|_: &http::request::Parts| true).max_concurrent(6).max_queued(200);
        let layer = if inline { layer.inline() } else { layer };
        let service = layer.layer(tower::service_fn(handle));
        let asked = (0..200).map(|at| {
            let marker = MARKERS[at % MARKERS.len()];
            let (asked, done) = (profile(service.clone(), request(marker, "json", &witness)), Arc::clone(&done));
            runtime.spawn(async move {
                assert_of(&asked.await, marker);
                done.fetch_add(1, Ordering::Relaxed);
            })
        });
        let all = join_all(asked.collect::<Vec<_>>());
        let all = runtime.block_on(async { tokio::time::timeout(PATIENCE * 3, all).await });
        for asker in all.unwrap_or_else(|_| panic!("only {done:?} have a profile, inline: {inline}")) {
            asker.unwrap();
        }
    }
    assert_eq!(done.load(Ordering::Relaxed), 400);
    until_over(&witness);
}
