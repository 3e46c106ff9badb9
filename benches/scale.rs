//! What a million requests in flight cost.
//!
//! - `scale.row`: memory of a request in flight, without its own future: what the process's resident memory grows by.
//! - `scale.register`: beginning a request with a million in flight against a thousand.
//! - `scale.monitor`: what the monitor's thread uses while a hundred thousand requests are in flight, none of them near its
//!   deadline; and, without a goal, while all of them are past an eighth of it.
//! - `scale.expire_together`: how late boxes are that expire together, each with a task that was handed on within it.
//! - `scale.expire_beside_starved`: how late boxes are while requests are starved behind workers that block.
//!
//! ```text
//! cargo bench -p benches --bench scale               # some 40 seconds, and a gigabyte of memory
//! cargo bench -p benches --bench scale -- --quick    # half of that time
//! ```

#[path = "common/mod.rs"]
mod common;

use std::convert::Infallible;
use std::future::Pending;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{at_most, nanos, nanos_on_cpu, pick, plain, quantile, resident, status, thread, undisturbed};
use heeler::watchdog::{ResponseFuture, WatchdogService};
use heeler::{Interrupted, Reports, TimeboxExt, WatchdogLayer, checkpoint, timebox};
use http::{HeaderValue, Request, Response, header};
use http_body_util::Full;
use tower::{Layer, Service};

const MILLION: usize = 1_000_000;

type Answer = Result<Response<Full<Bytes>>, Infallible>;
type InFlight = ResponseFuture<Pending<Answer>>;

/// Never answers.
#[derive(Clone)]
struct Silent;

impl Service<Request<()>> for Silent {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pending<Answer>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Pending<Answer> {
        std::future::pending()
    }
}

fn main() {
    let Some(part) = common::after("--part") else {
        // A process for each: what one leaves behind is not the next one's.
        return ["expire_together", "expire_beside_starved", "rows", "register", "monitor"]
            .into_iter()
            .for_each(|part| common::again(&["--part", part]));
    };
    match part.first().map(String::as_str) {
        Some("expire_together") => return expire_together(),
        Some("expire_beside_starved") => return expire_beside_starved(),
        _ => {}
    }
    // Nobody reads these reports: none of these requests is ever answered.
    let reports = Reports::builder().without_log().build().expect("reports");
    let layer = WatchdogLayer::default().reports(reports).without_abandoned_reports();
    let mut service = layer.layer(Silent);
    let handle = layer.handle();
    handle.set_enabled(false);
    let mut requests: Vec<InFlight> = Vec::with_capacity(MILLION);
    // Touches the memory of the futures: from here on it is only the rows that grow.
    fill(&mut requests, &mut service, MILLION, false);
    requests.clear();
    handle.set_enabled(true);
    match part.first().map(String::as_str) {
        Some("rows") => rows(&mut requests, &mut service),
        Some("register") => register(&mut requests, &mut service),
        _ => monitor(&mut requests, &mut service),
    }
}

fn fill(requests: &mut Vec<InFlight>, service: &mut WatchdogService<Silent>, n: usize, headers: bool) {
    requests.extend((0..n).map(|_| service.call(request(headers))));
}

fn request(headers: bool) -> Request<()> {
    let mut request = Request::new(());
    if headers {
        request.headers_mut().insert(header::HOST, HeaderValue::from_static("example.com"));
        request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static("bench"));
    }
    request
}

fn rows(requests: &mut Vec<InFlight>, service: &mut WatchdogService<Silent>) {
    let before = resident();
    fill(requests, service, MILLION, false);
    at_most("scale.row.bytes", resident().saturating_sub(before) as f64 / MILLION as f64, 256.0);
    plain("scale.row.bytes_of_its_future", size_of::<InFlight>() as f64, "(not counted above)");
    requests.clear();
    let free = resident().saturating_sub(before) as f64 / MILLION as f64;
    plain("scale.row.bytes_when_all_have_ended", free, "(kept for the next requests)");
    fill(requests, service, MILLION, true);
    let with_headers = resident().saturating_sub(before) as f64 / MILLION as f64;
    plain("scale.row.bytes_with_two_allowed_headers", with_headers, "");
}

/// Requests come and go: batches of new ones begin, and each takes the place of one that began at another time.
fn register(requests: &mut Vec<InFlight>, service: &mut WatchdogService<Silent>) {
    const BATCH: usize = 32;
    let rounds = pick(200_000, 40_000);
    let mut times = Vec::new();
    for in_flight in [1_000, MILLION] {
        requests.clear();
        fill(requests, service, in_flight, false);
        let mut random = 88_172_645_463_325_252_u64;
        let mut began = Vec::with_capacity(BATCH);
        let (mut register, mut turn) = (Vec::with_capacity(rounds), Vec::with_capacity(rounds));
        for _ in 0..rounds {
            let start = Instant::now();
            fill(&mut began, service, BATCH, false);
            register.push(nanos(start.elapsed()) / BATCH as f64);
            for request in began.drain(..) {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                requests[(random % in_flight as u64) as usize] = request;
            }
            turn.push(nanos(start.elapsed()) / BATCH as f64);
        }
        // The mean of the fastest tenth tells what it costs, the median what it costs here and now.
        plain(&format!("scale.register.ns_at_{in_flight}"), undisturbed(&register), "ns");
        plain(&format!("scale.register.median_ns_at_{in_flight}"), common::median(&mut register.clone()), "ns");
        plain(&format!("scale.register.ns_at_{in_flight}_with_the_end_of_another"), undisturbed(&turn), "ns");
        times.push(common::median(&mut register));
    }
    at_most("scale.register.at_1000000_vs_at_1000", times[1] / times[0], 1.5);
}

fn millis(durations: impl IntoIterator<Item = Duration>) -> Vec<f64> {
    durations.into_iter().map(|duration| nanos(duration) / 1e6).collect()
}

fn runtime(workers: usize) -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build().expect("a runtime")
}

fn expire_together() {
    const LIMIT: Duration = Duration::from_millis(1_500);
    let boxes = pick(10_000, 5_000);
    let runtime = runtime(2);
    let one = || async {
        let began = Instant::now();
        let work = async { drop(heeler::spawn(std::future::pending::<()>()).await) };
        assert!(work.timebox(LIMIT).await.is_err());
        began.elapsed() - LIMIT
    };
    let all: Vec<_> = (0..boxes).map(|_| runtime.spawn(one())).collect();
    let late = all.into_iter().map(|one| runtime.block_on(one).expect("no panic"));
    let mut late = millis(late);
    plain("scale.expire_together.median_ms", common::median(&mut late), "ms");
    at_most("scale.expire_together.max_ms", quantile(&mut late, 1.0), 20.0);
    if let Some((used, _)) = used() {
        plain("scale.expire_together.monitor_ms", used as f64 / 1e6, "ms of CPU");
    }
    runtime.shutdown_background();
}

fn expire_beside_starved() {
    const LIMIT: Duration = Duration::from_millis(20);
    const WORKERS: usize = 8;
    let reports = Reports::builder().without_log().build().expect("reports");
    let runtime = runtime(WORKERS);
    for _ in 0..2_000 {
        let work = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            std::future::pending::<()>().await;
        };
        runtime.spawn(heeler::watch("starved", Duration::from_millis(300), work).reports(reports.clone()));
    }
    std::thread::sleep(Duration::from_millis(50));
    for _ in 0..WORKERS {
        let work = async { std::thread::sleep(Duration::from_secs(6)) };
        runtime.spawn(heeler::watch("culprit", Duration::from_secs(30), work).reports(reports.clone()));
    }
    std::thread::sleep(Duration::from_millis(200));
    let late = (0..pick(150, 75)).map(|_| {
        let began = Instant::now();
        let told: Result<(), Interrupted> = timebox::blocking(LIMIT, || {
            loop {
                checkpoint()?;
                std::thread::sleep(Duration::from_micros(50));
            }
        });
        assert!(told.is_err());
        began.elapsed() - LIMIT
    });
    let mut late = millis(late);
    plain("scale.expire_beside_starved.median_ms", common::median(&mut late), "ms");
    at_most("scale.expire_beside_starved.max_ms", quantile(&mut late, 1.0), 5.0);
    plain("scale.expire_beside_starved.stacks", heeler::metrics().thread_stacks.taken as f64, "taken of 8 workers");
    runtime.shutdown_background();
}

/// What the monitor has used until now: nanoseconds on a processor, and times that it went to sleep.
fn used() -> Option<(u64, u64)> {
    let path = thread("heeler-monitor")?;
    Some((nanos_on_cpu(&path), status(&format!("{path}/status"), "voluntary_ctxt_switches:")?))
}

fn monitor(requests: &mut Vec<InFlight>, service: &mut WatchdogService<Silent>) {
    const IN_FLIGHT: usize = 100_000;
    const PARTS: usize = 100;
    let mut cx = Context::from_waker(Waker::noop());
    let begin = |service: &mut WatchdogService<Silent>, cx: &mut Context<'_>| {
        let mut future = service.call(request(false));
        assert!(Pin::new(&mut future).poll(cx).is_pending());
        future
    };
    requests.extend((0..IN_FLIGHT).map(|_| begin(service, &mut cx)));
    let Some(before) = used() else { return println!("scale.monitor: no /proc to read") };
    let start = Instant::now();
    let duration = pick(Duration::from_secs(15), Duration::from_secs(6));
    // A request lasts two seconds here, as many as are in flight begin every two seconds.
    let mut part = 0;
    while start.elapsed() < duration {
        for request in &mut requests[part * (IN_FLIGHT / PARTS)..][..IN_FLIGHT / PARTS] {
            *request = begin(service, &mut cx);
        }
        part = (part + 1) % PARTS;
        std::thread::sleep(Duration::from_secs(2) / PARTS as u32);
    }
    print_used("", before, start, true);
    // Left alone, all of them are past an eighth of their 25 seconds after three: traced from then on, and still in time.
    let Some(before) = used() else { return };
    let start = Instant::now();
    std::thread::sleep(pick(Duration::from_secs(8), Duration::from_secs(6)));
    print_used("_while_they_are_armed", before, start, false);
}

fn print_used(when: &str, before: (u64, u64), start: Instant, goals: bool) {
    let Some(after) = used() else { return };
    let seconds = start.elapsed().as_secs_f64();
    let percent = (after.0 - before.0) as f64 / 1e7 / seconds;
    let wakes = (after.1 - before.1) as f64 / seconds;
    let (share, wakings) =
        (format!("scale.monitor.percent_of_a_core{when}"), format!("scale.monitor.wakes_a_second{when}"));
    if goals {
        at_most(&share, percent, 1.0);
        at_most(&wakings, wakes, 20.0);
    } else {
        plain(&share, percent, "%");
        plain(&wakings, wakes, "1/s");
    }
}
