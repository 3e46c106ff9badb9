//! What a dump costs, and how long the console takes to answer.
//!
//! - `dump.blocked`: 10,000 requests wait, and then every worker is blocked: how long the console's own listener takes to
//!   list them all, and how long a dump takes, with how many of the stacks.
//! - `dump.idle`: the same with idle workers, of work that nobody has looked at before.
//! - `dump.large`: 100,000 requests: time, and memory at its peak.
//! - `dump.clients`: how much of a service's throughput 100 clients of the console's table take away.
//!
//! ```text
//! cargo bench -p benches --bench dump               # about a minute
//! cargo bench -p benches --bench dump -- --quick
//! ```

#[path = "common/mod.rs"]
mod common;

use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{at_most, plain, quick, resident};
use heeler::report::{Dump, DumpState};
use heeler::{Reports, WatchdogLayer, authorize};
use http::{Request, Response};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tower::{Layer as _, ServiceExt as _};

const SECRET: &str = "a-secret-of-this-benchmark";

struct Service {
    runtime: Runtime,
    layer: WatchdogLayer,
    go: watch::Sender<bool>,
}

async fn next_photo(mut gone: watch::Receiver<bool>) {
    let _ = gone.wait_for(|gone| *gone).await;
}

async fn next_message(mut gone: watch::Receiver<bool>) {
    let _ = gone.wait_for(|gone| *gone).await;
}

impl Service {
    fn new(threshold: Duration) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let reports = Reports::builder().without_log().build().expect("reports");
        Self { runtime, layer: WatchdogLayer::new(threshold).reports(reports), go: watch::channel(false).0 }
    }

    fn request<F: Future<Output = ()> + Send + 'static>(&self, path: String, future: F) {
        let future = Mutex::new(Some(future));
        let service = tower::service_fn(move |_: Request<()>| {
            let future = future.lock().expect("no panic").take().expect("one request");
            async move {
                future.await;
                Ok::<_, Infallible>(Response::new(()))
            }
        });
        let request = Request::get(path).body(()).expect("a request");
        self.runtime.spawn(self.layer.layer(service).oneshot(request));
    }

    fn fill(&self, many: u64) {
        for number in 0..many {
            let gone = self.go.subscribe();
            match number % 2 {
                0 => self.request(format!("/photos/{number}"), next_photo(gone)),
                _ => self.request(format!("/messages/{number}"), next_message(gone)),
            }
        }
        until(|| heeler::metrics().in_flight.requests == many);
        std::thread::sleep(Duration::from_millis(200));
    }

    fn empty(&self) {
        self.go.send_replace(true);
        until(|| heeler::metrics().in_flight.total() == 0);
    }
}

fn until(holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(60), "it does not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn known(dump: &Dump) -> f64 {
    let observed = dump.groups.iter().filter(|group| group.state != DumpState::Unknown);
    let known: u64 = observed.flat_map(|group| &group.paths).map(|path| path.count).sum();
    known as f64 / dump.in_flight.max(1) as f64 * 100.0
}

/// Asks the console, and returns the length of the answer.
fn ask(address: SocketAddr, query: &str) -> (usize, Duration) {
    let began = Instant::now();
    let mut stream = TcpStream::connect(address).expect("a connection");
    write!(
        stream,
        "GET /{query} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {SECRET}\r\nconnection: close\r\n\r\n"
    )
    .expect("it is sent");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an answer");
    assert!(bytes.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&bytes[..bytes.len().min(200)]));
    let listed = bytes.windows(8).filter(|window| window == b"\"kind\":\"").count();
    (listed, began.elapsed())
}

fn console() -> SocketAddr {
    let authorize = authorize::bearer(SECRET).expect("a secret");
    heeler::console(Reports::default(), authorize)
        .serve("127.0.0.1:0".parse().expect("an address"))
        .expect("a listener")
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn main() {
    let Some(part) = common::after("--part") else {
        return ["idle", "blocked", "large", "clients"].into_iter().for_each(|part| common::again(&["--part", part]));
    };
    match part.first().map(String::as_str) {
        Some("idle") => idle(),
        Some("blocked") => blocked(),
        Some("large") => large(),
        _ => clients(),
    }
}

fn idle() {
    let service = Service::new(Duration::from_secs(3_600));
    service.fill(10_000);
    for name in ["first", "second"] {
        let dump = heeler::blocking_dump();
        at_most(&format!("dump.idle.{name}_ms"), millis(dump.took), 1_000.0);
        plain(&format!("dump.idle.{name}_stacks"), known(&dump), "% of 10,000");
    }
    service.empty();
}

fn blocked() {
    let service = Service::new(Duration::from_secs(16));
    let address = console();
    service.fill(10_000);
    // From an eighth of the threshold on, heeler knows where they are.
    std::thread::sleep(Duration::from_secs(8));
    let gate: &'static Mutex<()> = Box::leak(Box::default());
    let held = gate.lock();
    for number in 0..2 {
        service.request(format!("/flush/{number}"), async move { drop(gate.lock()) });
    }
    std::thread::sleep(Duration::from_millis(200));
    for name in ["first", "second"] {
        let (listed, took) = ask(address, "?form=table");
        assert!(listed >= 10_002, "{listed}");
        at_most(&format!("dump.blocked.table_{name}_ms"), millis(took), 200.0);
        std::thread::sleep(Duration::from_secs(1));
    }
    let dump = heeler::blocking_dump();
    at_most("dump.blocked.ms", millis(dump.took), 1_000.0);
    plain("dump.blocked.stacks", known(&dump), "% (goal >= 99)");
    drop(held);
    service.empty();
}

fn large() {
    let service = Service::new(Duration::from_secs(3_600));
    service.fill(100_000);
    let before = resident();
    let peak = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let (watched, done) = (Arc::clone(&peak), Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let ends = Arc::clone(&done);
    let looks = std::thread::spawn(move || {
        while !ends.load(std::sync::atomic::Ordering::Relaxed) {
            watched.fetch_max(resident(), std::sync::atomic::Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    let dump = heeler::blocking_dump();
    let json = dump.to_json().len();
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    looks.join().expect("no panic");
    let grown = peak.load(std::sync::atomic::Ordering::Relaxed).saturating_sub(before);
    plain("dump.large.ms", millis(dump.took), "ms");
    plain("dump.large.stacks", known(&dump), "% of 100,000");
    plain("dump.large.omitted", (dump.omitted + dump.unobserved) as f64, "said to be left out");
    at_most("dump.large.peak_mb", grown as f64 / 1e6, 200.0);
    plain("dump.large.json_mb", json as f64 / 1e6, "MB");
    service.empty();
}

/// Requests a second that two workers serve.
fn throughput(service: &Service, time: Duration) -> f64 {
    let served = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let end = Instant::now() + time;
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            let (served, layer) = (Arc::clone(&served), service.layer.clone());
            service.runtime.spawn(async move {
                let answer = tower::service_fn(async |_: Request<()>| {
                    tokio::task::yield_now().await;
                    Ok::<_, Infallible>(Response::new(()))
                });
                let service = layer.layer(answer);
                while Instant::now() < end {
                    for _ in 0..32 {
                        let request = Request::get("/hello").body(()).expect("a request");
                        let _ = service.clone().oneshot(request).await;
                    }
                    served.fetch_add(32, std::sync::atomic::Ordering::Relaxed);
                }
            })
        })
        .collect();
    for task in tasks {
        service.runtime.block_on(task).expect("no panic");
    }
    served.load(std::sync::atomic::Ordering::Relaxed) as f64 / time.as_secs_f64()
}

fn clients() {
    let service = Service::new(Duration::from_secs(25));
    let address = console();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (slice, rounds) = if quick() { (Duration::from_millis(500), 4) } else { (Duration::from_secs(2), 10) };
    let mut ratios = Vec::new();
    let mut controls = Vec::new();
    for _ in 0..rounds {
        let (one, other) = (throughput(&service, slice), throughput(&service, slice));
        controls.push(other / one);
        stop.store(false, std::sync::atomic::Ordering::Relaxed);
        let clients: Vec<_> = (0..100)
            .map(|_| {
                let stop = Arc::clone(&stop);
                std::thread::spawn(move || {
                    let mut stream = TcpStream::connect(address).expect("a connection");
                    write!(
                        stream,
                        "GET /?events HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {SECRET}\r\n\r\n"
                    )
                    .expect("it is sent");
                    stream.set_read_timeout(Some(Duration::from_millis(200))).expect("a limit");
                    let mut bytes = [0; 4_096];
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        let _ = stream.read(&mut bytes);
                    }
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(200));
        ratios.push(throughput(&service, slice) / throughput_alone(&service, slice, &stop, clients));
    }
    let median = |mut all: Vec<f64>| {
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    plain("dump.clients.control", median(controls), "of the throughput (noise)");
    plain("dump.clients.throughput", median(ratios), "of the throughput (goal >= 0.99)");
}

fn throughput_alone(
    service: &Service,
    slice: Duration,
    stop: &std::sync::atomic::AtomicBool,
    clients: Vec<std::thread::JoinHandle<()>>,
) -> f64 {
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for client in clients {
        client.join().expect("no panic");
    }
    std::thread::sleep(Duration::from_millis(1_500));
    throughput(service, slice)
}
