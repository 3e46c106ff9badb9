//! What a profile sees and costs, beside the `pprof` crate on the same work in the same run.
//!
//! - `profile.samples_kept`: of the samples that were due while a request computed (a regular expression, allocations,
//!   files, formatted numbers), how many were taken; and of those that `pprof` was to take with its recommended blocklist.
//! - `profile.cost.request`: the request's own time, profiled over not profiled, fastest of alternating runs.
//! - `profile.cost.others`: CPU time that a piece of other work takes while requests are profiled, over without.
//! - `profile.idle`: what the layer adds to a request that nobody asks to profile.
//!
//! ```text
//! cargo bench -p benches --bench profile
//! cargo bench -p benches --bench profile -- --quick
//! ```

#[path = "common/mod.rs"]
mod common;

use std::convert::Infallible;
use std::future::Future;
use std::hint::black_box;
use std::io::Read as _;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use common::{Contender, at_least, at_most, pick, plain, race, undisturbed};
use heeler::ProfileLayer;
use heeler::profile::{Profile, State};
use http::{Request, Response, Uri};
use http_body_util::BodyExt as _;
use tower::{Layer as _, Service, ServiceExt as _};

const HZ: i32 = 999;

/// A turn of work that is half in libc, as a service's is.
fn turn(expression: &regress::Regex) -> u64 {
    let text = "2026-11-21 GET /albums/17/photos?page=3 200 1834us ".repeat(8);
    let found = expression.find_iter(&text).count();
    let parts: Vec<String> = (0..64).map(|number| format!("{number:08}-{found}")).collect();
    let mut read = [0; 512];
    let bytes = std::fs::File::open("/proc/self/stat").and_then(|mut file| file.read(&mut read)).unwrap_or(0);
    black_box(parts).len() as u64 + bytes as u64
}

fn work_for(time: Duration) -> u64 {
    let expression = regress::Regex::new(r"(\d+)-(\d+)-(\d+) (GET|POST) /(\w+/)+").unwrap();
    let (began, mut sum) = (Instant::now(), 0);
    while began.elapsed() < time {
        sum += turn(&expression);
    }
    sum
}

/// The same amount, however long it takes.
fn work(turns: u32) -> u64 {
    let expression = regress::Regex::new(r"(\d+)-(\d+)-(\d+) (GET|POST) /(\w+/)+").unwrap();
    (0..turns).map(|_| turn(&expression)).sum()
}

/// A profile of a request that runs `work`.
fn profile(runtime: &tokio::runtime::Runtime, work: impl Fn() + Clone + Send + 'static) -> Profile {
    let service = tower::service_fn(move |_: Request<String>| {
        work();
        async { Ok::<_, Infallible>(Response::new(String::new())) }
    });
    let service = ProfileLayer::new(|_: &http::request::Parts| true).layer(service);
    let request = Request::get("/?__geordi__=json").body(String::new()).unwrap();
    let body = runtime.block_on(async { service.oneshot(request).await.unwrap().into_body().collect().await });
    serde_json::from_slice(&body.unwrap().to_bytes()).unwrap()
}

fn samples_kept(runtime: &tokio::runtime::Runtime) {
    let time = pick(Duration::from_secs(5), Duration::from_secs(2));
    let profile = profile(runtime, move || {
        black_box(work_for(time));
    });
    let quality = profile.quality;
    at_least("profile.samples_kept", quality.taken as f64 / quality.expected as f64, 1.0);
    plain("profile.samples_late", quality.late as f64 / quality.taken as f64, "of those taken");
    let unattributed = |slice: &&heeler::profile::Slice| {
        let frame = profile.nodes[slice.stack as usize].frame;
        profile.frames[frame as usize].function.as_deref() == Some("[unattributed]")
    };
    let nanos: u64 = profile.slices.iter().filter(unattributed).map(|slice| slice.nanos).sum();
    plain("profile.unattributed", nanos as f64 / profile.wall_nanos as f64, "of the request's time");
    let on_cpu =
        profile.slices.iter().filter(|slice| slice.state == State::OnCpu).map(|slice| slice.nanos).sum::<u64>();
    plain("profile.on_cpu", on_cpu as f64 / profile.wall_nanos as f64, "of the request's time");
    plain("profile.sampler", quality.sampler_nanos as f64 / profile.wall_nanos as f64, "of a core");
    let guard = pprof::ProfilerGuardBuilder::default().frequency(HZ).blocklist(&["libc", "libgcc", "pthread", "vdso"]);
    let guard = guard.build().expect("pprof starts");
    black_box(work_for(time));
    let report = guard.report().build().expect("pprof reports");
    let seen: isize = report.data.values().sum();
    plain("profile.samples_kept.pprof", seen as f64 / (time.as_secs_f64() * f64::from(HZ)), "");
}

fn cost_of_a_request(runtime: &tokio::runtime::Runtime) {
    let turns = pick(20_000, 4_000);
    let (mut alone, mut profiled) = (f64::MAX, f64::MAX);
    for _ in 0..pick(12, 6) {
        let began = Instant::now();
        // As a profiled request runs: on a thread of its own.
        std::thread::spawn(move || black_box(work(turns))).join().unwrap();
        alone = alone.min(began.elapsed().as_secs_f64());
        let profile = profile(runtime, move || {
            black_box(work(turns));
        });
        profiled = profiled.min(profile.wall_nanos as f64 / 1e9);
    }
    at_most("profile.cost.request", profiled / alone, 1.02);
}

/// CPU time of this thread, in seconds.
fn cpu_time() -> f64 {
    let path = format!(
        "/proc/self/task/{}/schedstat",
        std::fs::read_link("/proc/thread-self").unwrap().file_name().unwrap().to_str().unwrap()
    );
    let text = std::fs::read_to_string(path).unwrap();
    text.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1e9
}

fn cost_to_others(runtime: &Arc<tokio::runtime::Runtime>) {
    let turns = pick(8_000, 2_000);
    let profiling = Arc::new(AtomicBool::new(false));
    let over = Arc::new(AtomicBool::new(false));
    let (is, ends, on) = (Arc::clone(&profiling), Arc::clone(&over), Arc::clone(runtime));
    // Requests one after the other, half of the time profiled; they compute and wait in turns, as other requests do.
    let requests = std::thread::spawn(move || {
        while !ends.load(Ordering::Relaxed) {
            if is.load(Ordering::Relaxed) {
                profile(&on, || {
                    black_box(work_for(Duration::from_millis(50)));
                });
            } else {
                black_box(work_for(Duration::from_millis(50)));
            }
        }
    });
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for round in 0..pick(40, 12) {
        let profiled = round % 2 == 1;
        profiling.store(profiled, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(120));
        let before = cpu_time();
        black_box(work(turns));
        if profiled { &mut with } else { &mut without }.push(cpu_time() - before);
    }
    over.store(true, Ordering::Relaxed);
    requests.join().unwrap();
    at_most("profile.cost.others", undisturbed(&with) / undisturbed(&without), 1.005);
}

fn call<S>(service: &mut S, uri: &Uri, n: u64)
where
    S: Service<Request<String>, Error = Infallible>,
{
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..n {
        let mut request = Request::new(String::new());
        *request.uri_mut() = uri.clone();
        match pin!(service.call(request)).poll(&mut cx) {
            Poll::Ready(response) => drop(black_box(response)),
            Poll::Pending => unreachable!("it is ready"),
        }
    }
}

/// Without a query, with a common one, and with a long one.
fn idle() {
    let inner =
        tower::service_fn(|_: Request<String>| std::future::ready(Ok::<_, Infallible>(Response::new(String::new()))));
    for length in [0, 30, 300] {
        let query: String = "?sort=date_taken&page=12&tags=red".chars().cycle().take(length).collect();
        let uri: &Uri = &format!("/albums/7{query}").parse().unwrap();
        let (mut bare, mut layered) = (inner, ProfileLayer::new(|_: &http::request::Parts| true).layer(inner));
        let mut contenders: [Contender<'_>; 2] =
            [Box::new(move |n| call(&mut bare, uri, n)), Box::new(move |n| call(&mut layered, uri, n))];
        let times = race(pick(200, 60), 20_000, &mut contenders);
        let name = format!("profile.idle_ns.query_{length}");
        at_most(&name, undisturbed(&times[1]) - undisturbed(&times[0]), 20.0);
    }
}

fn main() {
    let runtime = Arc::new(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap());
    idle();
    samples_kept(&runtime);
    cost_of_a_request(&runtime);
    cost_to_others(&runtime);
}
